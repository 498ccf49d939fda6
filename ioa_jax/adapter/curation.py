"""Which lessons are worth learning from: length, overlap, repetition.

The checks that need no answer key. They apply to text of any domain; whether an
answer is right is confirmed elsewhere. Every rejection has a reason, and its
evidence, so that a person can disagree with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import zlib

import numpy as np

from ioa_jax.adapter import words as words_lib
from ioa_jax.adapter.contamination import Contamination
from ioa_jax.adapter.words import words
from ioa_jax.records import Lesson

__all__ = [
  'Contamination',
  'NearDuplicates',
  'Rejection',
  'Repeats',
  'curate',
  'words',
]


@dataclasses.dataclass(frozen=True)
class Rejection:
  """Why a lesson was left out.

  Attributes:
    index: its place among the lessons given.
    reason: 'empty', 'too_short', 'too_long', 'contaminated', 'near_duplicate'.
    evidence: the number of tokens, the item that is given away and its source,
      or the name of the earlier lesson.
  """

  index: int
  reason: str
  evidence: str


class NearDuplicates:
  """Remembers texts and finds those that repeat one.

  MinHash proposes, the exact Jaccard similarity of word n-grams decides, so a
  lesson is never dropped for an unlucky hash; about one pair in two hundred
  just above a threshold of 0.8 is missed.

  Args:
    threshold: similarity from which a text repeats another. Problems that
      differ in one number or sign share about 0.8 of their n-grams: for
      templated exercises, where the numbers are the lesson, set it to 1.
    shingle_words: length of the n-grams.
  """

  def __init__(self, *, threshold: float = 0.8, shingle_words: int = 3):
    if not 0 < threshold <= 1:
      raise ValueError(f'near-duplicates: threshold {threshold} not in (0, 1].')
    try:
      import datasketch
    except ImportError:
      raise ValueError(
        'near-duplicates need the package datasketch: '
        'pip install "ioa_jax[eval]".'
      ) from None
    self._threshold, self._shingle_words = threshold, shingle_words
    # Copied for each text: drawing the permutations costs more than using them.
    self._empty = datasketch.MinHash(num_perm=64, seed=1, hashfunc=int)
    # Asked for less than the threshold, because a miss is a repeated lesson and
    # a false alarm one comparison.
    self._index = datasketch.MinHashLSH(
      threshold=max(0.05, threshold - 0.1), num_perm=64, weights=(0.1, 0.9)
    )
    self._shingles: list[np.ndarray] = []
    self._names: list[str] = []
    self.texts: list[str] = []  # All that were new, in order.

  def __len__(self) -> int:
    return len(self._names)

  def add(self, name: str, text: str) -> str | None:
    """Remembers a new text; of a repeating one, the name of the earlier."""
    shingles = self._hashes(text)
    sketch = self._empty.copy()
    sketch.update_batch(shingles.tolist())
    for key in sorted(self._index.query(sketch)):
      both = np.intersect1d(shingles, self._shingles[key], assume_unique=True)
      either = len(shingles) + len(self._shingles[key]) - len(both)
      if len(both) >= self._threshold * either:
        return self._names[key]
    self._index.insert(len(self._names), sketch, check_duplication=False)
    self._names.append(name)
    self.texts.append(text)
    self._shingles.append(shingles)
    return None

  def _hashes(self, text: str) -> np.ndarray:
    shingles = words_lib.grams(text, self._shingle_words) or [text]
    # CRC and not `hash`, which differs from process to process.
    return np.unique(
      np.fromiter((zlib.crc32(g.encode()) for g in shingles), np.uint32)
    )


class Repeats:
  """The near-duplicates of a run's lessons, which only grow.

  Args:
    threshold: see `NearDuplicates`.
  """

  def __init__(self, threshold: float):
    self._threshold = threshold
    # A missing package shows before anything is paid.
    self._index = NearDuplicates(threshold=threshold)

  def of(self, earlier: Sequence[Lesson]) -> NearDuplicates:
    """The problems of `earlier` and no others; to be added to.

    Nothing else is remembered: what was indexed before is only not indexed
    again, where `earlier` begins with it.
    """
    problems = [lesson.problem for lesson in earlier]
    if problems[: len(self._index)] != self._index.texts:
      self._index = NearDuplicates(threshold=self._threshold)
    for lesson in earlier[len(self._index) :]:
      self._index.add(lesson.metadata['request'], lesson.problem)
    return self._index


def curate(
  lessons: Sequence[Lesson],
  *,
  count_tokens: Callable[[str], int],
  min_tokens: int,
  max_tokens: int,
  contamination: Contamination | None = None,
  near_duplicates: NearDuplicates | None = None,
) -> tuple[list[Lesson], list[Rejection]]:
  """Lessons that pass every check, in order, and why the others do not.

  Args:
    count_tokens: of a text, by the student's tokenizer.
    min_tokens: of problem and completion together.
    max_tokens: of both; longer ones would be cut in training, and lose their
      answer.
    near_duplicates: updated with what is kept, so that later calls compare with
      earlier ones. A rejected lesson never stands in another's way.
  """
  kept, rejected = [], []
  for index, lesson in enumerate(lessons):
    if not lesson.problem.strip() or not lesson.completion.strip():
      rejected.append(Rejection(index, 'empty', ''))
      continue
    size = count_tokens(lesson.problem) + count_tokens(lesson.completion)
    if not min_tokens <= size <= max_tokens:
      reason = 'too_short' if size < min_tokens else 'too_long'
      rejected.append(Rejection(index, reason, f'{size} tokens'))
      continue
    if contamination is not None:
      overlap = contamination.find(lesson.problem, lesson.completion)
      if overlap is not None:
        rejected.append(Rejection(index, 'contaminated', overlap))
        continue
    if near_duplicates is not None:
      name = str(lesson.metadata.get('request') or len(near_duplicates))
      earlier = near_duplicates.add(name, lesson.problem)
      if earlier is not None:
        rejected.append(Rejection(index, 'near_duplicate', earlier))
        continue
    kept.append(lesson)
  return kept, rejected
