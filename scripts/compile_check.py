r"""Compiles a run's programs for devices that are not there: do they fit?

  pip install -e '.[tpu]'        # or '.[cuda12]' for h100
  python scripts/compile_check.py --config=configs/students.py:qwen2.5-3b \
    --topology=v5e:4x4

One JSON object a line for each program: the train step with its gate, the
sampler, and the learner panel if the config has one. Sizes are of one device,
as the compiler reports them; the weights are never made.
`collective_gib_per_step` is what one device exchanges with others in an
optimizer step (of the sampler: in its prefill and one token, of the panel: in
all of it). A 3B student takes minutes on two cores.
"""

from collections.abc import Sequence
import functools
import json
import math
import os
import pathlib
import re
import time

from absl import flags

from ioa_jax.runtime import commandline

_TOPOLOGY = flags.DEFINE_string(
  'topology',
  'v5e:2x4',
  'Generation and chips, as v5e:4x4, v4:2x2x1 or h100:8.',
)
_PROGRAMS = flags.DEFINE_list(
  'programs', ['train', 'sampler', 'panel'], 'Of train, sampler and panel.'
)
_ROWS = flags.DEFINE_integer(
  'rows', 4096, 'Lessons on the device, one a row.', lower_bound=1
)
commandline.DEFINE_config()

# What is free of 80 GB beside the driver and the libraries' own; of TPUs the
# compiler's limit, a quarter GiB less than is sold.
_HBM_GIB = {'v4': 31.25, 'v5e': 15.75, 'v5p': 95, 'v6e': 31.25, 'h100': 74}
_ACCELERATOR = {
  'v4': 'v4-{}',
  'v5e': 'v5litepod-{}',
  'v5p': 'v5p-{}',
  'v6e': 'v6e-{}',
}
_H100 = pathlib.Path(__file__).parent / 'h100.txtpb'
_ADVICE = (
  'Raise --config.train.microbatches (to one row a device), or set '
  '--config.student.remat=full, --config.train.average_decay=0 (keeps no '
  'average), --config.student.lora.rank=16 (trains no weight), take more '
  'devices on --config.mesh.fsdp, or for long rows --config.mesh.sequence.'
)
# The paper proposes 25 to 35 units; probes of a quarter row each.
_MODULES, _STAGES, _PROBES = 30, 10, 24


def _chips(topology: str) -> tuple[str, int]:
  match = re.fullmatch(r'(\w+):(\d+(?:x\d+)*)', topology)
  known = match and match[1] in _HBM_GIB
  if not known or (match[1] != 'h100' and 'x' not in match[2]):
    raise ValueError(
      f'--topology={topology}: wanted GENERATION:AxB with a generation of '
      f'{sorted(_HBM_GIB)}, as v5e:2x4, or h100:8.'
    )
  return match[1], math.prod(map(int, match[2].split('x')))


def _mesh(topology, generation, chips, axes):
  """A mesh of devices that only the compiler knows."""
  # The compiler plugin raises its own types.
  from jax.experimental import topologies

  from ioa_jax.runtime import sharding

  extra = 'cuda12' if generation == 'h100' else 'tpu'
  try:
    if generation == 'h100':
      described = topologies.get_topology_desc(
        'h100',
        'cuda',
        target_config=_H100.read_text(),
        topology=f'1x1x{chips}',
      )
    else:
      cores = 2 * chips if generation in ('v4', 'v5p') else chips
      os.environ |= {
        'TPU_SKIP_MDS_QUERY': '1',
        'TPU_ACCELERATOR_TYPE': _ACCELERATOR[generation].format(cores),
        'TPU_WORKER_HOSTNAMES': 'localhost',
        # No device is used, so another process may load libtpu as well.
        'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
      }
      # Hosts have four chips where nothing is said.
      host = {'chips_per_host_bounds': [1, 1, 1]} if chips == 1 else {}
      described = topologies.get_topology_desc(topology, 'tpu', **host)
  except Exception as e:
    reason = ' '.join(str(e).split())[:200]
    raise ValueError(
      f'--topology={topology} cannot be described ({reason}). It needs '
      f"the compiler: pip install -e '.[{extra}]'"
    ) from None
  return sharding.make_mesh(**axes, devices=described.devices)


def _train(config, model, mesh):
  """The window of steps with its gate, lowered from shapes alone."""
  import jax
  import jax.numpy as jnp

  from ioa_jax import people
  from ioa_jax.models import decoder, lora
  from ioa_jax.runtime import sharding
  from ioa_jax.training import curriculum as curriculum_lib
  from ioa_jax.training import gate as gate_lib
  from ioa_jax.training import optimizer
  from ioa_jax.training import step as step_lib

  spec = people.lora_spec(config)
  t = config.train
  # No seeds are here to count 'auto' from; it is a constant of the schedule.
  steps = 1000 if t.total_steps == 'auto' else t.total_steps
  tx, _ = optimizer.make(optimizer.Recipe(**config.optimizer), steps)
  base = decoder.abstract_params(model)
  k, s = _MODULES, _STAGES
  shape = jax.ShapeDtypeStruct
  floats = shape((k,), jnp.float32)
  scalar = lambda dtype: shape((), dtype)

  def init(params, plan):
    trained = params
    if spec is not None:
      trained = lora.init(spec, params, jax.random.key(0))
    gate = gate_lib.init(plan, jnp.zeros(k), jnp.zeros(k))
    return step_lib.init(
      trained,
      tx,
      gate,
      averages=t.average_decay > 0,
      keep_best=t.keep_best,
    )

  plan = gate_lib.GatePlan(
    stage_modules_SxK=shape((s, k), bool),
    max_steps_S=shape((s,), jnp.int32),
    hold_S=shape((s,), bool),
    teacher_score_K=floats,
    tau_mastery=scalar(jnp.float32),
    z=scalar(jnp.float32),
    sequential=scalar(bool),
    reopen=scalar(bool),
    min_probes=scalar(jnp.int32),
    remedial_steps_S=shape((s,), jnp.int32),
    max_rounds=scalar(jnp.int32),
    stop_on_stall=scalar(bool),
  )
  state = jax.eval_shape(init, base, plan)
  state_shardings = sharding.state_shardings(mesh, state)
  inputs = step_lib.Inputs(
    base=None,
    curriculum=_curriculum(config),
    mix=curriculum_lib.Mix(
      replay_share=scalar(jnp.float32),
      rehearse_K=shape((k,), bool),
      need_floor=scalar(jnp.float32),
      adaptive=scalar(bool),
      contrast=scalar(bool),
      fixed_need_K=floats,
      needs_KxK=shape((k, k), bool),
      readiness_power=scalar(jnp.float32),
      easy_first_share=scalar(jnp.float32),
    ),
    plan=plan,
    # The sampler's program stands for the loop of probes that are decoded.
    bank=_bank(t.row_length, t.batch_rows // t.microbatches)
    if config.gate.scoring == 'in_step'
    else None,
    seed=scalar(jnp.uint32),
    total_steps=scalar(jnp.int32),
    probe_every_steps=scalar(jnp.int32),
    average_decay=scalar(jnp.float32),
    ending_steps=scalar(jnp.int32),
  )
  inputs = _placed(inputs, sharding.input_shardings(mesh, inputs))
  if spec is not None:
    # As `people` loads weights that do not train.
    frozen = _frozen(config, model)
    inputs = inputs.replace(
      base=_placed(frozen, sharding.param_shardings(mesh, frozen))
    )
  window = step_lib.Window(
    step_lib.Program(
      model,
      tx,
      batch_rows=t.batch_rows,
      microbatches=t.microbatches,
      lora=spec,
    ),
    num_steps=t.steps_per_window,
    state_shardings=state_shardings,
    metric_sharding=sharding.replicated(mesh),
  )
  return window.lower(_placed(state, state_shardings), inputs)


def _frozen(config, model):
  """Shapes of weights that do not train, as `loading.load` makes them."""
  import jax

  from ioa_jax.models import decoder, quantised

  weights = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, model.dtype),
    decoder.abstract_params(model),
  )
  if not config.student.quantization:
    return weights
  return jax.eval_shape(
    lambda x: quantised.quantise_projections(x, config.student.quantization),
    weights,
  )


def _placed(tree, shardings):
  """Shapes with their places."""
  import jax

  return jax.tree.map(
    lambda x, to: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=to),
    tree,
    shardings,
  )


def _curriculum(config):
  """Shapes of `--rows` lessons."""
  import jax
  import jax.numpy as jnp

  from ioa_jax.training import curriculum as curriculum_lib
  from ioa_jax.training import packing

  ints = jax.ShapeDtypeStruct((_MODULES,), jnp.int32)
  rows = {
    name: jax.ShapeDtypeStruct(
      (_ROWS.value, config.train.row_length), value.dtype
    )
    for name, value in packing.empty_rows(1, 1).items()
  }
  return curriculum_lib.Curriculum(rows, ints, ints, ints)


def _bank(length, chunk):
  """Shapes of packed probes, each a quarter of a row."""
  import jax

  from ioa_jax.training import packing, probing

  example = packing.Example([0] * (length // 8), [0] * (length // 8))
  bank = probing.build([[example] * _PROBES] * _MODULES, length, chunk)
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), bank)


def _panel(config, model, mesh):
  """All learners, each taught half of the modules and probed on all."""
  import jax
  import jax.numpy as jnp

  from ioa_jax import people
  from ioa_jax.identifier import learner_panel, panel
  from ioa_jax.models import decoder
  from ioa_jax.runtime import sharding

  spec = people.lora_spec(config)
  shape = jax.ShapeDtypeStruct
  weights = _frozen(config, model)
  if spec is None:
    weights = jax.tree.map(
      lambda x: shape(x.shape, jnp.float32), decoder.abstract_params(model)
    )
  length = config.train.row_length
  shards = sharding.num_row_shards(mesh)
  learners = -(-config.identifier.panel.learners // shards) * shards
  inputs = panel.Inputs(
    weights,
    _curriculum(config),
    _bank(length, config.identifier.panel.batch_rows),
    shape((learners, _MODULES), jnp.float32),
    shape((learners,), jnp.uint32),
  )
  program = learner_panel.make_program(config, model, spec)
  return panel.compiled(program, mesh).lower(
    _placed(inputs, panel.shardings(inputs, mesh))
  )


def _sampler(config, model, mesh):
  """The loop: prompts of a quarter row, max_tokens of answer."""
  import jax
  import jax.numpy as jnp

  from ioa_jax.runtime import sharding
  from ioa_jax.sampling import logits as logits_lib
  from ioa_jax.sampling import sampler as sampler_lib
  from ioa_jax.sampling import slots as slots_lib

  b = config.student.batch_size
  shape = jax.ShapeDtypeStruct
  weights = _frozen(config, model)
  weights = _placed(weights, sharding.param_shardings(mesh, weights))
  chunk, width = 64, config.train.row_length // 4
  new = config.student.max_tokens
  slots = jax.eval_shape(
    lambda: slots_lib.empty_slots(
      model,
      slots=b,
      lanes=sampler_lib.num_lanes(b, chunk),
      prompt=width,
      new=new,
      chunk=chunk,
    )
  )
  abstract = lambda tree: jax.tree.map(lambda x: shape(x.shape, x.dtype), tree)
  queue = slots_lib.queue([], [], [], [], entries=4 * b, width=width)
  control = slots_lib.Control(
    keep_B=shape((b,), bool),
    allowed_BxW=shape((b, logits_lib.num_words(model.vocab_size)), jnp.uint32),
    limit=shape((), jnp.int32),
    more=shape((), bool),
  )
  loop = functools.partial(sampler_lib.run, model, chunk=chunk)
  return jax.jit(loop, donate_argnums=1).lower(
    weights, slots, abstract(queue), control, shape((2,), jnp.int32)
  )


def main(argv: Sequence[str]) -> None:
  del argv
  programs = {'train': _train, 'sampler': _sampler, 'panel': _panel}
  if unknown := set(_PROGRAMS.value) - set(programs):
    raise ValueError(f'--programs: {sorted(unknown)}; of {list(programs)}.')
  generation, chips = _chips(_TOPOLOGY.value)
  config = commandline.config()
  import dataclasses

  from ioa_jax import config as config_lib
  from ioa_jax.models import decoder, presets
  from ioa_jax.runtime import sharding

  config_lib.validate(config)
  asked = list(_PROGRAMS.value)
  if 'panel' in asked and not config.identifier.panel.learners:
    if not flags.FLAGS['programs'].using_default_value:
      raise ValueError(
        '--programs=panel: config.identifier.panel.learners is 0, so there is '
        'no panel; add --config.identifier.panel.learners=16.'
      )
    asked.remove('panel')
  name = config.student.model
  if name not in presets.PRESETS:
    raise ValueError(
      f'config.student.model is {name!r}; a check needs one of '
      f'{sorted(presets.PRESETS)}.'
    )
  model = dataclasses.replace(
    presets.PRESETS[name].config,
    dtype=config.student.dtype,
    remat=config.student.remat,
    scan_unroll=config.student.scan_unroll,
  )
  mesh = _mesh(_TOPOLOGY.value, generation, chips, config.mesh)
  parts = config.train.batch_rows // config.train.microbatches
  if parts % sharding.num_row_shards(mesh):
    raise ValueError(
      f'--config.train.microbatches={config.train.microbatches} leaves parts '
      f'of {parts} rows, which {sharding.num_row_shards(mesh)} devices cannot '
      'share evenly; lower it.'
    )
  for program in asked:
    found = _check(programs[program], config, model, mesh, generation)
    print(
      json.dumps(
        {
          'config': name,
          'program': program,
          'topology': _TOPOLOGY.value,
          'mesh': dict(mesh.shape),
          'params': decoder.num_params(model),
          'lora_rank': config.student.lora.rank,
          'batch_rows': config.train.batch_rows,
          'microbatches': config.train.microbatches,
          'row_length': config.train.row_length,
          **found,
        }
      ),
      flush=True,
    )


def _check(program, config, model, mesh, generation):
  """Compiles one program; what it needs on a device, and whether it fits."""
  import jax

  from ioa_jax.runtime import collectives

  limit = _HBM_GIB[generation]
  # Autotuning would time kernels on the device that is not there.
  options = {'xla_gpu_autotune_level': 0} if generation == 'h100' else None
  start = time.monotonic()
  with jax.set_mesh(mesh):
    lowered = program(config, model, mesh)
    try:
      compiled = lowered.compile(options)
    except jax.errors.JaxRuntimeError as e:
      # TPU compilers refuse a program that does not fit.
      needs = re.search(r'memory required .*?\((\d+[\d.]*)G\)', str(e))
      if not needs:
        raise
      return {
        'hbm_gib': {'total': float(needs[1])},
        'hbm_limit_gib': limit,
        'fits': False,
        'compile_s': round(time.monotonic() - start, 1),
        'advice': _ADVICE,
      }
  memory = compiled.memory_analysis()
  # Donated arguments become outputs in place.
  outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
  arguments = memory.argument_size_in_bytes
  temporaries = memory.temp_size_in_bytes
  gib = lambda n: round(n / 2**30, 2)
  total = gib(arguments + temporaries + outputs)
  steps = config.train.steps_per_window if program is _train else 1
  moved = collectives.total_bytes(compiled.as_text()) / steps
  return {
    'hbm_gib': {
      'arguments': gib(arguments),
      'temporaries': gib(temporaries),
      'total': total,
    },
    'hbm_limit_gib': limit,
    'fits': total <= limit,
    'compile_s': round(time.monotonic() - start, 1),
    'collective_gib_per_step': gib(moved),
    **({} if total <= limit else {'advice': _ADVICE}),
  }


if __name__ == '__main__':
  commandline.run(main)
