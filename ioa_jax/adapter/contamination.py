"""Lessons that give a probe or a benchmark's item away.

A text leaks an item in one of four ways:

  whole   it is a short item and nothing else
  copy    it holds most of the item's phrases and all of its numbers
  run     it holds a third of its phrases, and a run of words that no other item
          has
  clone   it has the same numbers and signs in the same order, and the same
          words but for names, what is counted, and a few more

A phrase counts by how rare it is among all items and seeds: what many of them
share is a frame ("Your code should pass these tests") and no evidence. In a
templated domain the wording is a frame, so there the numbers decide: with other
numbers it is another problem.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
import math

from ioa_jax.adapter import words as words_lib
from ioa_jax.adapter.words import Word

DECIDED_BY = ('wording', 'numbers')
_PHRASE_WORDS = 3
# With fewer texts nobody can tell a frame from an item.
_FEW_TEXTS = 20
_COPIED, _COPIED_OF_FEW = 0.85, 0.9  # Shares of phrases, by weight.
_RUN_SHARE = 0.3
_RARE_PHRASES = 4  # Of the six in a run of eight words.
_LEAST_WEIGHT = 0.2  # Below it a phrase is a frame.
# Share of a clone's words that may be others, by how many numbers are the same:
# the more, the less likely by accident. Of the first five none may.
_OTHER_WORDS = {2: 0.15, 3: 0.3, 4: 0.5}
_SURE_WORDS = 5
# May follow a number and are not what it counts.
_NO_THING = frozenset(
  'a an and are as at but by each for from how in into is less more of on or '
  'other per plus minus than that the then times to was were with'.split()
)
_PRONOUNS = frozenset('he she him her his hers they them their theirs'.split())


class _Text:
  """Words as they are, and with every number as `#`."""

  def __init__(self, text: str):
    self.words = words_lib.split(text)
    self.exact = [str(w) for w in self.words]
    self.masked = [
      f'{w.signs}#' if w.kind == 'number' else str(w) for w in self.words
    ]
    self.numbers = Counter(w.text for w in self.words if w.kind == 'number')

  def __str__(self) -> str:
    return ' '.join(self.exact)

  @functools.cached_property
  def phrases(self) -> set[str]:
    return set(_joined(self.exact, self._spans))

  @functools.cached_property
  def masked_phrases(self) -> set[str]:
    return set(_joined(self.masked, self._spans))

  @functools.cached_property
  def _spans(self) -> list[tuple[int, int]]:
    return words_lib.spans(self.words, _PHRASE_WORDS)

  def numbers_and_signs(self) -> tuple[str, ...]:
    """In order; the signs of words count too."""
    return tuple(
      part
      for w in self.words
      for part in (w.signs, w.text if w.kind == 'number' else '')
      if part
    )


def _joined(written: Sequence[str], spans: Iterable[tuple[int, int]]):
  return [' '.join(written[a:b]) for a, b in spans]


@dataclasses.dataclass(frozen=True)
class _Item:
  """A text that no lesson may give away, with the weight of its phrases."""

  source: str
  text: _Text
  weights: Mapping[str, float]
  masked_weights: Mapping[str, float]


class Contamination:
  """Finds texts that leak an item; see the module's docstring.

  Args:
    sources: name ('gate probes', 'gsm8k') to the texts of its items.
    seeds: texts that lessons may resemble, because the teacher is shown them.
    decided_by: 'wording' finds an item's story with other numbers too, if it is
      the story of that item alone; 'numbers' lets other numbers pass.
    ngram_words: words of a run. 13 is GPT-3's for web text; word problems are
      shorter, and 8 rare words in a row are no accident.
    min_words: a shorter item is compared whole, with the problem only, because
      `What is 3 + 4` is in many honest lessons.
  """

  def __init__(
    self,
    sources: Mapping[str, Iterable[str]],
    *,
    seeds: Iterable[str] = (),
    decided_by: str = 'wording',
    ngram_words: int = 8,
    min_words: int = 5,
  ):
    if not 1 <= min_words <= ngram_words:
      raise ValueError(
        f'contamination: min_words {min_words} must be in 1..{ngram_words} '
        '(ngram_words).'
      )
    if decided_by not in DECIDED_BY:
      raise ValueError(
        f'contamination: decided by {decided_by!r}, wanted one of {DECIDED_BY}.'
      )
    self._run_words = ngram_words
    self._by_wording = decided_by == 'wording'
    items: dict[str, tuple[str, _Text]] = {}
    for source, texts in sources.items():
      for text in map(_Text, texts):
        items.setdefault(str(text), (source, text))
    items.pop('', None)
    known = {str(text): text for text in map(_Text, seeds)}
    self._count({name: text for name, (_, text) in items.items()} | known)
    self._whole: dict[str, str] = {}
    self._items: list[_Item] = []
    self._with_phrase: dict[str, list[int]] = {}
    self._with_run: dict[str, int] = {}
    self._with_numbers: dict[tuple[str, ...], list[int]] = {}
    for name, (source, text) in items.items():
      if sum(w.size for w in text.words) < min_words:
        self._whole[name] = source
      else:
        self._add(source, text)

  def _count(self, texts: Mapping[str, _Text]) -> None:
    """In how many texts each phrase and run is."""
    self._num_texts = len(texts)
    self._few = len(texts) < _FEW_TEXTS
    self._shared: Counter[str] = Counter()
    self._lower: set[str] = set()
    for text in texts.values():
      self._shared.update(text.phrases | text.masked_phrases)
      runs = words_lib.spans(text.words, self._run_words)
      self._shared.update(set(_joined(text.masked, runs)) - text.masked_phrases)
      self._lower |= {w.written for w in text.words if w.written.islower()}

  def _weigh(self, phrases: Iterable[str]) -> dict[str, float]:
    """From 0, in every text, to 1, in one; without frames."""
    top = math.log(self._num_texts + 1)
    weights = {
      g: (top - math.log(self._shared[g])) / top for g in sorted(phrases)
    }
    return {g: w for g, w in weights.items() if w >= _LEAST_WEIGHT}

  def _add(self, source: str, text: _Text) -> None:
    index = len(self._items)
    item = _Item(
      source, text, self._weigh(text.phrases), self._weigh(text.masked_phrases)
    )
    self._items.append(item)
    for phrase in item.weights:
      self._with_phrase.setdefault(phrase, []).append(index)
    for a, b in words_lib.spans(text.words, self._run_words):
      for run in self._evidence(text, a, b):
        self._with_run.setdefault(run, index)
    if text.numbers.total() > 1:
      key = text.numbers_and_signs()
      self._with_numbers.setdefault(key, []).append(index)

  def _evidence(self, text: _Text, a: int, b: int) -> Iterable[str]:
    """By what words a to b show this text and no other."""
    numbers = sum(w.kind == 'number' for w in text.words[a:b])
    masked = ' '.join(text.masked[a:b])
    if self._shared[masked] > 1 or 2 * numbers > b - a:
      return
    if numbers > 1:
      yield ' '.join(text.exact[a:b])
    spans = words_lib.spans(text.words[a:b], _PHRASE_WORDS)
    rare = sum(self._shared[g] == 1 for g in _joined(text.masked[a:b], spans))
    if self._by_wording and not self._few and rare >= _RARE_PHRASES:
      yield masked

  def find(self, problem: str, completion: str = '') -> str | None:
    """The item as 'source: its beginning', or None."""
    asked, answered = _Text(problem), _Text(completion)
    if str(asked) in self._whole:
      return f'{self._whole[str(asked)]}: {asked}'
    # Two texts: a phrase across their border is in neither.
    item = (
      self._clone(asked)
      or self._copy(asked)
      or self._run(asked)
      or self._copy(answered)
      or self._run(answered)
    )
    if item is None:
      return None
    return f'{item.source}: {" ".join(item.text.exact[: self._run_words])}'

  def _copy(self, text: _Text) -> _Item | None:
    held: Counter[int] = Counter()
    for phrase in text.phrases:
      for index in self._with_phrase.get(phrase, ()):
        held[index] += self._items[index].weights[phrase]
    least = _COPIED_OF_FEW if self._few else _COPIED
    for index in sorted(held):
      item = self._items[index]
      if held[index] >= least * sum(item.weights.values()) - 1e-9 and (
        item.text.numbers <= text.numbers
      ):
        return item
    return None

  def _run(self, text: _Text) -> _Item | None:
    for a, b in words_lib.spans(text.words, self._run_words):
      for run in (' '.join(text.exact[a:b]), ' '.join(text.masked[a:b])):
        if run not in self._with_run:
          continue
        item = self._items[self._with_run[run]]
        weights = item.masked_weights
        held = sum(weights.get(g, 0.0) for g in text.masked_phrases)
        if held >= _RUN_SHARE * sum(weights.values()) and (
          self._by_wording or item.text.numbers <= text.numbers
        ):
          return item
    return None

  def _clone(self, text: _Text) -> _Item | None:
    mine = None
    for index in self._with_numbers.get(text.numbers_and_signs(), ()):
      item = self._items[index]
      mine, its = mine or self._plain(text), self._plain(item.text)
      share = _OTHER_WORDS[min(text.numbers.total(), max(_OTHER_WORDS))]
      others = share * max(its.total() - _SURE_WORDS, 0)
      if (its - mine).total() <= others and (
        (mine - its).total() <= others + _SURE_WORDS
      ):
        return item
    return None

  def _plain(self, text: _Text) -> Counter[str]:
    """The words that are no numbers, no names and nothing that is counted."""
    masked = set(_PRONOUNS)
    for index, word in enumerate(text.words):
      if word.kind == 'number':
        masked |= set(_things(text.words[index + 1 : index + 3]))
      elif word.written[:1].isupper() and (
        word.written.lower() not in self._lower
      ):
        masked.add(word.text)
    return Counter(
      w.text for w in text.words if w.kind != 'number' and w.text not in masked
    )


def _things(after: Sequence[Word]) -> Iterable[str]:
  """The noun that a number counts, with one adjective."""
  for word in after:
    if word.kind != 'word' or word.text in _NO_THING:
      return
    yield word.text
