"""Baselines: what each makes of a lesson, and that all can be configured."""

import functools
import shutil
import types

import pytest

from ioa_jax import config as config_lib
from ioa_jax.assemble import Run
from ioa_jax.baselines import answers, cascod, dss, method, methods, star_agents
from ioa_jax.domains import arithmetic, composition
from ioa_jax.domains import tokenizer as tokenizer_lib
from ioa_jax.phases import diagnosis, exams
from ioa_jax.records import Score
from tests import lessons as lessons_lib
from tests import test_pipeline

CODEC = tokenizer_lib.DigitCodec(tokenizer_lib.build())
FORMULAS = answers.Formulas()


def lesson(module, operands):
  problem = arithmetic.Problem(module, operands)
  return lessons_lib.lesson(
    problem.prompt('steps'),
    problem.completion('steps'),
    module=module,
    solution={'final_answer': problem.answer},
  )


PRODUCT = lesson('multiplication/two_by_teen', (54, 14))  # Ends in =756.
SUM = lesson('addition/two_digit', (20, 31))


def parts(example):
  """(prompt, completion) as text."""
  text = CODEC.decode(example.prompt), CODEC.decode(example.completion[:-1])
  assert example.completion[-1] in CODEC.stop_tokens
  return text


def test_a_lesson_is_read_and_answered():
  (example,) = method.read_and_answer(PRODUCT, CODEC, FORMULAS)
  assert parts(example) == ('54*14:', '4*4+0=16;5*4+1=21;540+216=756')
  assert example.weights is None


def test_dss_teaches_label_and_rationale_alike():
  label, rationale = dss.examples(PRODUCT, CODEC, FORMULAS)
  assert parts(label) == ('54*14=', '756')
  assert parts(rationale) == ('54*14:', PRODUCT.completion)
  # Each task has half of the loss, and a token weighs 1 in the mean.
  assert sum(label.weights) == pytest.approx(sum(rationale.weights))
  tokens = len(label.completion) + len(rationale.completion)
  assert sum(label.weights) + sum(rationale.weights) == pytest.approx(tokens)
  (only,) = dss.examples(SUM, CODEC, FORMULAS)
  assert parts(only) == ('20+31=', '51') and only.weights is None


def test_star_agents_keeps_what_the_student_lags_behind_in():
  """The harder half of each module, in the order in which they came."""
  products = [lesson('multiplication/two_by_teen', (54, n)) for n in (14, 15)]
  sums = [lesson('addition/two_digit', (20, n)) for n in (31, 32, 33, 34)]
  lessons = [sums[0], products[0], *sums[1:], products[1]]
  student = [1.0, 0.5, 2.0, 3.0, 4.0, 0.6]
  # What is hard for both is not what the student lags behind in.
  teacher = [0.0, 0.1, 0.1, 2.5, 3.9, 0.5]
  kept = star_agents.select(lessons, method.Evidence(student, teacher, None))
  assert kept == [sums[0], products[0], sums[1]]


def test_cascod_weighs_rationale_and_answer_alike():
  (example,) = cascod.examples(PRODUCT, CODEC, FORMULAS)
  assert parts(example) == ('54*14:', PRODUCT.completion)
  # `756` and the end; all before is rationale, the last `=` included.
  answer, rationale = example.weights[-4:], example.weights[:-4]
  assert len(set(answer)) == len(set(rationale)) == 1
  assert sum(answer) == pytest.approx(sum(rationale))
  assert sum(example.weights) == pytest.approx(len(example.completion))
  (plain,) = cascod.examples(SUM, CODEC, FORMULAS)
  assert plain.weights is None


@pytest.mark.parametrize('name', methods.METHODS)
def test_every_method_is_a_valid_configuration(name):
  config = test_pipeline.load_config('quickstart', {'method': name})
  config_lib.validate(config)
  assert config_lib.settle(config).answer_format in ('steps', 'direct')


@pytest.mark.slow
@pytest.mark.parametrize(
  'name', ['dss', 'lamini', 'lion', 'random_order', 'star_agents']
)
def test_a_baseline_runs_to_its_end(name, tmp_path):
  changes = test_pipeline.SMALL | {'method': name, 'train.total_steps': 40}
  results, _ = test_pipeline.run_config(
    test_pipeline.load_config('quickstart', changes), tmp_path / 'run'
  )
  assert results['method'] == name and results['compilations'] == 1


def test_a_method_sets_what_the_config_leaves_off():
  fields = lambda **changes: (
    config_lib.settle(
      test_pipeline.load_config('quickstart', changes)
    ).distillation
  )
  assert fields()['divergence'] == 'none'
  got = fields(method='on_policy_distillation')
  assert (got['divergence'], got['on_policy_every_steps']) == ('jsd', 50)
  assert got['top_k'] == 8
  changes = {
    'method': 'on_policy_distillation',
    'distillation.beta': 0.0,
    'distillation.divergence': 'reverse_kl',
    'distillation.on_policy_every_steps': 10,
  }
  got = fields(**changes)
  assert (got['divergence'], got['on_policy_every_steps']) == ('reverse_kl', 10)
  assert got['beta'] == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(
  'name,changes',
  [
    ('logit_distillation', {}),
    ('on_policy_distillation', {'distillation.on_policy_every_steps': 10}),
  ],
)
def test_distributions_are_learned_and_a_resumed_run_is_the_same(
  name, changes, tmp_path
):
  config = test_pipeline.load_config(
    'quickstart', test_pipeline.SMALL | {'method': name} | changes
  )
  whole = tmp_path / 'whole'
  results, _ = test_pipeline.run_config(config, whole)
  assert results['method'] == name and results['compilations'] == 1
  tokens = results['tokens']['teacher_scored']
  own = [e for e in test_pipeline.events(whole) if e['event'] == 'own_texts']
  assert [e['step'] for e in own] == ([10, 20, 30] if changes else [])
  # Every token of the lessons, and of the prompts and texts of the student.
  assert tokens > results['lessons'] + sum(e['tokens'] for e in own)
  resumed = tmp_path / 'resumed'
  shutil.copytree(whole, resumed)
  (resumed / 'results.json').unlink()
  for step in ('30', '40'):
    shutil.rmtree(resumed / 'checkpoints' / step)
  again, text = test_pipeline.run_config(config, resumed)
  assert 'Continuing from step 20' in text
  assert again['tokens']['teacher_scored'] == tokens
  test_pipeline.assert_same_run(whole, resumed)


@pytest.mark.parametrize('split', ['held_out', 'development'])
@pytest.mark.parametrize(
  'method,ends', [('lion', {':', '='}), ('self_instruct', {'='})]
)
def test_the_teacher_is_judged_as_its_student_is_asked(
  monkeypatch, method, ends, split
):
  """In the format that is taught, on the probes that the run is judged by."""
  config = config_lib.get(
    'domains:composition', {'method': method, 'domain.evaluate_on': split}
  )
  run = types.SimpleNamespace(
    config=config, settled=config_lib.settle(config), domain=composition
  )
  run.probes = functools.partial(Run.probes, run)
  run.held_out_probes = functools.partial(Run.held_out_probes, run)
  asked = []

  def of_teacher(run, probes, phase):
    del run, phase
    asked.extend(probes)
    return exams.Marks({'m': Score(1, 1)}, {}, {})

  monkeypatch.setattr(exams, 'of_teacher', of_teacher)
  diagnosis._teacher_held_out(run)
  assert {p.probe_id.partition('/')[0] for p in asked} == {split}
  assert {p.prompt[-1] for p in asked} == ends
