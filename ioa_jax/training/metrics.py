"""Windows of step metrics to events, the lines of metrics.jsonl.

One writer for all numbers of a run. A train event sums the steps between two
probing rounds, sums and counts apart; a probe event is one gate decision.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ioa_jax.records import Probing, Score, Training
from ioa_jax.training import gate as gate_lib


def window_events(
  metrics: dict[str, np.ndarray],
  module_names: Sequence[str],
  *,
  tokens_before: int,
  learning_rate,
  every: int,
) -> list[Training | Probing]:
  """The events of one window, in the order of steps.

  Args:
    metrics: (T, ...) arrays of `step.train_step`; idle steps are left out, but
      not a probing round of the host.
    tokens_before: live tokens trained on before this window.
    learning_rate: the schedule, step to rate.
    every: steps per train event.
  """
  events: list[Training | Probing] = []
  tokens, run = tokens_before, []
  ran = np.flatnonzero(metrics['ran'])
  probed = np.flatnonzero(metrics['decision'] != gate_lib.NO_PROBE)
  for t in np.union1d(ran, probed):
    step = int(metrics['step'][t])
    if metrics['ran'][t]:
      run.append(t)
      tokens += int(metrics['tokens'][t])
    if run and (step % every == 0 or t == ran[-1]):
      count = float(metrics['loss_count'][run].sum())
      events.append(
        Training(
          event='train',
          step=step,
          stage=int(metrics['stage'][t]),
          loss=float(metrics['loss_sum'][run].sum()) / max(count, 1.0),
          grad_norm=float(metrics['grad_norm'][run].mean()),
          learning_rate=float(learning_rate(step - 1) * metrics['pace'][t]),
          tokens=tokens,
        )
      )
      run = []
    if metrics['decision'][t] != gate_lib.NO_PROBE:
      events.append(_probing(metrics, t, module_names))
  return events


def _probing(metrics, t: int, module_names: Sequence[str]) -> Probing:
  return Probing(
    event='probe',
    step=int(metrics['step'][t]),
    stage=int(metrics['stage'][t]),
    round=int(metrics['round'][t]),
    decision=gate_lib.DECISIONS[int(metrics['decision'][t])],
    scores={
      name: Score(
        float(metrics['correct_K'][t, k]), int(metrics['probed_K'][t, k])
      )
      for k, name in enumerate(module_names)
      if metrics['probed_K'][t, k]
    },
    reopened=[
      module_names[k] for k in np.flatnonzero(metrics['reopened_K'][t])
    ],
  )
