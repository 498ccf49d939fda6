"""Numbers to charts: one function per picture, plain values in, SVG out.

Forms are fixed across the report: the teacher is a diamond, the student before
teaching a ring, the student after teaching a disc.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
import dataclasses
import math

from markupsafe import Markup

from ioa_jax.report import svg

Ci = tuple[float, float]
# Told apart by form; colour only repeats it.
SUPPLY_FORMS = {
  'stage': 'down',
  'bridging': 'up',
  'remedial': 'small square',
  'rehearsal': 'ring',
}


@dataclasses.dataclass(frozen=True)
class Span:
  """The optimizer steps of one stage, `start` exclusive."""

  stage: int
  start: int
  end: int


def score_axis(height: float = 18) -> Markup:
  """0 to 100 % under or over rows of `gap` or `change`."""
  return svg.tag(
    'svg',
    *[svg.label(v / 4, 13, f'{25 * v} %') for v in range(5)],
    class_='strip axis',
    height=height,
    width='100%',
    aria_hidden='true',
  )


def _grid(height):
  return [svg.line(v / 4, v / 4, 0, height, 'grid') for v in range(5)]


def gap(
  name: str, teacher: float, student: float, teacher_ci: Ci, student_ci: Ci
) -> Markup:
  """Teacher above student, the gap as the band between them."""
  low, high = sorted((teacher, student))
  return svg.strip(
    34,
    f'{name}: student {student:.0%}, 95 % interval {student_ci[0]:.0%} to '
    f'{student_ci[1]:.0%}; teacher {teacher:.0%}, {teacher_ci[0]:.0%} to '
    f'{teacher_ci[1]:.0%}',
    *_grid(34),
    svg.tag(
      'rect',
      x=svg.percent(low),
      width=svg.percent(high - low),
      y=10,
      height=14,
      class_='gap' if student < teacher else 'lead',
    ),
    svg.whisker(*teacher_ci, 10, 'whisker teacher'),
    svg.whisker(*student_ci, 24, 'whisker before'),
    svg.at(teacher, svg.shape('diamond', 10, 6, 'mark teacher')),
    svg.at(student, svg.shape('circle', 24, 4.5, 'mark before ring')),
  )


def change(
  name: str, before: float, after: float, ci: Ci, teacher: float
) -> Markup:
  """Before, after with its interval, and the teacher, on one line."""
  y = 17
  return svg.strip(
    34,
    f'{name}: before {before:.0%}, after {after:.0%}, 95 % interval '
    f'{ci[0]:.0%} to {ci[1]:.0%}; teacher {teacher:.0%}',
    *_grid(34),
    svg.line(before, after, y, y, 'change' if after >= before else 'loss'),
    svg.whisker(*ci, y, 'whisker after'),
    # The teacher's mark sits above, so a student that has caught up shows both.
    svg.at(teacher, svg.shape('diamond', 6, 5, 'mark teacher')),
    svg.at(before, svg.shape('circle', y, 4.2, 'mark before ring')),
    svg.at(after, svg.shape('circle', y, 5.6, 'mark after')),
  )


def journey(before: float, after: float, teacher: float) -> Markup:
  """The whole run on one line, for the head of the page."""
  y = 20
  return svg.strip(
    48,
    f'Mean score: before {before:.1%}, after {after:.1%}, teacher '
    f'{teacher:.1%}',
    svg.line(0, 1, y, y, 'grid strong'),
    svg.line(before, after, y, y, 'change wide'),
    svg.at(teacher, svg.shape('diamond', y - 12, 6, 'mark teacher')),
    svg.at(before, svg.shape('circle', y, 6.5, 'mark before ring')),
    svg.at(after, svg.shape('circle', y, 7, 'mark after')),
    svg.label(0, 44, '0 %'),
    svg.label(1, 44, '100 %'),
  )


def icon(kind: str, class_: str) -> Markup:
  """A mark of the charts, for a legend."""
  return svg.tag(
    'svg',
    svg.tag('svg', svg.shape(kind, 8, 5, class_), x='8', overflow='visible'),
    class_='icon',
    width=16,
    height=16,
    aria_hidden='true',
  )


def steps_axis(total: int, count: int = 5) -> Markup:
  marks = svg.ticks(total, count)
  labels = [svg.label(t / max(total, 1), 13, f'{t:,.0f}') for t in marks]
  return svg.tag(
    'svg',
    *labels,
    class_='strip axis',
    height=18,
    width='100%',
    aria_hidden='true',
  )


def lane(
  name: str,
  span: Span | None,
  total: int,
  gates: Sequence[tuple[int, str, str]],
  supplies: Sequence[tuple[int, str, str]],
) -> Markup:
  """One stage on the time axis: band, gate decisions, supplies under it.

  Args:
    gates: (step, decision, title).
    supplies: (step, kind, title).
  """
  parts = [
    svg.line(t / total, t / total, 0, 44, 'grid')
    for t in svg.ticks(total, 5)
    if total
  ]
  parts.append(svg.line(0, 1, 16, 16, 'grid'))
  if span:
    parts.append(
      svg.tag(
        'rect',
        x=svg.percent(span.start / total),
        y=4,
        height=24,
        rx=4,
        width=svg.percent((span.end - span.start) / total),
        class_='band',
      )
    )
  forms = {
    'stay': ('circle', 1.7),
    'advance': ('triangle', 8),
    'remediate': ('square', 5.5),
    'stall': ('cross', 6),
  }
  # Stays first, so that the decisions that matter lie on top.
  for step, decision, title in sorted(gates, key=lambda g: g[1] != 'stay'):
    kind, size = forms[decision]
    parts.append(
      svg.at(step / total, svg.shape(kind, 16, size, f'gate {decision}', title))
    )
  seen: Counter[int] = Counter()
  for step, kind, title in supplies:
    form = SUPPLY_FORMS.get(kind, 'down')
    drawn = svg.shape(form, 37, 5, f'supply {kind_class(kind)}', title)
    # Supplies of one step stand side by side.
    shifted = svg.tag('svg', drawn, x=13 * seen[step], overflow='visible')
    parts.append(svg.at(step / total, shifted))
    seen[step] += 1
  where = f'steps {span.start} to {span.end}' if span else 'not reached'
  decided = ', '.join(f'{d} at {s}' for s, d, _ in gates if d != 'stay')
  return svg.strip(
    44, f'{name}: {where}. {decided or "No decision but stay"}.', *parts
  )


def kind_class(kind: str) -> str:
  """A supply's kind as a class name: kinds are text from a file."""
  return kind if kind in SUPPLY_FORMS else 'other'


def mastery(
  name: str,
  points: Sequence[tuple[int, float]],
  threshold: float | None,
  spans: Sequence[Span],
  taught_in: Sequence[int],
  total: int,
  end: float | None = None,
) -> Markup:
  """Mastery of one module over steps, its threshold, and the stages.

  Args:
    end: its mastery after teaching, by other probes than the points are of.
  """
  top, height = 6, 92
  y_of = lambda p: round(top + height * (1 - min(p, 1)), 1)
  parts = _shading(spans, taught_in, total, top, height)
  for v in (0, 0.5, 1):
    parts.append(svg.line(0, 1, *[top + height * (1 - v)] * 2, 'grid'))
  if threshold is not None:
    parts.append(svg.line(0, 1, *[y_of(threshold)] * 2, 'threshold'))
  # A student can be better than its teacher; the picture ends at 1.
  inside = [(s / total if total else 0.0, min(p, 1)) for s, p in points]
  parts.append(svg.stretched(top, height, svg.curve(inside, 'curve after')))
  parts += [
    svg.tag(
      'circle',
      cx=svg.percent(x),
      cy=y_of(p),
      r=1.6,
      class_='dot after',
    )
    for x, p in inside
  ]
  if end is not None:
    # Known modules are not probed to the last step.
    parts.append(
      svg.stretched(
        top, height, svg.curve([inside[-1], (1, min(end, 1))], 'curve end')
      )
    )
    ending = f'end, held-out probes: {end:.0%}'
    parts.append(
      svg.at(1, svg.shape('square', y_of(end), 4, 'mark end', ending))
    )
  parts.append(svg.label(0, 113, '0'))
  parts.append(svg.label(1, 113, f'{total:,} steps'))
  first, last = points[0], points[-1]
  return svg.strip(
    118,
    f'{name}: {first[1]:.0%} at step {first[0]}, {last[1]:.0%} at step '
    f'{last[0]}'
    + (f'; mastered from {threshold:.0%}' if threshold is not None else '')
    + (f'; {end:.0%} at the end, held-out' if end is not None else ''),
    *parts,
  )


def score_labels() -> Markup:
  """The vertical axis of `mastery`, beside it because it does not stretch."""
  return svg.tag(
    'svg',
    *[
      svg.label(1, 6 + 92 * (1 - v) + 4, f'{100 * v:.0f} %', anchor='end')
      for v in (0, 0.5, 1)
    ],
    width=42,
    height=118,
    class_='y-axis',
    aria_hidden='true',
  )


def _shading(spans, taught_in, total, top, height):
  return [
    svg.tag(
      'rect',
      x=svg.percent(s.start / total),
      y=top,
      height=height,
      width=svg.percent((s.end - s.start) / total),
      class_='stage-shade' + (' taught' if s.stage in taught_in else ''),
    )
    for s in spans
    if total and (s.stage in taught_in or s.stage % 2)
  ]


def loss(
  points: Sequence[tuple[int, float]], spans: Sequence[Span], total: int
) -> tuple[Markup, Markup]:
  """Training loss on a logarithmic scale, and its vertical axis."""
  top, height = 8, 150
  values = [v for _, v in points]
  # Half a decade of air keeps a flat curve from filling the whole height.
  low = math.log10(max(min(values), 1e-6)) - 0.1
  high = math.log10(max(max(values), 1e-6)) + 0.1
  scale = lambda v: (math.log10(max(v, 1e-6)) - low) / (high - low)
  marks = [m for m in _log_ticks(low, high) if 0 <= scale(m) <= 1]
  y_of = lambda v: round(top + height * (1 - scale(v)), 1)
  parts = _shading(spans, [], total, top, height)
  parts += [svg.line(0, 1, y_of(m), y_of(m), 'grid') for m in marks]
  inside = [(s / total if total else 0.0, scale(v)) for s, v in points]
  parts.append(svg.stretched(top, height, svg.curve(inside, 'curve ink')))
  for s in spans:
    middle = (s.start + s.end) / 2 / total if total else 0.0
    # A narrow stage has no room for its number.
    if total and (s.end - s.start) / total > 0.06:
      parts.append(
        svg.label(middle, top + 12, str(s.stage + 1), 'tiny', anchor='middle')
      )
  for t in svg.ticks(total, 5):
    parts.append(svg.label(t / max(total, 1), top + height + 18, f'{t:,.0f}'))
  axis = svg.tag(
    'svg',
    *[svg.label(1, y_of(m) + 4, f'{m:g}', anchor='end') for m in marks],
    width=42,
    height=180,
    class_='y-axis',
    aria_hidden='true',
  )
  chart = svg.strip(
    180,
    f'Training loss: {values[0]:.3g} at step {points[0][0]}, '
    f'{values[-1]:.3g} at step {points[-1][0]}',
    *parts,
  )
  return chart, axis


def _log_ticks(low, high):
  decades = range(math.floor(low), math.ceil(high) + 1)
  steps = (1, 2, 5) if high - low < 2 else (1,)
  return [m * 10.0**d for d in decades for m in steps]


def shares(parts: Mapping[str, float], what: str) -> Markup:
  """One bar cut in proportion; names and numbers stand in a list beside it."""
  total = sum(parts.values())
  x, drawn = 0.0, []
  for index, (name, value) in enumerate(parts.items()):
    share = value / total if total > 0 else 0.0
    drawn.append(
      svg.tag(
        'rect',
        svg.tag('title', f'{name}: {share:.0%}'),
        x=svg.percent(x),
        width=svg.percent(share),
        y=0,
        height=18,
        class_=f'part p{index % 5}',
      )
    )
    x += share
  words = ', '.join(f'{k} {v:.1f}' for k, v in parts.items())
  return svg.strip(18, f'{what}: {words}', *drawn)
