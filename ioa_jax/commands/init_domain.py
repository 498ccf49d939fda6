r"""From a file of problems to a configuration, a taxonomy, and what it costs.

  python scripts/init_domain.py --seeds=problems.jsonl --output_dir=mine

Seeds are JSON lines, JSON, CSV (each also gzipped), parquet, a directory that
`datasets` saved, or rows of `messages`. Looks at them, finds the columns of
problem, answer and module, and the grader that reads the answers; counts what
a gate can measure. Writes config.py, with the reason beside each line, and
taxonomy.yaml, both for you to correct, and prints the next commands with their
steps, requests, tokens and dollars. Nothing is asked of a teacher.

Prompts without answers are labelled by the teacher with --label: the answer of
most of its samples is kept, and the others are listed in unsure.jsonl. Every
sample is in OUTPUT_DIR/ledger.sqlite, so a second start pays for none of them
again; --dry_run only says how many there would be:

  python scripts/init_domain.py --seeds=prompts.jsonl --output_dir=mine \
    --label --config.domain.grader=number --config.teacher.model=NAME

Whatever is guessed wrong can be said: --config.domain.columns.answer=reply
--config.domain.grader=maths --config.domain.taxonomy=FILE. Such settings are
written into config.py as well. An existing config.py is not replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import json
import pathlib
import shlex
from typing import Any

from absl import flags

from ioa_jax.runtime import commandline, files, terminal

FLAGS = flags.FLAGS

CONFIG, TAXONOMY, SEEDS = 'config.py', 'taxonomy.yaml', 'seeds.jsonl'
LEFT_OUT, UNSURE = 'left_out.jsonl', 'unsure.jsonl'
_NOTE = (
  'What each module stands on is for you to say: under `prerequisites` name\n'
  'the modules that a learner has to master first. The teacher reads the\n'
  'descriptions.'
)


def define_flags() -> None:
  flags.DEFINE_string('seeds', None, 'The file or directory of problems.')
  flags.DEFINE_string('output_dir', None, 'Made if absent.')
  flags.DEFINE_bool(
    'label', False, 'Have the teacher answer prompts that have no answer.'
  )
  flags.DEFINE_integer(
    'samples', 5, 'Answers to each prompt, with --label.', lower_bound=1
  )
  commandline.DEFINE_dry_run()
  commandline.DEFINE_settings()
  flags.mark_flags_as_required(['seeds', 'output_dir'])


def main(argv: Sequence[str]) -> None:
  del argv
  output = pathlib.Path(FLAGS.output_dir)
  changes = _changes(output)
  # Imported after the flags are checked: bad input answers at once.
  from ioa_jax import config as config_lib
  from ioa_jax.identifier import seed_columns

  config = config_lib.get(changes)
  given = {
    path.removeprefix('domain.columns.'): value
    for path, value in changes.items()
    if path.startswith('domain.columns.')
  }
  rows = seed_columns.read(config.domain, given)
  found = seed_columns.recognise(rows, given, changes.get('domain.grader', ''))
  _say_found(rows, found)
  answered = found.columns['answer'] or found.columns['solution']
  _check_labels(answered, found)
  columns = {}
  if not answered:
    rows = _labelled(rows, found, config, output)
    if rows is None:
      return
    columns |= {'answer': 'answer', 'solution': 'solution'}
  untagged = not found.columns['module']
  if untagged:
    rows = [(w, {**row, 'module': config.domain.name}) for w, row in rows]
    columns |= {'module': 'module'}
  found = dataclasses.replace(found, columns={**found.columns, **columns})
  seeds, left_out = _used(rows, found, output, config)
  if columns or left_out:
    _write_rows(output / SEEDS, map(dataclasses.asdict, seeds))
    changes |= {'domain.seeds': str(output / SEEDS), 'domain.source': 'file'}
    names = {name: name for name in found.columns}
    if not any(s.solution for s in seeds):
      names['solution'] = ''
    found = dataclasses.replace(found, columns=names)
  _write(output, changes, found, seeds)
  _next(output, seeds, untagged)


def _used(rows, found, output: pathlib.Path, config):
  """The seeds that a domain can use, and whether there are others."""
  from ioa_jax import config as config_lib
  from ioa_jax.domains import taxonomy as taxonomy_lib
  from ioa_jax.evaluation import final_answers
  from ioa_jax.identifier import seed_columns

  grader = final_answers.KINDS[found.grader]()
  names = None
  if taxonomy := config.domain.taxonomy:
    names = {m.name for m in taxonomy_lib.read(pathlib.Path(taxonomy))}
  probes = config_lib.fewest_probes(config)
  used = seed_columns.usable(rows, found.columns, grader, probes, names)
  if not used.seeds:
    raise ValueError(
      f'{FLAGS.seeds}: no seed can be used; the first: {used.left_out[0][1]}'
    )
  output.mkdir(parents=True, exist_ok=True)
  if used.left_out:
    _write_rows(
      output / LEFT_OUT,
      ({'reason': why, 'seed': row} for row, why in used.left_out),
    )
    terminal.say(
      f'{len(used.left_out)} of {len(rows)} seeds cannot be used; '
      f'{output / LEFT_OUT} has them, each with its reason.'
    )
  return used.seeds, bool(used.left_out)


def _changes(output: pathlib.Path) -> dict[str, Any]:
  """What a person said, and what follows from the names of the paths."""
  changes = commandline.changes()
  kept = [CONFIG] if changes.get('domain.taxonomy') else [CONFIG, TAXONOMY]
  for name in kept:
    if (output / name).exists():
      raise ValueError(
        f'{output / name} exists, and you may have corrected it; delete it, '
        'or choose another --output_dir.'
      )
  named = pathlib.Path(FLAGS.seeds).name.split('.')[0] or 'these seeds'
  assumed = {
    'domain.name': output.resolve().name,
    'domain.description': f'to answer the questions of {named}',
  }
  return {**assumed, **changes, 'domain.seeds': FLAGS.seeds}


def _say_found(rows, found) -> None:
  terminal.say(f'{len(rows)} seeds in {FLAGS.seeds}:')
  for what, column in found.columns.items():
    reason = found.reasons.get(what, '')
    if column or reason:
      terminal.say(f'  {what:9} {column or "(none)":16} {reason}'.rstrip())
  reason = found.reasons['grader']
  terminal.say(f'  {"grader":9} {found.grader or "(none)":16} {reason}')
  if found.unread:
    terminal.say(f'  not read: {", ".join(found.unread)}')


def _check_labels(answered: str, found) -> None:
  """Raises ValueError where --label is missing, or is too much."""
  reason = found.reasons['grader']
  if FLAGS.dry_run and not FLAGS.label:
    raise ValueError('--dry_run is for --label; nothing else asks a teacher.')
  if answered and FLAGS.label:
    raise ValueError(
      f'--label: the seeds have answers ({reason}). Leave it out, or say that '
      "they have none: --config.domain.columns.answer=''."
    )
  if not answered and not FLAGS.label:
    raise ValueError(
      f'{FLAGS.seeds}: {reason}. Name the column: '
      '--config.domain.columns.answer=NAME, or .solution of worked answers. '
      'If there are prompts alone, have the teacher answer them: --label '
      '--config.domain.grader=number --config.teacher.model=NAME.'
    )
  if not answered and not found.grader:
    raise ValueError(
      '--label: say how answers are compared: --config.domain.grader=number, '
      'or choice, maths, last_line, rouge_l.'
    )


def _labelled(rows, found, config, output: pathlib.Path):
  """Rows with the teacher's answers; None if it was not to be asked."""
  from ioa_jax.evaluation import final_answers
  from ioa_jax.phases import labelling
  from ioa_jax.runtime import row_files

  # The same prompt twice is one, and is paid for once.
  prompts = {
    row_files.text_field(where, row, found.columns['problem']).strip(): row
    for where, row in rows
  }
  grader, samples = final_answers.KINDS[found.grader](), FLAGS.samples
  asked = labelling.requests(config, grader, list(prompts), samples)
  if FLAGS.dry_run:
    terminal.say(labelling.describe(config, asked))
    return None
  output.mkdir(parents=True, exist_ok=True)
  labels = labelling.ask(config, grader, asked, output, samples)
  kept, unsure = [], []
  for (prompt, row), label in zip(prompts.items(), labels, strict=True):
    if label.answer:
      answered = {'answer': label.answer, 'solution': label.solution}
      kept.append((f'{FLAGS.seeds}: {prompt[:60]!r}', {**row, **answered}))
    else:
      said = {'said': label.said, 'agreed': label.agreed}
      unsure.append({'problem': prompt, **said})
  _write_rows(output / UNSURE, unsure)
  said = (
    f'{len(kept)} of {len(prompts)} prompts have an answer that most of '
    f'{samples} samples agree with; {output / UNSURE} has the other '
    f'{len(unsure)}.'
  )
  if not kept:
    raise ValueError(
      f'{said} Ask another teacher, or choose another --config.domain.grader.'
    )
  terminal.say(said)
  return kept


def _taxonomy(output, given: str, names: Iterable[str]):
  """Where it is, and its modules if it is to be written."""
  from ioa_jax.domains import taxonomy

  names, path = list(names), output / TAXONOMY
  if not given:
    units = {name: (_in_words(name), ()) for name in names}
    return path, taxonomy.order(units)
  modules = taxonomy.read(pathlib.Path(given))
  without = [m.name for m in modules if m.name not in names]
  if not without:
    return given, None
  if path.exists():
    raise ValueError(
      f'{given}: {without} have too few seeds, and {path} is there already; '
      'choose another --output_dir, which gets one without them.'
    )
  terminal.say(
    f'{path} is {given} without what has too few seeds: {", ".join(without)}.'
  )
  return path, taxonomy.only(modules, names)


def _write(output, changes, found, seeds) -> None:
  """The taxonomy and the configuration, once it is known to be accepted."""
  from ioa_jax import config as config_lib
  from ioa_jax.domains import taxonomy
  from ioa_jax.phases import first_config

  layout = first_config.layout(seeds)
  path, modules = _taxonomy(
    output, changes.get('domain.taxonomy', ''), layout.seeds
  )
  changes['domain.taxonomy'] = str(path)
  settings = _settings(changes, found, seeds, layout)
  terminal.say()
  _say_modules(layout)
  terminal.say()
  # Modules are those of the seeds, whatever stands on what.
  values = {path: value for path, (value, _) in settings.items()}
  config = config_lib.load(values | {'domain.taxonomy': ''})
  terminal.say(first_config.describe(config))
  command = commandline.spelled('init_domain')
  about = [
    f'{changes["domain.name"]}: written by `{command}` from {FLAGS.seeds}.',
    'Correct what is wrong; docs/settings.md has all settings.',
  ]
  if modules is not None:
    taxonomy.write(path, modules, _NOTE)
  files.write_text(output / CONFIG, first_config.source(settings, about))


def _settings(changes, found, seeds, layout):
  """Each setting of the configuration, with its value and the reason."""
  from ioa_jax import config as config_lib
  from ioa_jax.phases import first_config

  given = commandline.changes()
  config = config_lib.get(changes)
  reasons = {
    'domain.name': 'for reports and cards',
    'domain.description': 'the teacher is told so; say it better',
    'domain.seeds': f'{len(seeds)} problems',
    'domain.taxonomy': 'say there what each module stands on',
  }
  settings = {path: (changes[path], why) for path, why in reasons.items()}
  settings |= {
    f'domain.columns.{what}': (name, found.reasons.get(what, ''))
    for what, name in found.columns.items()
  }
  settings['domain.grader'] = found.grader, found.reasons['grader']
  settings |= first_config.people(config) | first_config.budgets(layout, config)
  # Columns and source are said above, or are those of what was written anew.
  settings |= {
    path: (value, 'as given')
    for path, value in changes.items()
    if path in given
    and path not in reasons
    and not path.startswith(('domain.columns.', 'domain.source'))
  }
  if config.domain.source != 'file':
    settings['domain.source'] = config.domain.source, 'as given'
  return first_config.without_default_columns(settings)


def _say_modules(layout) -> None:
  from ioa_jax.domains import text

  for name, count in layout.seeds.items():
    probes = text.num_probes(count)
    terminal.say(
      f'  {count:5} seeds, {probes:3} gate and {probes:3} held-out probes  '
      f'{name}'
    )
  sure = text.seeds_needed(8)
  if layout.fewest < 8:
    terminal.say(
      f'A gate with {layout.fewest} probes says little: {sure} seeds give a '
      'module 8. Add seeds, or merge modules in the tags and the taxonomy.'
    )


def _next(output, seeds, untagged: bool) -> None:
  config = f'--config={shlex.quote(str(output / CONFIG))}'
  run = f'runs/{output.resolve().name}'
  distill = f'{commandline.spelled("distill")} {config} '
  distill += f'--workdir={shlex.quote(run)}'
  if untagged:
    units = shlex.quote(str(output / 'units'))
    mapped = shlex.quote(str(output / 'mapped'))
    # As many as have seeds for a gate.
    most = max(2, min(35, len(seeds) // 40))
    commands = [
      f'{commandline.spelled("map_seeds")} {config} '
      f'--output_dir={units} --min_units={min(25, most // 2)} '
      f'--max_units={most}',
      f'{commandline.spelled("init_domain")} --seeds={units}/{SEEDS} '
      f'--output_dir={mapped} --config.domain.taxonomy={units}/{TAXONOMY}'
      + _carried(),
    ]
    terminal.say(
      '\nAll seeds are one module, so there is nothing to order. Next, the '
      'teacher finds the modules:'
    )
    distill = distill.replace(config, f'--config={mapped}/{CONFIG}')
    commands.append(f'{distill} --dry_run')
  else:
    prompt = shlex.quote(' '.join(seeds[0].problem.split())[:80])
    commands = [
      f'{distill} --dry_run',
      distill,
      f'{commandline.spelled("generate")} --model={shlex.quote(run)} --compare '
      f'--prompt={prompt}',
    ]
    terminal.say(f'\nCorrect {output / CONFIG} and the taxonomy. Next:')
  for command in commands:
    terminal.say(f'  {command}')


def _carried() -> str:
  """Settings that were given, and are not about the seeds, as flags."""
  return ''.join(
    ' ' + shlex.quote(f'--config.{path}={value}')
    for path, value in commandline.changes().items()
    if path == 'domain.description' or not path.startswith('domain.')
  )


def _in_words(name: str) -> str:
  return name.replace('_', ' ').replace('/', ': ')


def _write_rows(path: pathlib.Path, rows: Iterable[Mapping[str, Any]]) -> None:
  # A row may hold what JSON does not, as dates; a person reads it.
  lines = (json.dumps(row, ensure_ascii=False, default=str) for row in rows)
  text = ''.join(line + '\n' for line in lines)
  # Nor does a file hold half a surrogate pair.
  files.write_text(path, text.encode(errors='replace').decode())
