"""total_steps='auto', and what is said of a run that nothing can come of."""

import json
import math
import re

import hypothesis
import hypothesis.strategies as st
import pytest

from ioa_jax import config as config_lib
from ioa_jax import people, pipeline
from ioa_jax import subject as subject_lib
from ioa_jax.baselines import methods
from ioa_jax.evaluation import final_answers
from ioa_jax.models import vocabulary
from ioa_jax.phases import diagnosis, first_config, step_budget
from ioa_jax.records import Curriculum, Zone
from ioa_jax.runtime import display as display_lib
from ioa_jax.runtime import rundir
from tests import word_problem_teacher
from tests.test_text_pipeline import write_student

AUTO = {'train.total_steps': 'auto'}
BEGUN = Curriculum((), Zone('readiness', 0.15, 'exact', ()), (), 123)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  path = tmp_path_factory.mktemp('budget')
  write_student(path / 'student')
  rows = word_problem_teacher.seeds()
  (path / 'seeds.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  plain = [{**r, 'solution': r['solution'].split()[-1]} for r in rows]
  (path / 'answers.jsonl').write_text('\n'.join(map(json.dumps, plain)))
  (path / 'taxonomy.yaml').write_text(
    'modules:\n- name: apples/two\n  prerequisites: [apples/one]\n'
    '- name: apples/one\n'
  )
  return path


def load(files, **changes):
  return config_lib.load(
    'smollm2_135m',
    {
      'domain.seeds': str(files / 'seeds.jsonl'),
      'domain.taxonomy': str(files / 'taxonomy.yaml'),
      'domain.min_probes': 4,
      'domain.max_probes': 4,
      'gate.min_probes': 4,
      'gate.max_rounds': 1,
      'gate.probe_every_steps': 4,
      'teacher.model': 'teacher',
      'student.model': str(files / 'student'),
      'train.row_length': 256,
      'train.steps_per_window': 3,
      'adapter.seeds_per_module': 10,
      **AUTO,
    }
    | changes,
  )


@pytest.fixture(scope='module')
def subject(files):
  config = load(files)
  grader = final_answers.KINDS['number']()
  domain = subject_lib.text_domain(config, grader)
  codec = vocabulary.ChatCodec(str(files / 'student'))
  examiner = subject_lib.text_examiner(config, domain, grader, codec, 'teacher')
  adapter = subject_lib.text_adapter(config, domain, examiner)
  return first_config.Untaught(domain, adapter, codec, None, None)


def test_it_is_counted_from_seeds_rows_and_epochs(files, subject):
  """By hand: two modules, ten seeds each, three lessons a seed."""
  config = load(files, **{'train.epochs': 40.0})
  rows = word_problem_teacher.seeds()
  known = {r['problem']: r['solution'] for r in rows}
  tokens = [
    len(subject.codec.prompt(p.prompt))
    + len(subject.codec.answer(known[p.prompt]))
    for p in subject.domain.probes('gate', 'steps')
  ]
  read = 60 * sum(tokens) / len(tokens) * 40 / (4 * 256)
  found = step_budget.measure(config, subject)
  assert found.lessons == {'apples/one': 30, 'apples/two': 30}
  assert found.auto == 3 * math.ceil(read / 3) > found.least
  # Two stages of two intervals of four steps, in three quarters of all.
  assert found.least == math.ceil(2 * 2 * 4 / 0.75)


@hypothesis.settings(deadline=None, max_examples=15)
@hypothesis.given(
  st.floats(0.01, 100),
  st.integers(1, 64),
  st.integers(1, 60),
  st.integers(0, 3),
  st.sampled_from([0.0, 0.25, 0.9]),
  st.sampled_from(['ioa', 'uniform_steps', 'ordered_no_gate']),
)
def test_enough_is_read_and_every_stage_fits(
  files, subject, epochs, rows, every, rounds, share, method
):
  config = load(
    files,
    **{
      'method': method,
      'train.epochs': epochs,
      'train.batch_rows': rows,
      'gate.probe_every_steps': every,
      'gate.max_rounds': rounds,
      'organizer.consolidation_share': share,
    },
  )
  work = step_budget.measure(config, subject)
  settled = step_budget.settle(config, work.auto)
  steps = settled.train.total_steps
  assert steps % 3 == 0 and steps >= epochs * work.epoch - 1e-6
  modules = subject.domain.MODULES
  assert not diagnosis.fit(settled, methods.of(settled), modules)
  # Not a window more than that takes.
  assert steps - 3 < max(epochs * work.epoch, work.least)


def test_answers_without_solutions_are_taken_for_worked_ones(files, subject):
  changes = {
    'domain.seeds': str(files / 'answers.jsonl'),
    'domain.columns.solution': '',
    'domain.columns.answer': 'solution',
  }
  bare = load(files, **changes)
  grader = final_answers.KINDS['number']()
  domain = subject_lib.text_domain(bare, grader)
  other = first_config.Untaught(
    domain, subject.adapter, subject.codec, None, None
  )
  found = step_budget.measure(bare, other)
  prompts = [
    len(subject.codec.prompt(p.prompt)) for p in domain.probes('gate', '')
  ]
  mean = sum(prompts) / len(prompts)
  assert found.lesson_tokens == pytest.approx(step_budget.WORKED + mean)


def test_a_run_that_continues_keeps_its_number(files):
  said = []
  # Nothing is counted again, so there need be no subject.
  config = step_budget.begin(load(files), None, BEGUN, said.append)
  assert config.train.total_steps == 123 and not said
  fixed = load(files, **{'train.total_steps': 60})
  assert step_budget.begin(fixed, None, BEGUN, said.append) is fixed


def test_a_run_has_the_number_and_its_directory_what_was_asked(tmp_path):
  settings = config_lib.load('quickstart', AUTO)
  workdir = tmp_path / 'run'
  with display_lib.Display(quiet=True) as display:
    opened = lambda: pipeline._opened(
      settings, workdir, display, people.NOTHING_GIVEN
    )
    with opened() as run:
      assert run.config.train.total_steps == 2000
      run.directory.write_record(rundir.CURRICULUM, BEGUN)
    kept = json.loads((workdir / 'config.json').read_text())
    assert kept['train']['total_steps'] == 'auto'
    # The same command goes on with what it began with.
    with opened() as run:
      assert run.config.train.total_steps == 123


SAID = r"'auto' is|never read|Fewer lessons"


@pytest.mark.parametrize(
  'changes,said',
  [
    ({}, ''),
    (
      {'train.epochs': 50.0} | AUTO,
      "'auto' is [0-9,]+: 50 passes over at most",
    ),
    ({'train.epochs': 0.1} | AUTO, "'auto' is 24: the fewest for 2 stages"),
    ({'train.total_steps': 2}, r'^2 steps read \d+% of at most 60 lessons'),
    (
      {'adapter.seeds_per_module': 1},
      r'apples/one \(3 for 4 probes\), apples/t',
    ),
    ({}, 'has 4 gate probes: a student at 80% .* in 27% of cases'),
    ({'gate.tau_mastery': 0.8}, 'in 17% of cases'),
  ],
)
def test_what_nothing_can_come_of_is_said_in_numbers(files, changes, said):
  config = load(files, **{'train.total_steps': 60} | changes)
  lines = pipeline.dry_run(config).splitlines()
  found = [x for x in lines if re.search(said or SAID, x)]
  assert bool(found) == bool(said), lines


def test_a_shipped_configuration_is_warned_of_nothing():
  """Quickstart reads its lessons, covers its probes and can tell luck."""
  projected = pipeline.dry_run(config_lib.load('quickstart'))
  assert not re.search(f'{SAID}|gate probes: a student', projected)
