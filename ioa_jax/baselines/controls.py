"""IOA without one of its parts: what each is worth."""

from ioa_jax.baselines.method import Method

CONTROLS = {
  # Without the gate: stages take their share of the steps.
  'ordered_no_gate': Method(order='prerequisites', weighting='need'),
  # Without the organizer.
  'need_weighted': Method(weighting='need'),
  # Nor re-measuring: weights stay as diagnosed.
  'gap_weighted': Method(weighting='gap'),
  # Nor the identifier: the same lessons, all modules alike.
  'uniform_steps': Method(),
  # All of IOA but the identifier.
  'no_identifier': Method(
    order='prerequisites', gated=True, weighting='uniform', identified=False
  ),
  # Other orders, everything else as in IOA.
  'random_order': Method(order='random', gated=True, weighting='need'),
  # What a reviewer proposed: easy to hard by length (Platanios et al., 2019),
  # earlier stages replayed, and no gate.
  'easy_to_hard': Method(order='length', weighting='need'),
  # The teacher's plain answers, confirmed: without the adapter's steps, and
  # without everything else.
  'uniform_direct': Method(),
}
