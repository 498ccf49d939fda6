r"""Scores a model on benchmarks; every answer is kept, a restart continues.

  python scripts/evaluate.py --model=RUN/student --benchmarks=gsm8k,humaneval \
    --data_dir=DATA --output_dir=SCORES

DATA holds one folder per benchmark, in the format it was published in:
gsm8k/test.jsonl, math/test.jsonl, aime2024/test.jsonl,
humaneval/HumanEval.jsonl(.gz), mbpp/mbpp.jsonl, livecodebench/test.jsonl,
dolly/valid1000_full.jsonl, vicuna/question.jsonl (with answer_gpt35.jsonl),
gpqa/gpqa_diamond.csv. Without --data_dir the hub is read (gsm8k, math,
aime2024, humaneval, mbpp, gpqa_diamond), or what is cached of it.

Prompts are zero-shot and fixed. Those of gsm8k, humaneval, mbpp and
gpqa_diamond are lm-evaluation-harness's; see ioa_jax/evaluation/benchmarks.py.
Code runs in a sandbox, and not at all where there is no isolation.

SCORES receives answers.jsonl (one line per answer, with its verdict) and
results.json. The same command continues where it was stopped.
"""

from collections.abc import Sequence
import json
import pathlib
import time

from absl import flags

from ioa_jax.runtime import terminal

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_string('model', None, 'Directory, preset or hub id.')
  flags.DEFINE_list('benchmarks', None, 'Names, separated by commas.')
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
  flags.DEFINE_bool(
    'chat', False, "Put each prompt into the model's chat template."
  )
  flags.DEFINE_integer(
    'seed', 0, 'Of sampling.', lower_bound=0, upper_bound=2**32 - 1
  )
  flags.mark_flags_as_required(['model', 'benchmarks', 'output_dir'])


def main(argv: Sequence[str]) -> None:
  del argv
  # Imported after the flags are checked: bad input answers at once.
  from ioa_jax.evaluation import answers as answers_lib
  from ioa_jax.evaluation import benchmarks as benchmarks_lib
  from ioa_jax.runtime import rundir

  if not all(k.isdigit() and 0 < int(k) <= FLAGS.samples for k in FLAGS.k):
    raise ValueError(
      f'--k={",".join(FLAGS.k)}: numbers from 1 to --samples ({FLAGS.samples}).'
    )
  if FLAGS.samples > 1 and FLAGS.temperature == 0:
    raise ValueError(
      f'--samples={FLAGS.samples} at temperature 0 are {FLAGS.samples} times '
      'the same answer; set --temperature.'
    )
  data_dir = pathlib.Path(FLAGS.data_dir) if FLAGS.data_dir else None
  chosen = [benchmarks_lib.get(name) for name in FLAGS.benchmarks]
  # All files are read before the model: a mistake in the last one shows now.
  loaded = {b.name: b.load(data_dir) for b in chosen}
  with benchmarks_lib.Tools() as tools:
    for benchmark in chosen:
      benchmark.require(tools)
    directory = rundir.RunDirectory(pathlib.Path(FLAGS.output_dir), _config())
    directory.keep_lines(
      'answers.jsonl', lambda _, line: answers_lib.is_whole(line)
    )
    results = {}
    model = None
    for benchmark in chosen:
      items, left_out = loaded[benchmark.name]
      items = items[: FLAGS.limit]
      start = time.monotonic()
      lines = directory.read_lines('answers.jsonl')
      questions = answers_lib.unanswered(
        items,
        answers_lib.read(lines, benchmark.name),
        benchmark=benchmark.name,
        samples=FLAGS.samples,
        seed=FLAGS.seed,
      )
      if questions:
        model = model or _Model()
        max_tokens = FLAGS.max_tokens or benchmark.max_tokens
        answers_lib.grade(
          benchmark,
          tools,
          questions,
          model.answer(questions, max_tokens),
          lambda rows: directory.append_lines(
            'answers.jsonl', (json.dumps(r, ensure_ascii=False) for r in rows)
          ),
        )
      lines = directory.read_lines('answers.jsonl')
      results[benchmark.name] = answers_lib.summarize(
        benchmark,
        items,
        answers_lib.read(lines, benchmark.name),
        samples=FLAGS.samples,
        ks=[int(k) for k in FLAGS.k],
        seed=FLAGS.seed,
      ) | {
        'rows_without_answer': len(left_out),
        'new_answers': len(questions),
        'seconds': round(time.monotonic() - start, 1),
      }
    directory.write_json(
      'results.json', {'model': FLAGS.model, 'benchmarks': results}
    )
  _print_table(results)
  terminal.say(f'Answers: {directory.path / "answers.jsonl"}')


def _config():
  """What answers depend on; another value needs another directory."""
  import ml_collections

  return ml_collections.ConfigDict(
    {
      'model': FLAGS.model,
      'data_dir': FLAGS.data_dir,
      'seed': FLAGS.seed,
      'temperature': FLAGS.temperature,
      'top_p': FLAGS.top_p,
      'max_tokens': FLAGS.max_tokens or 0,
      'chat': FLAGS.chat,
    }
  )


class _Model:
  """Weights and tokenizer, loaded when there is something to answer."""

  def __init__(self):
    from ioa_jax.models import hub, loading, vocabulary

    directory = hub.locate(FLAGS.model)
    self._model = loading.load(directory, FLAGS.model)
    self._stop_tokens = vocabulary.stop_tokens(directory)
    self._encode = self._model.encode
    if FLAGS.chat:
      tokenizer = vocabulary.load_tokenizer(directory)
      self._encode = lambda text: vocabulary.chat_tokens(
        tokenizer, directory, [{'role': 'user', 'content': text}]
      )

  def answer(self, questions, max_tokens):
    """Yields batches of (text, finish reason)."""
    from ioa_jax.models import decoder
    from ioa_jax.sampling import logits as logits_lib
    from ioa_jax.sampling import sampler as sampler_lib

    sampler = sampler_lib.Sampler(
      decoder.for_decoding(self._model.config),
      stop_tokens=self._stop_tokens,
      batch_size=FLAGS.batch_size,
      max_new_tokens=max_tokens,
      prompt_bucket=64,
    )
    sampling = logits_lib.Sampling(
      FLAGS.temperature, 0, FLAGS.top_p, max_tokens
    )
    # So many at once that slots are full, so few that little is lost.
    size = 8 * FLAGS.batch_size
    for start in range(0, len(questions), size):
      part = questions[start : start + size]
      generations = sampler(
        self._model.params,
        [self._encode(q.item.prompt) for q in part],
        [sampling] * len(part),
        [q.seed for q in part],
      )
      yield [
        (self._model.decode(g.tokens), 'stop' if g.stopped else 'length')
        for g in generations
      ]


def _print_table(results) -> None:
  import rich.console
  import rich.table

  table = rich.table.Table()
  for column in ('benchmark', 'metric', 'score', '95 %', 'items', 'no answer'):
    left = column in ('benchmark', 'metric')
    table.add_column(column, justify='left' if left else 'right')
  for name, r in results.items():
    rows = {r['metric']: (r['score'], '{:.3f} – {:.3f}'.format(*r['ci95']))}
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
