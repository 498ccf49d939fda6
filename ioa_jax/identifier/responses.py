"""Who was taught what, and what came of it: the learner panel's record.

Shapes: N learners, T snapshots, K knowledge modules, P probes per module.
"""

from __future__ import annotations

import dataclasses
import pathlib
import zipfile

import numpy as np

from ioa_jax.runtime import files

FORMAT_VERSION = 2
_SWAPS = 500
_FIELDS = (
  'exposure_NxK',
  'right_NxTxKxP',
  'nll_NxTxKxP',
  'tokens_KxP',
  'valid_KxP',
  'steps_T',
  'spent',
)


@dataclasses.dataclass(frozen=True)
class Responses:
  """The response tensor, learner × snapshot × item, with its design.

  Attributes:
    names: of the modules, in the order of the K axis.
    exposure_NxK: bool, which modules a learner was taught.
    right_NxTxKxP: bool, the reference answer is the likeliest, token by token.
    nll_NxTxKxP: nats of the reference answer, summed over its tokens.
    tokens_KxP: length of the answers.
    valid_KxP: which probe slots are real.
    steps_T: optimizer steps before each snapshot.
    spent: tokens that all learners were taught and probed with.
  """

  names: tuple[str, ...]
  exposure_NxK: np.ndarray
  right_NxTxKxP: np.ndarray
  nll_NxTxKxP: np.ndarray
  tokens_KxP: np.ndarray
  valid_KxP: np.ndarray
  steps_T: np.ndarray
  spent: np.ndarray

  def scores(self, response: str) -> np.ndarray:
    """P(k) of every learner at every snapshot, (N, T, K), in [0, 1].

    Args:
      response: 'exact' is the share of right items. 'likelihood' is the mean
        over items of the answer's probability per token, exp(-nll / tokens):
        it moves long before an answer is right, so short educations show.

    Raises:
      ValueError: if a module has no probe: its score is unknown, not 0.
    """
    count_K = self.valid_KxP.sum(axis=1)
    if not count_K.all():
      without = [n for n, c in zip(self.names, count_K) if not c]
      raise ValueError(
        f'modules {without} have no gate probe, so nothing is known of them; '
        'add seeds, or take them out of the taxonomy.'
      )
    if response == 'exact':
      item = self.right_NxTxKxP.astype(np.float64)
    else:
      item = np.exp(-self.nll_NxTxKxP / np.maximum(self.tokens_KxP, 1.0))
    return (item * self.valid_KxP).sum(axis=-1) / count_K


def design(num_learners: int, num_modules: int, *, seed: int) -> np.ndarray:
  """Exposure (N, K): each module to half of the learners, pairs balanced.

  Learners come in pairs of complements, so every module is taught to exactly
  half of them, and half of the modules (up to one) to every learner. From a
  random start, modules of a learner are swapped as long as that makes pairs of
  modules be taught together more evenly.

  Raises:
    ValueError: for an odd number of learners, or fewer than four.
  """
  if num_learners < 4 or num_learners % 2:
    raise ValueError(
      f'identifier.panel.learners is {num_learners}, wanted an even number of '
      'at least 4: learners come in pairs of opposite exposure.'
    )
  rng = np.random.default_rng(seed)
  half = np.zeros((num_learners // 2, num_modules), bool)
  for row in half:
    # With an odd number of modules the larger half changes sides.
    size = num_modules // 2 + int(rng.integers(0, 1 + num_modules % 2))
    row[rng.permutation(num_modules)[:size]] = True
  least = _unevenness(half)
  for _ in range(_SWAPS if num_modules > 2 else 0):
    row = half[rng.integers(len(half))]
    inside = rng.choice(np.flatnonzero(row))
    outside = rng.choice(np.flatnonzero(~row))
    row[[inside, outside]] = False, True
    now = _unevenness(half)
    if now > least:
      row[[inside, outside]] = True, False
    least = min(now, least)
  return np.concatenate([half, ~half])


def _unevenness(half):
  """Squared learners who are taught both of a pair, over all pairs."""
  exposure = np.concatenate([half, ~half]).astype(float)
  return int(np.square(exposure.T @ exposure).sum())


def save(path: pathlib.Path, responses: Responses) -> None:
  """Writes a plain .npz: arrays, names and a format version; no pickle."""
  with files.whole(path) as temporary, open(temporary, 'wb') as file:
    np.savez_compressed(
      file,
      format_version=FORMAT_VERSION,
      names=np.asarray(responses.names),
      **{name: getattr(responses, name) for name in _FIELDS},
    )


def load(path: pathlib.Path) -> Responses:
  """Reads what `save` wrote.

  Raises:
    ValueError: for a damaged file or another format version.
  """
  try:
    with np.load(path, allow_pickle=False) as file:
      version = int(file['format_version'])
      if version != FORMAT_VERSION:
        raise ValueError(
          f'{path} has format version {version}, this program reads '
          f'{FORMAT_VERSION}; delete it to measure again.'
        )
      return Responses(
        tuple(map(str, file['names'])), *(file[name] for name in _FIELDS)
      )
  except (zipfile.BadZipFile, KeyError, EOFError) as e:
    raise ValueError(
      f'{path} is damaged ({e}); delete it to measure again.'
    ) from None
