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

A model behind a server is scored with --base_url, and --model as it is called
there: the same items, prompts and limits in its own chat template. Its answers
are in SCORES/ledger.sqlite, within a budget; nothing is paid twice.
--teacher_scores=TEACHER_SCORES gives a student's score as a share of a
teacher's, measured alike:

  python scripts/evaluate.py --base_url=http://127.0.0.1:8000/v1 --model=NAME \
    --prompt=trained --benchmarks=gsm8k --data_dir=DATA \
    --output_dir=TEACHER_SCORES
  python scripts/evaluate.py --model=RUN/student --benchmarks=gsm8k \
    --data_dir=DATA --output_dir=SCORES --teacher_scores=TEACHER_SCORES

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
    'model',
    None,
    'Run directory, model directory, preset or hub id; with --base_url as the '
    'server calls it.',
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
  _define_server()
  flags.DEFINE_string(
    'teacher_scores',
    None,
    "Folder of a teacher's scores: results get the share of them.",
  )
  flags.mark_flags_as_required(['model', 'output_dir'])


def _define_server() -> None:
  flags.DEFINE_string(
    'base_url', None, 'Of a server, with its version path, that has the model.'
  )
  flags.DEFINE_string(
    'api_key_env', '', 'Name of the environment variable with its key.'
  )
  flags.DEFINE_integer(
    'max_concurrency', 16, 'Requests to it at the same time.', lower_bound=1
  )
  flags.DEFINE_integer(
    'max_completion_tokens',
    1_000_000,
    'It writes no more in this folder, all starts together.',
    lower_bound=1,
  )
  flags.DEFINE_float(
    'max_usd',
    None,
    'It costs no more, all starts together; needs --price.',
    lower_bound=0.0,
  )
  flags.DEFINE_list(
    'price', None, 'US dollars per million tokens: PROMPT,COMPLETION.'
  )


def main(argv: Sequence[str]) -> None:
  del argv
  # Imported after the flags are checked: bad input answers at once.
  from ioa_jax.evaluation import benchmarks as benchmarks_lib
  from ioa_jax.evaluation import sessions
  from ioa_jax.runtime import display as display_lib

  decoding = _decoding()
  ks = _ks(decoding)
  model, own = _model_and_items()
  chosen = [benchmarks_lib.get(name) for name in FLAGS.benchmarks]
  if FLAGS.protocol:
    _require_rouge(chosen)
  served = _served() if FLAGS.base_url is not None else None
  mesh = None if served else _mesh()
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
      served or _local(model, mesh),
      decoding,
      form=FLAGS.prompt or ('trained' if own is not None else None),
      teacher_scores=FLAGS.teacher_scores
      and pathlib.Path(FLAGS.teacher_scores),
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

  model = FLAGS.model
  run = None if FLAGS.base_url else run_models.find(model)
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
  elif run is None and not FLAGS.base_url:  # RUN/student, named itself.
    run = run_models.find(str(pathlib.Path(FLAGS.model).parent))
  if run is None:
    raise ValueError(
      '--items: no run is known whose grader is meant; add --run=RUN.'
    )
  return model, run_models.own_items(run, pathlib.Path(FLAGS.items))


def _mesh():
  """Where the weights of a model lie that is here.

  Raises:
    ValueError: for a flag of a server, or devices that are not there.
  """
  from ioa_jax.runtime import sharding

  _refuse(
    ('api_key_env', 'max_concurrency', 'max_completion_tokens')
    + ('max_usd', 'price'),
    'is about a server; name one with --base_url',
  )
  return sharding.make_mesh(**_axes())


def _local(model: str, mesh):
  """A model that is here.

  Raises:
    ValueError: for one that is not there.
  """
  from ioa_jax.evaluation import respondent
  from ioa_jax.models import hub

  return respondent.Local(
    model, hub.locate(model), FLAGS.dtype, FLAGS.batch_size, mesh
  )


def _served():
  """The model that the server calls --model.

  Raises:
    ValueError: for a flag of weights, or an address that cannot be used.
  """
  from ioa_jax.evaluation import served
  from ioa_jax.teachers.requests import Budget, Price

  _refuse(
    ('dtype', 'batch_size', 'mesh'),
    'is about weights that are here, and --base_url asks a server; leave out '
    'one of them',
  )
  try:
    from ioa_jax.teachers import openai_http
  except ImportError as e:
    raise ValueError(
      f"--base_url needs openai ({e}): pip install 'ioa_jax[http]'"
    ) from None

  settings = openai_http.Settings(
    FLAGS.base_url,
    api_key_env=FLAGS.api_key_env,
    max_concurrency=FLAGS.max_concurrency,
  )
  price = None
  if FLAGS.price is not None:
    try:
      prompt, completion = map(float, FLAGS.price)
    except ValueError:
      raise ValueError(
        f'--price={",".join(FLAGS.price)}: two numbers, of prompts and of '
        'completions, in US dollars per million tokens.'
      ) from None
    price = Price(prompt, completion)
  if FLAGS.max_usd is not None and price is None:
    raise ValueError('--max_usd needs --price=PROMPT,COMPLETION.')
  return served.Served(
    openai_http.OpenAITeacher(FLAGS.model, settings),
    FLAGS.base_url,
    FLAGS.max_concurrency,
    Budget(FLAGS.max_completion_tokens, FLAGS.max_usd),
    price,
  )


def _refuse(names, why: str) -> None:
  given = [f'--{name}' for name in names if FLAGS[name].present]
  if given:
    raise ValueError(f'{", ".join(given)}: {why}.')


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
  columns = ['benchmark', 'metric', 'score', '95 %', 'items', 'no answer']
  retained = any('retention' in r for r in results.values())
  for column in columns + ['retention'] * retained:
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
        *([_share(r, metric)] if retained else []),
      )
  rich.console.Console().print(table)


def _share(result, metric) -> str:
  """The retention, beside the score that it is of."""
  if metric != result['metric'] or result['retention'] is None:
    return '–'
  return f'{result["retention"]:.3f}'
