r"""The students of the paper, and newer ones, at its batch and context.

  --config=configs/students.py:qwen2.5-3b

Students of up to 3B train whole, larger ones with LoRA. The domain, the teacher
and the lessons are those of configs/smollm2_135m.py; set them to yours. Check
that it fits before renting anything:

  python scripts/compile_check.py --config=configs/students.py:qwen2.5-3b \
    --topology=v5e:4x4 --config.train.microbatches=8

Parts of one row a device need the least memory: set train.microbatches to 128
over the devices of mesh.data and mesh.fsdp. The least that holds all weights of
a 3B student is four chips of 16 GB (of 15.75 GiB Qwen2.5 takes 15.06 and Llama
3.2, with at most 2,048 lessons, 15.66, as compiled by libtpu 0.0.52):

  --topology=v5e:2x2 --config.mesh.fsdp=1 --config.mesh.tensor=4 \
    --config.train.microbatches=128 --config.optimizer.momentum_dtype=bfloat16

Rows too long for one chip are split by mesh.sequence: its chips share the
tokens of a row, and the parameters.
"""

from ioa_jax import config as config_lib

# The paper's rates, of all weights and of adapters.
_FULL = (
  'gemma-3-1b',
  'llama-3.2-1b',
  'llama-3.2-3b',
  'qwen2.5-0.5b',
  'qwen2.5-1.5b',
  'qwen2.5-3b',
  'qwen3-0.6b',
  'qwen3-1.7b',
  'smollm3-3b',
)
_LORA = (
  'gemma-3-4b',
  'llama-3.1-8b',
  'mistral-7b-v0.1',
  'mistral-7b-v0.3',
  'qwen2.5-7b',
  'qwen2.5-14b',
  'qwen3-4b',
  'qwen3-8b',
  'qwen3-14b',
)


def get_config(student: str = 'qwen2.5-3b'):
  if student not in _FULL + _LORA:
    raise ValueError(f'no such student; choose of {_FULL + _LORA}.')
  changes = {
    'student.model': student,
    'student.dtype': 'bfloat16',
    'student.batch_size': 64,
    'student.max_tokens': 1024,
    'teacher.max_tokens': 4096,
    'train.row_length': 4096,
    'train.batch_rows': 128,
    'train.microbatches': 16,
    'train.total_steps': 2000,
    # Parameters and their moments are split over all chips.
    'mesh.data': 1,
    'mesh.fsdp': -1,
  }
  if student in _LORA:
    changes |= {'student.lora.rank': 16, 'optimizer.learning_rate': 1e-4}
  else:
    changes |= {'student.lora.rank': 0, 'optimizer.learning_rate': 2e-5}
    # The weights themselves are probed and exported; an average, and the best
    # ones so far, would be a quarter more state each.
    changes |= {'train.average_decay': 0.0, 'train.keep_best': False}
  return config_lib.get('smollm2_135m', changes)
