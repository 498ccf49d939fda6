"""What has fallen, worked by hand."""

from ioa_jax.phases.alarms import Alarms
from ioa_jax.records import Probing, Score


def probing(decision='stay', **correct):
  scores = {name: Score(c, 32) for name, c in correct.items()}
  return Probing('probe', 50, 0, 0, decision, scores, ())


def test_a_fall_is_said_once_and_forgotten_when_it_recovers():
  alarms = Alarms({'known': Score(32, 32)})
  # One probe less is noise; Newcombe's interval of 27 to 32 of 32 has no 0.
  assert alarms.hear(probing(known=31, new=2), ('new',)) == ()
  assert alarms.hear(probing(known=20), ('new',)) == ('known',)
  assert alarms.hear(probing(known=7), ('new',)) == ()
  # Not asked is not recovered.
  assert alarms.hear(probing(new=5), ('new',)) == ()
  assert alarms.fallen == ('known',)
  assert alarms.hear(probing(known=32), ('new',)) == () == alarms.fallen
  assert alarms.hear(probing(known=7), ('new',)) == ('known',)


def test_what_was_taught_is_held_against_its_mastery():
  alarms = Alarms({})
  assert alarms.hear(probing(new=4), ('new',)) == ()
  # Before its stage was mastered a module has nothing to lose.
  assert alarms.hear(probing(new=0), ('new',)) == ()
  assert alarms.hear(probing('advance', new=30, other=3), ('new',)) == ()
  assert alarms.hear(probing(new=20, other=0), ('other',)) == ('new',)
  assert alarms.was('new') == Score(30, 32)


def test_scores_of_the_stage_that_is_left_are_no_fall():
  alarms = Alarms({'a': Score(32, 32)})
  alarms.hear(probing(a=10), ('a',))
  assert alarms.hear(probing('advance', a=29), ('a',)) == ()
  assert alarms.fallen == () and alarms.was('a') == Score(29, 32)
