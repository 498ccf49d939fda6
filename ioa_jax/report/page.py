"""The page: facts and charts into the template, and one file out."""

from __future__ import annotations

from collections.abc import Mapping
import functools
import json
import pathlib
import re
from typing import Any

from markupsafe import Markup

from ioa_jax.evaluation.intervals import wilson
from ioa_jax.records import Supply, Training
from ioa_jax.records.diagnosis import STATUSES
from ioa_jax.report import charts, facts, graph, html, read
from ioa_jax.runtime import files, terminal

_MAX_TEXT = 1500
_SHORT_TEXT, _LONG_TEXT = 48, 420
_WRONG_ANSWERS = 3
_MOST_SHOWN = 12  # Modules, before some are folded away.


def write(workdir: pathlib.Path) -> pathlib.Path:
  """Reads a run directory, finished or not, and writes its report.html.

  Raises:
    ValueError: if `workdir` is not a run directory or a file in it is damaged.
  """
  workdir = pathlib.Path(workdir)
  run = read.read(workdir)
  shown = [x for _, lessons in facts.lesson_samples(run) for x in lessons]
  keys = {lesson.metadata['request'] for lesson in shown}
  text = render(run, read.requests(workdir, keys))
  path = workdir / 'report.html'
  files.write_text(path, text)
  return path


def render(run: read.Run, requests: Mapping[str, str] | None = None) -> str:
  """The report as one HTML document.

  Args:
    requests: what the teacher was asked for the lessons that are shown.
  """
  environment = _environment()
  text = environment.get_template('template.html').render(
    run=run,
    headline=_headline(run),
    most=_MOST_SHOWN,
    absent={name: read.FILES[name] for name in run.absent},
    gaps=_gaps(run),
    score_axis=charts.score_axis(),
    graphs=_graphs(run),
    curriculum=_curriculum(run),
    mastery=_mastery(run),
    changes=_changes(run),
    still_wrong=_still_wrong(run),
    forgetting=_forgetting(run),
    samples=facts.lesson_samples(run),
    requests=requests or {},
    spending=facts.spending(run),
    adaptation=facts.adaptation(run),
    costs=_costs(run),
    identity=facts.identity(run),
    config_json=json.dumps(run.config, indent=2, ensure_ascii=False),
  )
  return terminal.printable(text)


@functools.cache
def _environment():
  """Its templates are compiled once: a run draws many reports."""
  environment = html.environment()
  environment.filters |= {
    'pct': _percent,
    'signed': _signed,
    'number': _number,
    'short': _short,
    'clip': _clip,
    'said': _said,
    'is_prose': _is_prose,
    'time': _time,
    'usd': _usd,
    'when': _when,
    'name': _name,
    'icon': charts.icon,
  }
  return environment


def _headline(run: read.Run) -> dict[str, Any]:
  stories = facts.stages(run)
  taught = [s for s in stories if s.kind != 'consolidate']
  line: dict[str, Any] = {
    'stages': len(taught),
    'passed': sum(s.outcome == 'mastered' for s in taught),
    'remediated': sum(s.rounds > 0 for s in stories),
    'rounds': sum(s.rounds for s in stories),
    'stalled': sum(s.outcome == 'unmastered' for s in taught),
    'step': facts.last_step(run),
    'total_steps': facts.total_steps(run),
  }
  if run.results:
    teacher, student = run.results.teacher, run.results.student
    # A teacher behind a server does not tell its size.
    line['size'] = (teacher.params or 0) / max(student.params, 1)
    line['journey'] = charts.journey(
      student.score_before, student.score_after, teacher.score
    )
  if run.diagnosis:
    status = [m.status for m in run.diagnosis.modules.values()]
    line['modules'] = len(status)
    line['unknown'] = status.count('deficient') + status.count('target')
    line['targets'] = status.count('target')
  return line


def _gaps(run: read.Run) -> list[dict[str, Any]]:
  if not run.diagnosis:
    return []
  rows = []
  for name, module in run.diagnosis.modules.items():
    teacher, student = module.teacher.mean, module.student.mean
    chart = None
    if teacher is not None and student is not None:
      chart = charts.gap(
        name,
        teacher,
        student,
        wilson(module.teacher.correct, module.teacher.n),
        wilson(module.student.correct, module.student.n),
      )
    wrong = run.diagnosis.wrong_answers.get(name, ())
    rows.append(
      {
        'name': name,
        'module': module,
        'chart': chart,
        'teacher': teacher,
        'student': student,
        'wrong': wrong[:_WRONG_ANSWERS],
        'wrong_total': len(wrong),
        'in_prose': any(_is_prose(t) for w in wrong for t in w.values()),
      }
    )
  return rows


def _graphs(run: read.Run) -> dict[str, Any] | None:
  if not run.diagnosis or not run.diagnosis.modules:
    return None
  modules = run.diagnosis.modules
  edges = [
    (e.source, e.target, e.strength) for e in run.diagnosis.dependency.edges
  ]
  return {
    'wide': graph.layered(modules, edges),
    'narrow': graph.arcs(modules, edges),
    'strengths': any(s is not None for _, _, s in edges),
    'statuses': [
      s for s in STATUSES if any(m.status == s for m in modules.values())
    ],
  }


def _curriculum(run: read.Run) -> dict[str, Any]:
  total = facts.total_steps(run)
  rows = []
  for story in facts.stages(run):
    gates = []
    for event in story.gates:
      weakest = facts.weakest(run, event, story.modules)
      title = f'step {event.step}: {event.decision}'
      title += ' (weakest: {} {:.0%})'.format(*weakest) if weakest else ''
      gates.append((event.step, event.decision, title, weakest, event))
    supplies = [
      (
        e.step,
        e.kind,
        f'step {e.step}: {e.lessons} {e.kind} lessons for '
        f'{", ".join(e.modules)}',
      )
      for e in story.supplies
    ]
    chart = None
    if total:
      chart = charts.lane(
        f'Stage {story.index + 1}',
        story.span,
        total,
        [g[:3] for g in gates],
        supplies,
      )
    rows.append({'story': story, 'chart': chart, 'gates': gates})
  return {
    'rows': rows,
    'axis': charts.steps_axis(total),
    'decisions': sum(len(r['gates']) for r in rows),
    'supplies': facts.of_kind(run, Supply),
    'made': {g[1] for r in rows for g in r['gates']},
    'kinds': {
      kind: form
      for kind, form in charts.SUPPLY_FORMS.items()
      if any(e.kind == kind for e in facts.of_kind(run, Supply))
    },
    'rounds': any(r['story'].rounds for r in rows),
  }


def _mastery(run: read.Run) -> dict[str, Any]:
  total, spans = facts.total_steps(run), facts.spans(run)
  stories = facts.stages(run)
  cells, limit = [], facts.threshold(run)
  for name in facts.module_names(run):
    points = facts.mastery_points(run, name)
    if len(points) < 2:
      continue
    taught = [s.index for s in stories if name in s.modules]
    end = facts.end_mastery(run, name)
    cells.append(
      {
        'name': name,
        'taught': bool(taught),
        'last': points[-1][1] if end is None else end,
        'chart': charts.mastery(name, points, limit, spans, taught, total, end),
      }
    )
  # A step that failed reports NaN; the curve goes on without it.
  losses = [
    (e.step, e.loss)
    for e in facts.of_kind(run, Training)
    if 0 < e.loss < float('inf')
  ]
  # Of many, those that are only rehearsed stand behind a click.
  few = len(cells) <= _MOST_SHOWN
  return {
    'cells': cells,
    'shown': [c for c in cells if few or c['taught']],
    'folded': [c for c in cells if not few and not c['taught']],
    'threshold': limit,
    'labels': charts.score_labels(),
    'loss': charts.loss(losses, spans, total) if losses else None,
    'last_loss': losses[-1][1] if losses else None,
  }


def _changes(run: read.Run) -> list[dict[str, Any]]:
  if not run.results:
    return []
  return [
    {
      'name': name,
      'module': m,
      'kept': m.after / m.teacher if m.teacher else None,
      'chart': charts.change(name, m.before, m.after, m.ci95, m.teacher),
    }
    for name, m in run.results.modules.items()
  ]


def _still_wrong(run: read.Run) -> list[dict[str, Any]]:
  """Of each module, what was answered wrongly after teaching; worst first."""
  if not run.results:
    return []
  rows = []
  for name in run.results.modules:
    wrong = sorted(
      (a for a in run.answers if a.module == name and a.after.score < 1),
      key=lambda a: a.after.score,
    )
    if wrong:
      rows.append(
        {'name': name, 'wrong': wrong[:_WRONG_ANSWERS], 'total': len(wrong)}
      )
  return rows


def _forgetting(run: read.Run) -> dict[str, Any] | None:
  rows = facts.forgetting(run)
  if not rows:
    return None
  names = [
    n for n in facts.module_names(run) if any(n in r['scores'] for r in rows)
  ]
  taught = {s.index: s.modules for s in facts.stages(run)}
  best: dict[str, float] = {}
  table = []
  for row in rows:
    cells = []
    for name in names:
      score = row['scores'].get(name)
      fell = score is not None and best.get(name, 0.0) - score >= 0.1
      if score is not None:
        best[name] = max(best.get(name, 0.0), score)
      cells.append(
        {
          'name': name,
          'score': score,
          'fell': fell,
          'taught': name in taught.get(row['stage'], ()),
        }
      )
    table.append({**row, 'cells': cells})
  return {'names': names, 'rows': table, 'alarms': facts.alarms(run)}


def _costs(run: read.Run) -> dict[str, Any]:
  seconds = dict(run.results.seconds) if run.results else {}
  total = seconds.pop('total', sum(seconds.values()))
  trained = [e.tokens for e in facts.of_kind(run, Training)]
  supplies = facts.of_kind(run, Supply)
  return {
    'seconds': seconds,
    'total_seconds': total,
    'chart': charts.shares(seconds, 'Seconds per phase') if seconds else None,
    'trained': max(trained, default=0),
    'teacher': sum(e.teacher_tokens for e in supplies),
    'lessons': sum(e.lessons for e in supplies) or len(run.lessons),
    'speeds': _speeds(run),
    'rejected': facts.rejected(run),
  }


def _speeds(run: read.Run) -> dict[str, float]:
  """Tokens a second of the two phases that count them."""
  if not run.results:
    return {}
  tokens, seconds = run.results.tokens, run.results.seconds
  counts = {
    'training': (tokens.student_train, seconds.get('train', 0.0)),
    'writing lessons': (
      sum(e.teacher_tokens for e in facts.of_kind(run, Supply)),
      seconds.get('synthesise', 0.0),
    ),
  }
  return {k: n / s for k, (n, s) in counts.items() if n and s > 1e-3}


def _usd(value: float) -> str:
  return f'${value:,.2f}' if value >= 100 else f'${value:,.4f}'


def _percent(value: float | None, digits: int = 0) -> str:
  return '–' if value is None else f'{100 * value:.{digits}f}\u00a0%'


def _signed(share: float) -> str:
  """In points, with its sign."""
  return f'{100 * share:+.1f}'


def _number(value: float) -> str:
  return f'{value:,.0f}'


def _short(value: float) -> str:
  """Three digits and a unit: 86 k, 1.02 M."""
  for limit, unit in ((1e9, 'B'), (1e6, 'M'), (1e3, 'k')):
    if value >= limit:
      return f'{value / limit:.3g}\u00a0{unit}'
  return f'{value:.3g}'


def _time(seconds: float) -> str:
  if seconds < 100:
    return f'{seconds:.1f}\u00a0s'
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}\u00a0h {minutes}\u00a0min'
  return f'{minutes}\u00a0min {rest}\u00a0s'


def _when(date: str) -> str:
  """An ISO date of UTC, for people."""
  return f'{date[:10]} {date[11:16]} UTC'


def _clip(text: str) -> str:
  """Long model text is cut, and says so."""
  if len(text) <= _MAX_TEXT:
    return text
  return f'{text[:_MAX_TEXT]} … ({len(text) - _MAX_TEXT:,} more characters)'


def _is_prose(text: str) -> bool:
  """Sentences, or too long to be read as code."""
  return len(text) > _SHORT_TEXT or len(re.findall(r'[^\W\d_]{2,}', text)) > 1


def _said(text: str) -> Markup:
  """What a model or a person wrote: short as code, long as prose.

  Of what is very long the beginning is shown, and the rest on a click.
  """
  text = _clip(text)
  if not _is_prose(text):
    return Markup('<code>{}</code>').format(text)
  if len(text) <= _LONG_TEXT:
    return Markup('<span class="prose">{}</span>').format(text)
  cut = max(text.rfind(' ', 0, _LONG_TEXT), _LONG_TEXT // 2)
  return Markup(
    '<details class="more prose"><summary>{}<b> … more</b></summary>{}'
    '</details>'
  ).format(text[:cut], text[cut:])


def _name(name: str) -> Markup:
  """A module's name that may break after `/` and `_` only."""
  category, slash, leaf = name.rpartition('/')
  leaf = Markup('<wbr>').join(re.split(r'(?<=_)', leaf))
  return Markup('<span class="name"><i>{}</i><wbr>{}</span>').format(
    category + slash, leaf
  )
