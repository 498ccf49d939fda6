"""SVG elements as escaped text, and positions along a strip.

A strip has no viewBox: horizontal positions are percentages and everything else
is in pixels. So a chart is as wide as the page allows while its text, dots and
lines keep their size, on a phone as on a desk.
"""

from __future__ import annotations

from collections.abc import Sequence
import math

from markupsafe import Markup, escape


def tag(_name: str, *children, **attributes) -> Markup:
  """An element; every attribute and every child that is not Markup is escaped.

  `class_` is `class`, `stroke_width` is `stroke-width`; None leaves one out.
  """
  written = Markup('').join(
    Markup(' {}="{}"').format(name.rstrip('_').replace('_', '-'), _value(value))
    for name, value in attributes.items()
    if value is not None
  )
  inner = Markup('').join(escape(c) for c in children)
  return Markup('<{0}{1}>{2}</{0}>').format(Markup(_name), written, inner)


def _value(value):
  return f'{value:.6g}' if isinstance(value, float) else value


def strip(height: float, label: str, *children, class_='strip') -> Markup:
  """A chart of full width; `label` says in words what it shows."""
  return tag(
    'svg',
    *children,
    class_=class_,
    height=height,
    width='100%',
    role='img',
    aria_label=label,
  )


def percent(value: float) -> str:
  """A share in [0, 1] as a horizontal position."""
  return f'{100 * min(1.0, max(0.0, value)):.2f}%'


def at(x: float, *children) -> Markup:
  """Children drawn around the point (x, 0), x in [0, 1]."""
  return tag('svg', *children, x=percent(x), overflow='visible')


def line(x1, x2, y1, y2, class_) -> Markup:
  return tag(
    'line', x1=percent(x1), x2=percent(x2), y1=y1, y2=y2, class_=class_
  )


def whisker(low: float, high: float, y: float, class_: str) -> Markup:
  """An interval with caps, which stay visible where it is very short."""
  caps = [line(x, x, y - 3.5, y + 3.5, class_) for x in (low, high)]
  return Markup('').join([line(low, high, y, y, class_), *caps])


def shape(kind: str, y: float, size: float, class_: str, title='') -> Markup:
  """A mark centred on (0, y); its form tells what colour only repeats."""
  s = size
  inside = [tag('title', title)] if title else []
  if kind == 'circle':
    return tag('circle', *inside, cy=y, r=s, class_=class_)
  if kind == 'ring':
    return tag('circle', *inside, cy=y, r=s - 0.5, class_=class_)
  points = {
    'diamond': f'M0 {y - s}L{s} {y}L0 {y + s}L{-s} {y}Z',
    'triangle': f'M{-0.7 * s} {y - s}L{s} {y}L{-0.7 * s} {y + s}Z',
    'down': f'M{-s} {y - 0.8 * s}L{s} {y - 0.8 * s}L0 {y + s}Z',
    'up': f'M{-s} {y + 0.8 * s}L{s} {y + 0.8 * s}L0 {y - s}Z',
    'small square': f'M{0.8 * -s} {y - 0.8 * s}H{0.8 * s}V{y + 0.8 * s}'
    f'H{0.8 * -s}Z',
    'square': f'M{-s} {y - s}H{s}V{y + s}H{-s}Z',
    'cross': f'M{-s} {y - s}L{s} {y + s}M{s} {y - s}L{-s} {y + s}',
    'bar': f'M0 {y - s}V{y + s}',
  }[kind]
  return tag('path', *inside, d=points, class_=class_)


def curve(points: Sequence[tuple[float, float]], class_: str) -> Markup:
  """A line through points in the unit square, y upwards.

  Stretched to its parent without stretching the stroke.
  """
  path = 'M' + 'L'.join(f'{100 * x:.2f} {100 * (1 - y):.2f}' for x, y in points)
  return tag('path', d=path, class_=class_, vector_effect='non-scaling-stroke')


def stretched(y: float, height: float, *children) -> Markup:
  """A full-width unit square, 100 by 100, for `curve`."""
  return tag(
    'svg',
    *children,
    y=y,
    width='100%',
    height=height,
    viewBox='0 0 100 100',
    preserveAspectRatio='none',
    overflow='visible',
  )


def label(x: float, y: float, text: str, class_='label', anchor=None) -> Markup:
  """Text at x in [0, 1], anchored so that it stays inside the strip."""
  if anchor is None:
    anchor = 'start' if x < 0.02 else 'end' if x > 0.98 else 'middle'
  return tag('text', text, x=percent(x), y=y, text_anchor=anchor, class_=class_)


def ticks(high: float, count: int) -> list[float]:
  """0 and round whole numbers up to `high`, about `count` of them."""
  if high <= 0:
    return [0.0]
  raw = max(high / count, 1.0)
  unit = 10 ** math.floor(math.log10(raw))
  step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw)
  return [i * step for i in range(int(high / step + 1e-9) + 1)]
