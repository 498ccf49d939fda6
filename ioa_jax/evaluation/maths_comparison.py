r"""Whether two answers that have parts are the same, part by part.

Computer algebra decides about single values only. That `1,1,2` is not `1,2,2`,
that `x+y=5` is no value, that `(0,1)` is what `0<x<1` says: decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import re

from ioa_jax.evaluation import maths_structure
from ioa_jax.evaluation.maths_structure import Node

_MAX_PARTS = 60
_NUMERIC = re.compile(r'[-+0-9.\s()/^{}!]|\\%|\\(?:cdot|times|frac|sqrt|pi)')

Equal = Callable[[str, str], str]


class Comparison:
  """Compares two read answers with the means to compare two values.

  Attributes:
    equal: (gold, answer) as LaTeX to 'equal' or a reason.
    equivalent: two equations as ((left, right), ...) to 'equal' or a reason.
  """

  def __init__(self, equal: Equal, equivalent: Callable[..., str]):
    self.equal = equal
    self.equivalent = equivalent

  def compare(self, gold: Node, answer: Node) -> str:
    if gold.kind != 'equation' and answer.kind == 'equation':
      answer = self._value_of(answer)
    elif gold.kind == 'equation' and answer.kind != 'equation':
      if not gold.name:
        return 'different'
      gold = dataclasses.replace(
        maths_structure.read(gold.parts[-1]), name=gold.name
      )
    if answer is None:
      return 'different'
    if (
      gold.name
      and answer.name
      and gold.kind != 'equation'
      and (_names_differ(gold, answer))
    ):
      return 'different'
    kinds = gold.kind, answer.kind
    if kinds == ('equation', 'equation'):
      return self._equations(gold, answer)
    if 'region' in kinds or 'ne' in kinds:
      return self._regions(gold, answer)
    gold, answer = _unwrapped(gold), _unwrapped(answer)
    kinds = gold.kind, answer.kind
    collections = ('list', 'set')
    if gold.kind in collections and answer.kind in collections:
      return self._unordered(gold, answer, 'set' in kinds)
    if set(kinds) == {'list', 'tuple'}:
      return self._ordered(gold.parts, answer.parts)
    if kinds == ('tuple', 'tuple'):
      if gold.text != answer.text:
        return 'different'
      return self._ordered(gold.parts, answer.parts)
    if kinds == ('matrix', 'matrix'):
      if [len(r) for r in gold.parts] != [len(r) for r in answer.parts]:
        return 'different'
      return self._ordered(
        [c for r in gold.parts for c in r], [c for r in answer.parts for c in r]
      )
    return self._simple(gold, answer)

  def _simple(self, gold: Node, answer: Node) -> str:
    kinds = gold.kind, answer.kind
    if kinds == ('words', 'words'):
      return 'equal' if gold.text == answer.text else 'different'
    if 'time' in kinds:
      return self._times(gold, answer)
    if 'ratio' in kinds and set(kinds) <= {'ratio', 'value'}:
      return self._ratios(gold, answer)
    if set(kinds) == {'words', 'value'}:
      return (
        'equal'
        if gold.text.casefold() == answer.text.casefold()
        else ('different')
      )
    if kinds == ('value', 'value'):
      return self.equal(gold.text, answer.text)
    return 'different'

  def _value_of(self, node: Node) -> Node | None:
    """What an equation that is no equation's answer comes to."""
    if node.text == 'inequality':
      return None
    last = maths_structure.read(node.parts[-1])
    if node.name:
      for middle in node.parts[1:-1]:
        if self.compare(last, maths_structure.read(middle)) != 'equal':
          return None
      return dataclasses.replace(last, name=last.name or '')
    # `2+3=5`: true, and in numbers.
    for side in node.parts[:-1]:
      if not re.sub(_NUMERIC, '', side).strip() == '':
        return None
      if self.equal(node.parts[-1], side) != 'equal':
        return None
    return last

  def _equations(self, gold: Node, answer: Node) -> str:
    if 'inequality' in (gold.text, answer.text):
      return self.equivalent(gold.parts, answer.parts)
    if gold.name and answer.name and not _names_differ(gold, answer):
      want, got = (
        maths_structure.read(gold.parts[-1]),
        maths_structure.read(answer.parts[-1]),
      )
      return self.compare(want, got)
    if not gold.name and not answer.name:
      want, got = self._value_of(gold), self._value_of(answer)
      if want is not None and got is not None:
        return self.compare(want, got)
    if len(gold.parts) == len(answer.parts) == 2:
      return self.equivalent(gold.parts, answer.parts)
    return 'different'

  def _regions(self, gold: Node, answer: Node) -> str:
    want, got = (
      maths_structure.region_of(gold),
      maths_structure.region_of(answer),
    )
    if gold.kind == answer.kind == 'ne':
      return self._unordered(
        Node('set', parts=tuple(maths_structure.read(p) for p in gold.parts)),
        Node('set', parts=tuple(maths_structure.read(p) for p in answer.parts)),
        True,
      )
    if want is None or got is None or len(want) != len(got):
      return 'different'
    if len(want) > _MAX_PARTS:
      return 'too_many_parts'
    left = list(got)
    for low, high, brackets in want:
      for interval in left:
        if interval[2] == brackets and (
          self.compare(
            maths_structure.read(low), maths_structure.read(interval[0])
          )
          == 'equal'
          and self.compare(
            maths_structure.read(high), maths_structure.read(interval[1])
          )
          == 'equal'
        ):
          left.remove(interval)
          break
      else:
        return 'different'
    return 'equal'

  def _unordered(self, gold: Node, answer: Node, distinct: bool) -> str:
    want, got = list(gold.parts), list(answer.parts)
    if max(len(want), len(got)) > _MAX_PARTS:
      return 'too_many_parts'
    if distinct:
      want, got = _distinct(want, self.compare), _distinct(got, self.compare)
    if len(want) != len(got):
      return 'different'
    for one in want:
      for i, other in enumerate(got):
        if self.compare(one, other) == 'equal':
          del got[i]
          break
      else:
        return 'different'
    return 'equal'

  def _ordered(self, gold: Sequence[Node], answer: Sequence[Node]) -> str:
    if len(gold) != len(answer):
      return 'different'
    if len(gold) > 4 * _MAX_PARTS:
      return 'too_many_parts'
    for one, other in zip(gold, answer):
      reason = self.compare(one, other)
      if reason != 'equal':
        return reason
    return 'equal'

  def _times(self, gold: Node, answer: Node) -> str:
    if gold.kind == answer.kind == 'time':
      same = [int(p) for p in gold.parts] == [int(p) for p in answer.parts]
      halves = {gold.text, answer.text} - {''}
      return 'equal' if same and len(halves) < 2 else 'different'
    one, other = (answer, gold) if gold.kind == 'time' else (gold, answer)
    if other.text or one.kind not in ('value', 'ratio'):
      return 'different'
    ratio = Node('ratio', parts=tuple(Node('value', p) for p in other.parts))
    return self._ratios(
      *((ratio, one) if gold.kind == 'time' else (one, ratio))
    )

  def _ratios(self, gold: Node, answer: Node) -> str:
    if gold.kind == answer.kind == 'ratio' and (
      len(gold.parts) > 2 or len(answer.parts) > 2
    ):
      return self._ordered(gold.parts, answer.parts)
    want, got = (
      n.text
      if n.kind == 'value'
      else f'\\frac{{{n.parts[0].text}}}{{{n.parts[1].text}}}'
      if len(n.parts) == 2
      else ''
      for n in (gold, answer)
    )
    return self.equal(want, got) if want and got else 'different'


def _names_differ(gold: Node, answer: Node) -> bool:
  return re.sub(r'\s', '', gold.name) != re.sub(r'\s', '', answer.name)


def _distinct(
  nodes: Sequence[Node], compare: Callable[[Node, Node], str]
) -> list[Node]:
  kept: list[Node] = []
  for node in nodes:
    if all(compare(k, node) != 'equal' for k in kept):
      kept.append(node)
  return kept


def _unwrapped(node: Node) -> Node:
  """A collection of one thing is that thing."""
  if node.kind in ('list', 'set') and len(node.parts) == 1:
    return node.parts[0]
  return node
