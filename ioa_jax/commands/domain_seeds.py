r"""Published data as seeds of a text domain: one form for all graders.

  python scripts/domain_seeds.py --format=mbpp --input=mbpp.jsonl \
    --output_dir=data/code

  dolly, self_instruct  instruction (and input), answer    grader rouge_l
  math                  problem, answer in a box           grader maths
  mbpp                  task with tests, code              grader code
  gpqa                  question with four choices         grader choice

Writes seeds.jsonl with problem, solution and answer, and with module where the
data has a subject. Where it has none, scripts/map_seeds.py finds modules.
"""

from collections import Counter
from collections.abc import Sequence
import json
import pathlib

from absl import flags

from ioa_jax.runtime import terminal

FLAGS = flags.FLAGS


def _dolly(files, where, row):
  context = row.get('context') or row.get('input') or ''
  instruction = files.text_field(where, row, 'instruction')
  answer = files.text_field(where, row, 'response', 'output')
  return (
    row.get('category'),
    f'{instruction}\n{context}'.strip(),
    answer,
    answer,
  )


def _self_instruct(files, where, row):
  instances = row['instances']
  if not isinstance(instances, list) or not instances:
    raise ValueError(f'{where}: "instances" must be a list with one at least.')
  return _dolly(
    files, where, {'instruction': row['instruction'], **instances[0]}
  )


def _math(files, where, row):
  from ioa_jax.evaluation import benchmarks

  item = benchmarks.get('math').to_item(where, row)
  if item is None:
    return None
  answer = item.reference['gold']
  solution = row.get('solution') or f'The answer is $\\boxed{{{answer}}}$.'
  return row.get('type') or row.get('subject'), item.task, solution, answer


def _mbpp(files, where, row):
  from ioa_jax.evaluation import code_grading

  if row.get('test_setup_code'):
    return None  # Tests of a lesson have no setup either.
  lines = [
    *(row.get('test_imports') or ()),
    *files.list_field(where, row, 'test_list'),
  ]
  tests = '\n'.join(line.replace('\r', '') for line in lines)
  if not code_grading.called_functions(tests):
    return None
  code = files.text_field(where, row, 'code').replace('\r', '').strip()
  task = files.text_field(where, row, 'text', 'prompt').strip()
  problem = f'{task}\nYour code should pass these tests:\n{tests}'
  return None, problem, f'```python\n{code}\n```', tests


def _gpqa(files, where, row):
  from ioa_jax.evaluation import benchmarks

  item = benchmarks.get('gpqa_diamond').to_item(where, row)
  gold = item.reference['gold']
  worked = str(row.get('Explanation') or '').strip()
  solution = f'{worked}\nThe answer is ({gold}).'.strip()
  return row.get('High-level domain'), item.trained, solution, gold


# What a row must have, and how (module, problem, solution, answer) comes of it;
# None leaves the row out.
_FORMATS = {
  'dolly': (('instruction', ('response', 'output')), _dolly),
  'self_instruct': (('instruction', 'instances'), _self_instruct),
  'math': (('problem', ('answer', 'solution')), _math),
  'mbpp': ((('text', 'prompt'), 'code', 'test_list'), _mbpp),
  'gpqa': (
    (
      'Question',
      'Correct Answer',
      'Incorrect Answer 1',
      'Incorrect Answer 2',
      'Incorrect Answer 3',
    ),
    _gpqa,
  ),
}


def define_flags() -> None:
  flags.DEFINE_string('input', None, 'The file; it may be gzipped.')
  flags.DEFINE_string('output_dir', None, 'Made if absent.')
  flags.DEFINE_enum('format', None, list(_FORMATS), 'Of the input.')
  flags.mark_flags_as_required(['format', 'input', 'output_dir'])


def main(argv: Sequence[str]) -> None:
  del argv
  from ioa_jax.runtime import files as files_lib
  from ioa_jax.runtime import row_files as files

  columns, convert = _FORMATS[FLAGS.format]
  source, output = (
    pathlib.Path(FLAGS.input),
    pathlib.Path(FLAGS.output_dir),
  )
  counts: Counter[str] = Counter()
  lines = []
  for where, row in files.read(source, columns):
    seed = convert(files, where, row)
    if seed is None:
      counts['left out: nothing to grade by'] += 1
      continue
    module, problem, solution, answer = seed
    value = {'problem': problem, 'solution': solution, 'answer': answer}
    if isinstance(module, str) and module.strip():
      value = {'module': f'{FLAGS.format}/{_slug(module)}'} | value
    counts[value.get('module', 'without a module')] += 1
    lines.append(json.dumps(value, ensure_ascii=False) + '\n')
  if not lines:
    raise ValueError(f'{source}: no row can be a seed of {FLAGS.format}.')
  output.mkdir(parents=True, exist_ok=True)
  files_lib.write_text(output / 'seeds.jsonl', ''.join(lines))
  for name, count in sorted(counts.items()):
    terminal.say(f'{count:6} {name}')
  terminal.say(f'Wrote {output / "seeds.jsonl"}.')
  if counts['without a module']:
    terminal.say('Seeds without a module: see scripts/map_seeds.py.')


def _slug(text: str) -> str:
  return '_'.join(text.casefold().replace('&', ' ').split())
