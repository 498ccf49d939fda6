r"""Scores a model on benchmarks; every answer is kept, a restart continues.

  python scripts/evaluate.py --model=RUN/student --benchmarks=gsm8k,humaneval \
    --data_dir=DATA --output_dir=SCORES

  python scripts/evaluate.py --model=RUN --items=mine_test.jsonl \
    --output_dir=SCORES

RUN is a run directory, whose student is meant. --items is a file of your own
problems with answers (JSON lines, JSON or CSV), asked and graded as the run
does it; --run=RUN says so for another model, as the base.

DATA holds one folder per benchmark, in the format it was published in:
gsm8k/test.jsonl, math/test.jsonl, aime2024/test.jsonl,
humaneval/HumanEval.jsonl(.gz), mbpp/mbpp.jsonl, livecodebench/test.jsonl,
dolly/valid1000_full.jsonl, vicuna/question.jsonl (with answer_gpt35.jsonl),
gpqa/gpqa_diamond.csv. Without --data_dir the hub is read (gsm8k, math,
aime2024, humaneval, mbpp, gpqa_diamond), or what is cached of it.

Prompts are fixed; --prompt chooses the form. A student of a run is asked as it
was trained, anything else gets the published prompt to continue. --shots puts
the first training items before it, out of the folder's gsm8k/train.jsonl,
math/train.jsonl or mbpp/mbpp.jsonl. docs/benchmarks.md says what compares with
published scores. Code runs in a sandbox, and not at all where there is none.

SCORES receives answers.jsonl (one line per answer, with its verdict) and
results.json, to which other benchmarks are added. The same command continues
where it was stopped; answers to other questions than today's do not count, and
another model or another way of sampling needs another folder.
"""

from collections.abc import Sequence
import pathlib
import re

from absl import flags

from ioa_jax.runtime import terminal

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_string(
    'model', None, 'Run directory, model directory, preset or hub id.'
  )
  flags.DEFINE_list('benchmarks', [], 'Names, separated by commas.')
  flags.DEFINE_string(
    'items', None, 'A file of your own, graded as the run grades.'
  )
  flags.DEFINE_string(
    'run', None, 'The run whose grader --items has, if not that of --model.'
  )
  flags.DEFINE_string(
    'data_dir', None, 'Folder of benchmark files; without it, the hub is read.'
  )
  flags.DEFINE_string(
    'output_dir', None, 'Folder of answers and results; made if absent.'
  )
  flags.DEFINE_integer(
    'limit', None, 'Only the first items of each benchmark.', lower_bound=1
  )
  flags.DEFINE_integer(
    'samples', 1, 'Answers per item, for pass@k.', lower_bound=1
  )
  flags.DEFINE_list('k', ['1'], 'Which pass@k to report.')
  flags.DEFINE_float(
    'temperature', 0.0, '0 takes the likeliest token.', lower_bound=0.0
  )
  flags.DEFINE_float(
    'top_p',
    1.0,
    'Keep the smallest set of this probability.',
    lower_bound=0.0,
    upper_bound=1.0,
  )
  flags.DEFINE_integer(
    'max_tokens',
    None,
    "Of an answer; by default each benchmark's own.",
    lower_bound=1,
  )
  flags.DEFINE_integer(
    'batch_size', 16, 'Prompts answered at once.', lower_bound=1
  )
  flags.DEFINE_enum(
    'prompt',
    None,
    ['plain', 'chat', 'instruct', 'trained'],
    'plain: the published prompt, which the model continues. chat: the same in '
    'its chat template. instruct: as one asks an assistant. trained: the bare '
    'problem in the chat template, as a run trains on it. By default trained '
    'for RUN/student, else plain.',
  )
  flags.DEFINE_integer(
    'shots',
    0,
    'Examples before each item. Published scores have 5 or 8 for gsm8k, 4 for '
    'math, 3 for mbpp.',
    lower_bound=0,
  )
  flags.DEFINE_bool(
    'all_items',
    False,
    'Score what published scores leave out too: of mbpp, all task ids and not '
    '11 to 510.',
  )
  flags.DEFINE_enum(
    'protocol',
    None,
    ['minillm'],
    "MiniLLM's for dolly and vicuna: temperature 1, seeds 10, 20, 30, 40 and "
    '50, 256 tokens of a prompt and of an answer; mean and spread.',
  )
  flags.DEFINE_enum(
    'dtype', 'float32', ['float32', 'bfloat16'], 'Of weights and arithmetic.'
  )
  flags.DEFINE_list(
    'mesh',
    [],
    'Devices along axes, as fsdp=4,tensor=2; by default all share a batch.',
  )
  flags.DEFINE_integer(
    'seed', 0, 'Of sampling.', lower_bound=0, upper_bound=2**32 - 1
  )
  flags.mark_flags_as_required(['model', 'output_dir'])


def main(argv: Sequence[str]) -> None:
  del argv
  # Imported after the flags are checked: bad input answers at once.
  from ioa_jax.evaluation import benchmarks as benchmarks_lib
  from ioa_jax.evaluation import sessions
  from ioa_jax.models import hub
  from ioa_jax.runtime import display as display_lib
  from ioa_jax.runtime import sharding

  decoding = _decoding()
  ks = _ks(decoding)
  model, own = _model_and_items()
  chosen = [benchmarks_lib.get(name) for name in FLAGS.benchmarks]
  if FLAGS.protocol:
    _require_rouge(chosen)
  mesh = sharding.make_mesh(**_axes())
  # All files are read before the model: a mistake in the last one shows now.
  data_dir = pathlib.Path(FLAGS.data_dir) if FLAGS.data_dir else None
  exams = [
    sessions.read_exam(
      benchmark,
      data_dir,
      shots=FLAGS.shots,
      limit=FLAGS.limit,
      all_items=FLAGS.all_items,
    )
    for benchmark in chosen
  ]
  if own is not None:
    items = pathlib.Path(FLAGS.items)
    exams.append(sessions.read_exam(own, items.parent, limit=FLAGS.limit))
  with benchmarks_lib.Tools() as tools:
    for benchmark in chosen:
      benchmark.require(tools)
    session = sessions.Session(
      pathlib.Path(FLAGS.output_dir),
      model,
      hub.locate(model),
      decoding,
      form=FLAGS.prompt or ('trained' if own is not None else None),
      dtype=FLAGS.dtype,
      batch_size=FLAGS.batch_size,
      mesh=mesh,
    )
    with session.directory.locked(), display_lib.Display() as display:
      results = {
        e.benchmark.name: session.run(e, tools, ks, display) for e in exams
      }
  _print_table(results)
  terminal.say(f'Answers: {session.directory.path / sessions.ANSWERS}')


def _model_and_items():
  """The model that is meant, and the benchmark that --items is, or None.

  Raises:
    ValueError: for flags that do not go together.
  """
  from ioa_jax.phases import run_models

  run, model = run_models.find(FLAGS.model), FLAGS.model
  if run is not None:
    student = run_models.student(run)
    if student.adapter is not None:
      raise ValueError(f'--model={run}: it has an adapter and no student/.')
    model = student.model
  if not FLAGS.items:
    if not FLAGS.benchmarks:
      raise ValueError('--benchmarks or --items is missing: what to score.')
    return model, None
  if FLAGS.benchmarks:
    raise ValueError(
      '--items and --benchmarks are asked in different forms; give one of them.'
    )
  if FLAGS.run:
    run = run_models.find(FLAGS.run)
  elif run is None:  # RUN/student, named itself.
    run = run_models.find(str(pathlib.Path(FLAGS.model).parent))
  if run is None:
    raise ValueError(
      '--items: no run is known whose grader is meant; add --run=RUN.'
    )
  return model, run_models.own_items(run, pathlib.Path(FLAGS.items))


def _decoding():
  """What the flags say of sampling.

  Raises:
    ValueError: for flags that exclude each other.
  """
  from ioa_jax.evaluation import sessions

  if FLAGS.protocol:
    fixed = ('temperature', 'top_p', 'seed', 'samples', 'max_tokens')
    given = [f'--{name}' for name in fixed if FLAGS[name].present]
    if given:
      raise ValueError(
        f'{", ".join(given)}: --protocol={FLAGS.protocol} sets this; leave out '
        'one of them.'
      )
    return sessions.MINILLM
  if FLAGS.samples > 1 and FLAGS.temperature == 0:
    raise ValueError(
      f'--samples={FLAGS.samples} at temperature 0 are {FLAGS.samples} times '
      'the same answer; set --temperature.'
    )
  return sessions.Decoding(
    FLAGS.temperature,
    FLAGS.top_p,
    (FLAGS.seed,),
    FLAGS.samples,
    FLAGS.max_tokens,
  )


def _ks(decoding) -> list[int]:
  most = decoding.samples * len(decoding.seeds)
  if not all(k.isdigit() and 0 < int(k) <= most for k in FLAGS.k):
    raise ValueError(
      f'--k={",".join(FLAGS.k)}: numbers from 1 to --samples ({most}).'
    )
  return [int(k) for k in FLAGS.k]


def _require_rouge(chosen) -> None:
  other = [b.name for b in chosen if b.metric != 'rouge_l_stemmed_f']
  if other:
    raise ValueError(
      f'--protocol={FLAGS.protocol} is for dolly and vicuna, not for '
      f'{", ".join(other)}.'
    )


def _axes() -> dict[str, int]:
  """--mesh as sizes of axes."""
  axes = {}
  for text in FLAGS.mesh:
    axis, _, size = text.partition('=')
    if axis not in ('data', 'fsdp', 'sequence', 'tensor') or not re.fullmatch(
      '-1|[1-9][0-9]*', size
    ):
      raise ValueError(
        f'--mesh={text!r}: AXIS=SIZE with an axis of data, fsdp, sequence and '
        'tensor, and a size of 1 or more, or -1 for what is left.'
      )
    axes[axis] = int(size)
  return axes


def _print_table(results) -> None:
  import rich.console
  import rich.table

  table = rich.table.Table()
  for column in ('benchmark', 'metric', 'score', '95 %', 'items', 'no answer'):
    left = column in ('benchmark', 'metric')
    table.add_column(column, justify='left' if left else 'right')
  for name, r in results.items():
    ends = '{:.3f} – {:.3f}'.format(*r['ci95']) if r['ci95'] else ''
    rows = {r['metric']: (r['score'], ends)}
    rows |= {
      f'pass@{k}': (value, '')
      for k, value in r.get('pass_at_k', {}).items()
      if k != '1'
    }
    for metric, (score, interval) in rows.items():
      table.add_row(
        name,
        metric,
        f'{score:.3f}',
        interval,
        str(r['items']),
        str(r['no_answer']),
      )
  rich.console.Console().print(table)
