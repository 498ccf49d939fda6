"""Run directories of a plan to one table and one HTML page.

Reads files only. The first run of the plan is what the others are held against,
seed by seed. Intervals are 95 % percentile bootstraps over seeds; with few they
are too short (of normal values five cover the mean in 84 %, three in 76 %).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Any

from markupsafe import Markup
import numpy as np

from ioa_jax.evaluation import intervals
from ioa_jax.records import Probing, Results, Training
from ioa_jax.report import html, svg
from ioa_jax.report import read as read_lib
from ioa_jax.runtime import files

_CURVE_POINTS = 60
Estimate = dict[str, Any]  # mean, ci95, by seed.


@dataclasses.dataclass(frozen=True)
class Run:
  """One finished run.

  Attributes:
    curve: (student tokens, mean of `min(1, P_S / P_T)` over modules) at every
      probing; a module that was not probed then keeps its last score.
    mastered_at: student tokens when one probing round first found all modules
      that were deficient at or above the gate's threshold; None if none did.
  """

  seed: int
  results: Results
  curve: Sequence[tuple[int, float]]
  mastered_at: int | None


def read(directory: pathlib.Path) -> Run:
  """Reads a finished run.

  Raises:
    ValueError: if a file is missing or damaged.
  """
  run = read_lib.read(directory)
  if not run.results or not run.diagnosis or not run.config:
    raise ValueError(
      f'{directory}: not a finished run; it has no {run.absent[0]}.'
    )
  modules = run.diagnosis.modules
  # The unteachable have no score to be measured against.
  teacher = {k: m.teacher.mean for k, m in modules.items() if m.teacher.correct}
  ratio = {k: modules[k].student.mean / teacher[k] for k in teacher}
  deficient = [
    k for k in teacher if modules[k].status in ('deficient', 'target')
  ]
  mean = lambda: float(np.mean([min(1.0, r) for r in ratio.values()]))
  tau = run.config['gate']['tau_mastery']
  tokens, mastered_at = 0, None
  curve = [(0, mean())]
  for event in run.events:
    if isinstance(event, Training):
      tokens = event.tokens
    elif isinstance(event, Probing):
      asked = event.scores.keys() & teacher.keys()
      ratio |= {k: event.scores[k].mean / teacher[k] for k in asked}
      curve.append((tokens, mean()))
      # Scores of other rounds are from other students.
      whole = deficient and asked.issuperset(deficient)
      if mastered_at is None and whole:
        if all(ratio[k] >= tau for k in deficient):
          mastered_at = tokens
  return Run(run.results.seed, run.results, curve, mastered_at)


def estimate(values: Sequence[float]) -> Estimate:
  """Mean over seeds, its interval (None for one seed), and the values."""
  values = [float(v) for v in values]
  interval = None
  if len(values) > 1:
    interval = list(intervals.bootstrap_mean(values, seed=0, resamples=10_000))
  return {'mean': float(np.mean(values)), 'ci95': interval, 'by_seed': values}


def group_score(run: Run, modules: Sequence[str]) -> float:
  """Held-out score of `modules`, relative to the teacher's.

  Raises:
    ValueError: for a module that the domain does not have.
  """
  found = run.results.modules
  if unknown := [m for m in modules if m not in found]:
    raise ValueError(f'a group of the plan names {unknown}; of {list(found)}.')
  after, teacher = (
    sum(getattr(found[m], key) for m in modules) for key in ('after', 'teacher')
  )
  return after / teacher


def summarize(
  runs: Mapping[str, Sequence[Run]], groups: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
  """Per name, all numbers of the page; `runs` has the same seeds in each."""
  scores = {'retention': lambda r: r.results.retention} | {
    group: lambda r, m=modules: group_score(r, m)
    for group, modules in groups.items()
  }
  first = next(iter(runs))
  form = lambda r: r.results.answer_format
  asked = form(runs[first][0])
  summary = {}
  for name, mine in runs.items():
    entry: dict[str, Any] = {'seeds': [r.seed for r in mine], 'scores': {}}
    for score, of in scores.items():
      values = [of(r) for r in mine]
      found = estimate(values)
      if name != first:
        reference = np.array([of(r) for r in runs[first]])
        difference = reference - values
        found['behind_first'] = estimate(difference)
        found['p'] = intervals.sign_flip(difference)
        if all(values):
          found['relative_gain_of_first'] = estimate(reference / values - 1)
      entry['scores'][score] = found
    stages = [s for r in mine for s in r.results.stages if s.kind == 'teach']
    mastered = [r.mastered_at for r in mine]
    # References of another form are other texts.
    losses = [loss(r) if form(r) == asked else None for r in mine]
    fallen = [forgotten(r) for r in mine]
    entry |= {
      # Of the reference answers, in nats per token; None where unknown, or
      # where they are written in another form than the first run's.
      'held_out_loss': None if None in losses else estimate(losses),
      'stages': len(stages),
      'mastered': sum(s.outcome == 'mastered' for s in stages),
      'remediated': sum(s.remedial_rounds > 0 for s in stages),
      'stalled': sum(s.outcome == 'unmastered' for s in stages),
      'all_mastered_at': mastered,
      # Gate scores of another form are held against another score of the
      # teacher.
      'caught_up_after': [
        caught_up_after(a, b) for a, b in zip(runs[first], mine)
      ]
      if form(mine[0]) == asked
      else None,
      'forgotten': None if None in fallen else estimate(fallen),
      'student_tokens': _mean(r.results.tokens.student_train for r in mine),
      # Beside training: probes, scores, texts of its own, the learner panel.
      'beside_tokens': _mean(map(beside, mine)),
      'teacher_tokens': _mean(r.results.tokens.teacher_generated for r in mine),
      # Teaching and evaluating: what the teacher writes is paid for by the
      # first run that asks.
      'seconds': _mean(
        r.results.seconds['train'] + r.results.seconds['evaluate'] for r in mine
      ),
      'compilations': max(r.results.compilations for r in mine),
      'curve': curve(mine),
    }
    summary[name] = entry
  return summary


def caught_up_after(run: Run, other: Run) -> float | None:
  """When `run` first reached the other's last gate score.

  As a share of the tokens that the other took to its end; None is never.
  """
  total, last = other.curve[-1]
  reached = [tokens for tokens, score in run.curve if score >= last - 1e-9]
  return reached[0] / max(total, 1) if reached else None


def _mean(values: Iterable[float]) -> float:
  return float(np.mean(list(values)))


def beside(run: Run) -> int:
  """Tokens of the student, and of learners, that trained no student."""
  return run.results.tokens.student_inferred + run.results.tokens.panel


def loss(run: Run) -> float | None:
  """Mean over modules of the student's loss on held-out reference answers."""
  found = [m.loss_after for m in run.results.modules.values()]
  known = [x for x in found if x is not None]
  return float(np.mean(known)) if known else None


def forgotten(run: Run) -> float | None:
  """Mean over modules of the fall from the best gate score to the last one.

  Only of the ends of stages, at which every module is probed; None if there is
  no second one.
  """
  rows = [row.scores for row in run.results.forgetting]
  if len(rows) < 2:
    return None
  return float(
    np.mean([max(r[k] for r in rows) - rows[-1][k] for k in rows[-1]])
  )


def curve(runs: Sequence[Run]) -> list[tuple[float, float]]:
  """The mean curve of several seeds on one grid of tokens.

  A score holds until the next one was measured.
  """
  last = min(r.curve[-1][0] for r in runs)
  grid = np.linspace(0, last, _CURVE_POINTS)
  values = []
  for run in runs:
    tokens, score = map(np.array, zip(*run.curve))
    values.append(score[np.searchsorted(tokens, grid, side='right') - 1])
  return [(float(t), float(v)) for t, v in zip(grid, np.mean(values, axis=0))]


def markdown(found: Mapping[str, Any]) -> str:
  """The table, for a terminal and for the repository."""
  summary = found['summary']
  first = next(iter(summary))
  scores = list(summary[first]['scores'])
  head = ['run', *scores, f'{first} ahead by ({scores[0]})', 'p']
  head += [f'{first} relative gain ({s})' for s in scores[1:]]
  head += ['held-out loss']
  head += ['stages mastered / remediated / stalled']
  head += [f'{first} has its last gate score after', 'all mastered after']
  head += ['forgotten', 'student tokens', 'beside (probes, panel)']
  head += ['teacher tokens', 's teaching']
  lines = ['| ' + ' | '.join(head) + ' |', '|---' * len(head) + '|']
  for name, e in summary.items():
    main = e['scores'][scores[0]]
    cells = [name, *(_interval(e['scores'][s]) for s in scores)]
    cells += (
      ['–', '–']
      if name == first
      else [_interval(main['behind_first'], '+.3f'), f'{main["p"]:.3f}']
    )
    gains = [e['scores'][s].get('relative_gain_of_first') for s in scores[1:]]
    cells += [_interval(g, '+.1%') if g else '–' for g in gains]
    cells.append(_interval(e['held_out_loss']) if e['held_out_loss'] else '–')
    cells.append(
      f'{e["mastered"]} / {e["remediated"]} / {e["stalled"]} of {e["stages"]}'
      if e['stages']
      else '–'
    )
    shares = [x for x in e['caught_up_after'] or () if x is not None]
    cells.append(
      '–'
      if name == first or e['caught_up_after'] is None
      else f'{np.median(shares):.0%} of its tokens '
      f'({len(shares)} of {len(e["seeds"])})'
      if shares
      else f'never (0 of {len(e["seeds"])})'
    )
    at = [t for t in e['all_mastered_at'] if t is not None]
    cells.append(
      f'{np.median(at) / 1e6:.2f} M ({len(at)} of {len(e["seeds"])})'
      if at
      else f'never (0 of {len(e["seeds"])})'
    )
    cells += [
      f'{e["forgotten"]["mean"]:.3f}' if e['forgotten'] else '–',
      f'{e["student_tokens"] / 1e6:.2f} M',
      f'{e["beside_tokens"] / 1e6:.2f} M',
      f'{e["teacher_tokens"] / 1e3:.0f} k',
      f'{e["seconds"]:.0f}',
    ]
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines) + '\n'


def results_page(found: Mapping[str, Any]) -> str:
  """The table with where it comes from and what it leaves open, as Markdown."""
  lines = [f'# {found["title"]}', '', found['says'], '']
  lines += [f'- {key}: {value}' for key, value in found['provenance'].items()]
  seeds = next(iter(found['summary'].values()))['seeds']
  lines += [
    f'- seeds: {seeds}; means with 95 % bootstrap intervals over seeds, paired '
    'differences, p of the exact sign-flip test',
    '',
    markdown(found),
  ]
  for name, modules in found['groups'].items():
    lines.append(f'{name}: {", ".join(modules)}.')
  if found['untried']:
    lines += ['', 'Not tried:', '', *(f'- {x}' for x in found['untried'])]
  return '\n'.join(lines) + '\n'


def _interval(e: Estimate, form: str = '.3f') -> str:
  if e['ci95'] is None:
    return f'{e["mean"]:{form}}'
  low, high = e['ci95']
  return f'{e["mean"]:{form}} ({low:{form}}, {high:{form}})'


def _chart(summary: Mapping[str, Any], name: str) -> Markup:
  """One run's curve over that of the first."""
  first = next(iter(summary))
  most = max(points[-1][0] for points in (e['curve'] for e in summary.values()))
  height = 90
  inside = lambda points: [(t / max(most, 1), v) for t, v in points]
  end = summary[name]['curve'][-1]
  return svg.strip(
    height + 22,
    f'{name}: mean mastery against student tokens, {end[1]:.2f} after '
    f'{end[0]:,.0f}',
    *[svg.line(0, 1, y * height, y * height, 'grid') for y in (0, 0.5, 1)],
    svg.stretched(
      0,
      height,
      svg.curve(inside(summary[first]['curve']), 'curve first'),
      svg.curve(inside(summary[name]['curve']), 'curve ink'),
    ),
    svg.label(0, height + 16, '0'),
    svg.label(1, height + 16, f'{most / 1e6:.2f} M tokens'),
  )


def render(found: Mapping[str, Any]) -> str:
  """The page as one HTML document."""
  summary = found['summary']
  scores = [s for e in summary.values() for s in e['scores'].values()]
  top = max(1.0, max(max(s['by_seed']) for s in scores))

  def bar(score: Estimate) -> Markup:
    low, high = score['ci95'] or [score['mean']] * 2
    return svg.strip(
      18,
      _interval(score),
      svg.tag(
        'rect',
        x=0,
        y=3,
        height=12,
        width=svg.percent(score['mean'] / top),
        class_='part p0',
      ),
      svg.whisker(low / top, high / top, 9, 'whisker after'),
    )

  return (
    html.environment()
    .get_template('comparison.html')
    .render(
      found=found,
      first=next(iter(summary)),
      bar=bar,
      interval=_interval,
      charts={name: _chart(summary, name) for name in summary},
    )
  )


def write(
  workdir: pathlib.Path,
  directories: Sequence[tuple[str, pathlib.Path]],
  *,
  title: str,
  says: str,
  untried: Sequence[str],
  groups: Mapping[str, Sequence[str]],
  provenance: Mapping[str, str],
) -> dict[str, Any]:
  """Writes table.json, table.md and comparison.html; returns the first.

  Args:
    directories: (name, directory) of finished runs, names in the plan's order.
  """
  runs: dict[str, list[Run]] = {}
  for name, directory in directories:
    runs.setdefault(name, []).append(read(directory))
  found = {
    'title': title,
    'says': says,
    'untried': list(untried),
    'provenance': dict(provenance),
    'groups': {k: list(v) for k, v in groups.items()},
    'summary': summarize(runs, groups),
  }
  texts = {
    'table.json': json.dumps(found, indent=2) + '\n',
    'table.md': results_page(found),
    'comparison.html': render(found),
  }
  for name, text in texts.items():
    files.write_text(workdir / name, text)
  return found
