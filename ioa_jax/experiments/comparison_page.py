"""The numbers of a plan as Markdown and as one HTML document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

from markupsafe import Markup
import numpy as np

from ioa_jax.experiments import paired
from ioa_jax.experiments.paired import Estimate
from ioa_jax.report import html, svg

_KINDS = 11  # Of lines that style can tell apart beside the first.


def answer(found: Mapping[str, Any]) -> list[str]:
  """What the numbers say, a sentence a line; the first is the answer."""
  summary = found['summary']
  first, *others = summary
  if not others:
    return [f'{first} alone was run; there is nothing to compare it with.']
  score = next(iter(found['groups']), 'retention')
  rivals = found['rivals'] or others
  mean = lambda name: summary[name]['scores'][score]['mean']
  best = max(rivals, key=mean)
  entry = summary[best]['scores'][score]
  of = score if score == 'retention' else f'the {score} modules'
  gain = entry.get('relative_gain_of_first')
  gain = f', {_interval(gain, "+.1%")} relative' if gain else ''
  lines = [
    f'{first} {_standing(entry)} {best}, the best of '
    f'{", ".join(rivals)}, on {of}: '
    f'{mean(first):.3f} against {mean(best):.3f} of the teacher, '
    f'{_interval(entry["behind_first"], "+.3f")}{gain}, '
    f'p = {entry["p"]:.3g}, seeds: {len(summary[first]["seeds"])}.'
  ]
  stands = {
    name: _standing(summary[name]['scores']['retention']) for name in others
  }
  named = lambda word: [name for name in others if stands[name] == word]
  parts = [
    f'{first} {word} {", ".join(names)}'
    for word in ('is above', 'is below', 'is not told apart from')
    if (names := named(word))
  ]
  lines.append(f'In retention of all modules, {"; ".join(parts)}.')
  return lines


def _standing(score: Estimate) -> str:
  return paired.standing(score['behind_first'], score['p'])


def notes(found: Mapping[str, Any]) -> list[str]:
  """What every number on the page stands on."""
  summary = found['summary']
  by_form: dict[str, list[float]] = {}
  for entry in summary.values():
    by_form.setdefault(entry['answer_format'], []).append(entry['teacher'])
  teachers = ', '.join(
    f'{np.mean(scores):.3f} ({form})' for form, scores in by_form.items()
  )
  seeds = next(iter(summary.values()))['seeds']
  return [
    'Every score is a mean over modules of held-out probes, divided by the '
    f"teacher's own score in the format that is taught: {teachers}.",
    f'Seeds: {", ".join(map(str, seeds))}. Intervals are 95 % BCa bootstraps '
    'over seeds and probes together; loss and forgetting over seeds alone.',
    'Above and below is where the interval leaves out 0 and p is below 0.05. '
    'Differences are paired by seed. p is of the permutation test that swaps '
    f'methods within seeds; with {len(seeds)} it cannot be below '
    f'{2.0 ** (1 - len(seeds)):.2g}. Neither is corrected for the '
    'number of runs.',
    'A curve, and what is read from it, stands on rounds that probed all '
    'modules to be learned; methods with stages have fewer of these.',
  ]


def stale(found: Mapping[str, Any]) -> str:
  """Said first where runs are of other code than the page; else ''."""
  runs = found['provenance'].get('commit of the runs')
  page = found['provenance'].get('commit of this page')
  if runs == page:
    return ''
  return f'The runs are of commit {runs}, this page of {page}.'


@dataclasses.dataclass(frozen=True)
class Table:
  """A title, the names of the columns, and a row for each run."""

  title: str
  head: list[str]
  rows: list[list[str]]


def tables(found: Mapping[str, Any]) -> list[Table]:
  """All numbers: scores, differences to the first run, course and cost."""
  summary = found['summary']
  first, *others = summary
  scores = list(summary[first]['scores'])
  shown = [
    Table(
      'Scores, relative to the teacher',
      ['run', 'format', 'student / teacher', *scores, 'held-out loss'],
      [
        [
          name,
          e['answer_format'],
          f'{e["student"]:.3f} / {e["teacher"]:.3f}',
          *(_interval(e['scores'][s]) for s in scores),
          _interval(e['held_out_loss']) if e['held_out_loss'] else '–',
        ]
        for name, e in summary.items()
      ],
    )
  ]
  if others:
    head = ['run', *(x for s in scores for x in (s, 'relative', 'p'))]
    rows = [
      [name, *(x for s in scores for x in _paired(summary[name]['scores'][s]))]
      for name in others
    ]
    shown.append(Table(f'{first} minus the run, paired by seed', head, rows))
  head = ['run', 'stages mastered / remediated / stalled']
  head += [f'{first} has its last gate score after', 'all mastered after']
  head += ['forgotten', 'lessons', 'student tokens', 'beside (probes, panel)']
  head += ['teacher tokens', 's teaching']
  rows = [[name, *_course(e, name == first)] for name, e in summary.items()]
  return [*shown, Table('Course and cost', head, rows)]


def markdown(found: Mapping[str, Any]) -> str:
  """The tables, for a terminal and for the repository."""
  lines = []
  for table in tables(found):
    lines += [f'{table.title}:', '']
    lines += ['| ' + ' | '.join(row) + ' |' for row in [table.head]]
    lines += ['|---' * len(table.head) + '|']
    lines += ['| ' + ' | '.join(row) + ' |' for row in table.rows]
    lines.append('')
  return '\n'.join(lines)


def _course(entry: Mapping[str, Any], is_first: bool) -> list[str]:
  e = entry
  stages = f'{e["mastered"]} / {e["remediated"]} / {e["stalled"]}'
  return [
    f'{stages} of {e["stages"]}' if e['stages'] else '–',
    _caught_up(e, is_first),
    _mastered(e),
    f'{e["forgotten"]["mean"]:.3f}' if e['forgotten'] else '–',
    f'{e["lessons"]:,.0f}',
    f'{e["student_tokens"] / 1e6:.2f} M',
    f'{e["beside_tokens"] / 1e6:.2f} M',
    f'{e["teacher_tokens"] / 1e3:.0f} k',
    f'{e["seconds"]:.0f}',
  ]


def _paired(score: Estimate) -> list[str]:
  gain = score.get('relative_gain_of_first')
  return [
    _interval(score['behind_first'], '+.3f'),
    _interval(gain, '+.1%') if gain else '–',
    f'{score["p"]:.3f}',
  ]


def _caught_up(entry: Mapping[str, Any], is_first: bool) -> str:
  if is_first or entry['caught_up_after'] is None:
    return '–'
  shares = [x for x in entry['caught_up_after'] if x is not None]
  seeds = len(entry['seeds'])
  if not shares:
    return f'never (0 of {seeds})'
  return f'{np.median(shares):.0%} of its tokens ({len(shares)} of {seeds})'


def _mastered(entry: Mapping[str, Any]) -> str:
  at = [t for t in entry['all_mastered_at'] if t is not None]
  seeds = len(entry['seeds'])
  if not at:
    return f'never (0 of {seeds})'
  return f'{np.median(at) / 1e6:.2f} M ({len(at)} of {seeds})'


def results_page(found: Mapping[str, Any]) -> str:
  """The table with where it comes from and what it leaves open, as Markdown."""
  lines = [f'# {found["title"]}', '']
  if stale(found):
    lines += [stale(found), '']
  lines += [' '.join(answer(found)), '', found['says'], '']
  lines += [f'- {key}: {value}' for key, value in found['provenance'].items()]
  lines += [f'- {note}' for note in notes(found)]
  lines += ['', markdown(found)]
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


def _scale(values: Sequence[float]) -> list[float]:
  """Round numbers, evenly apart, from below all values to above them."""
  low, high = min(values), max(values)
  raw = max(high - low, 1e-3) / 5
  unit = 10 ** math.floor(math.log10(raw))
  step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw)
  ends = math.floor(low / step), math.ceil(high / step)
  return [i * step for i in range(ends[0], max(ends[1], ends[0] + 1) + 1)]


def _forest(summary: Mapping[str, Any], score: str) -> dict[str, Markup]:
  """Of each other run, how far the first is ahead, with every seed; an axis."""
  others = list(summary)[1:]
  ahead = {k: summary[k]['scores'][score]['behind_first'] for k in others}
  values = [0.0]
  for e in ahead.values():
    values += [*e['by_seed'], *(e['ci95'] or ())]
  ticks = _scale(values)
  at = lambda x: (x - ticks[0]) / (ticks[-1] - ticks[0])
  grid = [
    svg.line(at(t), at(t), 0, 26, f'grid{"" if abs(t) > 1e-12 else " strong"}')
    for t in ticks
  ]
  rows = {}
  for name, e in ahead.items():
    marks = [
      svg.at(at(x), svg.shape('circle', 19, 2.4, 'seed')) for x in e['by_seed']
    ]
    if e['ci95']:
      marks.append(svg.whisker(*map(at, e['ci95']), 8, 'whisker after'))
    marks.append(
      svg.at(at(e['mean']), svg.shape('diamond', 8, 5, 'mark after'))
    )
    by_seed = ', '.join(f'{x:+.3f}' for x in e['by_seed'])
    says = f'{name}: {_interval(e, "+.3f")}; by seed {by_seed}'
    rows[name] = svg.strip(26, says, *grid, *marks)
  axis = svg.tag(
    'svg',
    *[svg.label(at(t), 13, f'{t:+.2g}' if t else '0') for t in ticks],
    class_='strip axis',
    height=18,
    width='100%',
    aria_hidden='true',
  )
  return {**rows, '': axis}


def _line_class(index: int) -> str:
  return 'first' if not index else f'other k{(index - 1) % _KINDS}'


def _curves(summary: Mapping[str, Any]) -> Markup | None:
  """All learning curves over each other; None where there are none."""
  drawn = {k: e['curve'] for k, e in summary.items() if e['curve']}
  if not drawn:
    return None
  most = max(points[-1][0] for points in drawn.values()) or 1
  height = 300
  order = list(summary)
  ends = ', '.join(f'{k} {points[-1][1]:.2f}' for k, points in drawn.items())
  millions = [t for t in _scale([0, most / 1e6]) if t <= most / 1e6 * 1.001]
  return svg.strip(
    height + 22,
    f'Mean mastery against student tokens; at the end: {ends}',
    *[svg.line(0, 1, y * height / 4, y * height / 4, 'grid') for y in range(5)],
    *[
      svg.label(0.002, y * height / 4 - 3, f'{1 - y / 4:.2f}', anchor='start')
      for y in range(5)
    ],
    svg.stretched(
      0,
      height,
      *[
        svg.curve(
          [(t / most, v) for t, v in drawn[name]],
          f'curve {_line_class(order.index(name))}',
        )
        # The first lies on top.
        for name in reversed(drawn)
      ],
    ),
    *[svg.label(t * 1e6 / most, height + 16, f'{t:.3g} M') for t in millions],
  )


def _key(index: int) -> Markup:
  """A piece of a run's line, for the legend."""
  return svg.tag(
    'svg',
    svg.tag(
      'path', d='M0 6H26', class_=f'curve {_line_class(index)}', fill='none'
    ),
    class_='icon',
    width=26,
    height=12,
    aria_hidden='true',
  )


def render(found: Mapping[str, Any]) -> str:
  """The page as one HTML document."""
  summary = found['summary']
  first, *others = summary
  scores = list(summary[first]['scores'])
  forests = {s: _forest(summary, s) for s in scores} if others else {}
  return (
    html.environment()
    .get_template('comparison.html')
    .render(
      found=found,
      first=first,
      answer=answer(found),
      notes=notes(found),
      stale=stale(found),
      interval=_interval,
      forests=forests,
      curves=_curves(summary),
      keys={name: _key(i) for i, name in enumerate(summary)},
      tables=tables(found),
    )
  )
