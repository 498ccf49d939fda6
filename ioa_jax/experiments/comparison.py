"""Run directories of a plan to the numbers of its page.

Reads files only. The first run of the plan is what the others are held against,
seed by seed. How it is shown is in `comparison_page`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from ioa_jax.evaluation import intervals
from ioa_jax.experiments import comparison_page, paired
from ioa_jax.experiments.paired import Estimate, Scores
from ioa_jax.records import Probing, Results, Training
from ioa_jax.report import read as read_lib
from ioa_jax.runtime import files

_CURVE_POINTS = 60


@dataclasses.dataclass(frozen=True)
class Run:
  """One finished run.

  Attributes:
    curve: (student tokens, mean of `min(1, P_S / P_T)` over the modules that
      were deficient) at every probing round of all of them. Rounds of some are
      left out: the others' scores would be of older students.
    mastered_at: student tokens when one such round first found all of them at
      or above the gate's threshold; None if none did.
  """

  seed: int
  results: Results
  curve: Sequence[tuple[int, float]]
  mastered_at: int | None


def read(directory: pathlib.Path) -> Run:
  """Reads a finished run.

  Raises:
    ValueError: if a file is missing or damaged.
  """
  run = read_lib.read(directory)
  if not run.results or not run.diagnosis or not run.config:
    raise ValueError(
      f'{directory}: not a finished run; it has no {run.absent[0]}.'
    )
  modules = run.diagnosis.modules
  # The unteachable have no score to be measured against.
  teacher = {k: m.teacher.mean for k, m in modules.items() if m.teacher.correct}
  lacking = [k for k in teacher if modules[k].status in ('deficient', 'target')]
  tau = run.config['gate']['tau_mastery']
  tokens, mastered_at = 0, None
  curve = []

  def learnt(score):
    ratios = [score[k].mean / teacher[k] for k in lacking]
    curve.append((tokens, float(np.mean(np.minimum(1.0, ratios)))))
    return min(ratios) >= tau

  if lacking:
    learnt({k: modules[k].student for k in lacking})
  for event in run.events:
    if isinstance(event, Training):
      tokens = event.tokens
    elif isinstance(event, Probing) and lacking:
      if event.scores.keys() >= set(lacking) and learnt(event.scores):
        mastered_at = tokens if mastered_at is None else mastered_at
  return Run(run.results.seed, run.results, curve, mastered_at)


def scores_of(runs: Sequence[Run], modules: Sequence[str]) -> Scores:
  """Held-out grades of `modules`, of every seed.

  Raises:
    ValueError: for a module that the domain does not have, and for runs that
      were not asked the same probes.
  """
  places: dict[str, list[str]] = {}
  for probe in runs[0].results.grades:
    # As `Probe` says: split/module/index.
    places.setdefault(probe.partition('/')[2].rpartition('/')[0], []).append(
      probe
    )
  if unknown := [m for m in modules if m not in places]:
    raise ValueError(f'a group of the plan names {unknown}; of {list(places)}.')
  for run in runs:
    if run.results.grades.keys() != runs[0].results.grades.keys():
      raise ValueError(
        f'seeds {runs[0].seed} and {run.seed} were asked other probes; compare '
        'runs with one domain and one domain.evaluate_on.'
      )
  grades = lambda field, probes: np.array(
    [[getattr(r.results.grades[p], field) for p in probes] for r in runs],
    np.float64,  # None is NaN.
  )
  return Scores(
    [
      paired.Module(grades('after', places[m]), grades('teacher', places[m]))
      for m in modules
    ]
  )


def summarize(
  runs: Mapping[str, Sequence[Run]], groups: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
  """Per name, all numbers of the page; `runs` has the same seeds in each."""
  first = next(iter(runs))
  everything = list(runs[first][0].results.modules)
  found = {
    score: {name: scores_of(mine, modules) for name, mine in runs.items()}
    for score, modules in {'retention': everything, **groups}.items()
  }
  return {
    name: {
      'seeds': [r.seed for r in mine],
      'scores': {
        score: _score(by_name[name], None if name == first else by_name[first])
        for score, by_name in found.items()
      },
    }
    | _account(mine, runs[first])
    for name, mine in runs.items()
  }


def _score(mine: Scores, first: Scores | None) -> Estimate:
  """A run's score and, if it is not the first, how it stands to that."""
  found = paired.estimate([mine], lambda x: x)
  if first is not None:
    ahead = paired.estimate([first, mine], lambda x, y: x - y)
    found['behind_first'] = ahead
    found['p'] = intervals.swap_p(first.by_seed(), mine.by_seed())
    if all(mine.by_seed()):
      found['relative_gain_of_first'] = paired.estimate(
        [first, mine], lambda x, y: x / np.maximum(y, 1e-9) - 1
      )
  return found


def _account(mine: Sequence[Run], first: Sequence[Run]) -> dict[str, Any]:
  """What a run cost, and what else became of it."""
  form = lambda r: r.results.answer_format
  same_form = form(mine[0]) == form(first[0])
  stages = [s for r in mine for s in r.results.stages if s.kind == 'teach']
  # References of another form are other texts.
  losses = [loss(r) if same_form else None for r in mine]
  fallen = [forgotten(r) for r in mine]
  return {
    'answer_format': form(mine[0]),
    'teacher': _mean(r.results.teacher.score for r in mine),
    'student': _mean(r.results.student.score_after for r in mine),
    # Of the reference answers, in nats per token; None where unknown, or
    # where they are written in another form than the first run's.
    'held_out_loss': None if None in losses else over_seeds(losses),
    'stages': len(stages),
    'mastered': sum(s.outcome == 'mastered' for s in stages),
    'remediated': sum(s.remedial_rounds > 0 for s in stages),
    'stalled': sum(s.outcome == 'unmastered' for s in stages),
    'all_mastered_at': [r.mastered_at for r in mine],
    # Gate scores of another form are held against another score of the
    # teacher.
    'caught_up_after': [caught_up_after(a, b) for a, b in zip(first, mine)]
    if same_form
    else None,
    'forgotten': None if None in fallen else over_seeds(fallen),
    'lessons': _mean(r.results.lessons for r in mine),
    'student_tokens': _mean(r.results.tokens.student_train for r in mine),
    # Beside training: probes, scores, texts of its own, the learner panel.
    'beside_tokens': _mean(map(beside, mine)),
    'teacher_tokens': _mean(r.results.tokens.teacher_generated for r in mine),
    # Teaching and evaluating: what the teacher writes is paid for by the
    # first run that asks.
    'seconds': _mean(
      r.results.seconds['train'] + r.results.seconds['evaluate'] for r in mine
    ),
    'compilations': max(r.results.compilations for r in mine),
    'curve': curve(mine),
  }


def over_seeds(values: Sequence[float]) -> Estimate:
  """A mean with its interval over seeds alone; None for one seed."""
  values = [float(v) for v in values]
  ends = intervals.bootstrap_mean(values, seed=0, resamples=paired.RESAMPLES)
  return {
    'mean': float(np.mean(values)),
    'ci95': ends and list(ends),
    'by_seed': values,
  }


def caught_up_after(run: Run, other: Run) -> float | None:
  """When `run` first reached the other's last gate score.

  As a share of the tokens that the other took to its end; None is never.
  """
  if not other.curve:
    return None
  total, last = other.curve[-1]
  reached = [tokens for tokens, score in run.curve if score >= last - 1e-9]
  return reached[0] / max(total, 1) if reached else None


def _mean(values: Iterable[float]) -> float:
  return float(np.mean(list(values)))


def beside(run: Run) -> int:
  """Tokens of the student, and of learners, that trained no student."""
  return run.results.tokens.student_inferred + run.results.tokens.panel


def loss(run: Run) -> float | None:
  """Mean over modules of the student's loss on held-out reference answers."""
  found = [m.loss_after for m in run.results.modules.values()]
  known = [x for x in found if x is not None]
  return float(np.mean(known)) if known else None


def forgotten(run: Run) -> float | None:
  """Mean over modules of the fall from the best gate score to the last one.

  Only of the ends of stages, at which every module is probed; None if there is
  no second one.
  """
  rows = [row.scores for row in run.results.forgetting]
  if len(rows) < 2:
    return None
  return float(
    np.mean([max(r[k] for r in rows) - rows[-1][k] for k in rows[-1]])
  )


def curve(runs: Sequence[Run]) -> list[tuple[float, float]]:
  """The mean curve of several seeds on one grid of tokens.

  Between two rounds it is the older one, so it never runs ahead; empty where
  nothing was to be learned.
  """
  if not all(r.curve for r in runs):
    return []
  last = min(r.curve[-1][0] for r in runs)
  grid = np.linspace(0, last, _CURVE_POINTS)
  values = []
  for run in runs:
    tokens, score = map(np.array, zip(*run.curve))
    values.append(score[np.searchsorted(tokens, grid, side='right') - 1])
  return [(float(t), float(v)) for t, v in zip(grid, np.mean(values, axis=0))]


@dataclasses.dataclass(frozen=True, kw_only=True)
class About:
  """What a page says beside its numbers.

  Attributes:
    says: the question.
    rivals: runs, the best of which the answer is about; () is all.
    untried: what it does not answer.
    groups: name to modules whose mean score is shown by itself; the answer is
      about the first.
    provenance: where the numbers come from.
  """

  title: str
  says: str
  rivals: Sequence[str]
  untried: Sequence[str]
  groups: Mapping[str, Sequence[str]]
  provenance: Mapping[str, str]


def write(
  workdir: pathlib.Path,
  directories: Sequence[tuple[str, pathlib.Path]],
  about: About,
) -> dict[str, Any]:
  """Writes table.json, table.md and comparison.html; returns the first.

  Args:
    directories: (name, directory) of finished runs, names in the plan's order.
  """
  runs: dict[str, list[Run]] = {}
  for name, directory in directories:
    runs.setdefault(name, []).append(read(directory))
  found = {
    **dataclasses.asdict(about),
    'rivals': [name for name in about.rivals if name in runs],
    'summary': summarize(runs, about.groups),
  }
  texts = {
    'table.json': json.dumps(found, indent=2) + '\n',
    'table.md': comparison_page.results_page(found),
    'comparison.html': comparison_page.render(found),
  }
  for name, text in texts.items():
    files.write_text(workdir / name, text)
  return found
