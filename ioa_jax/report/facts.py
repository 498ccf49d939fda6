"""What the files say, put together: nothing here knows about HTML.

Several facts can be told by more than one file. A finished run is told by
results.json; before that, the events tell the same as far as they go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
import dataclasses
import hashlib
from typing import Any, TypeVar

from ioa_jax.records import DIFFICULTIES, Lesson, Probing, Supply, Training
from ioa_jax.report.charts import Span
from ioa_jax.report.read import Run

_MAX_SAMPLES = 2
_OWN = ('stage', 'bridging')
T = TypeVar('T')


def module_names(run: Run) -> list[str]:
  """Every module that any file knows, the domain's order first."""
  names = dict.fromkeys(run.diagnosis.modules if run.diagnosis else ())
  names |= dict.fromkeys(run.results.modules if run.results else ())
  for event in of_kind(run, Probing):
    names |= dict.fromkeys(event.scores)
  return list(names)


def of_kind(run: Run, kind: type[T]) -> list[T]:
  """The events of one kind, in order."""
  return [e for e in run.events if isinstance(e, kind)]


def last_step(run: Run) -> int:
  return max((e.step for e in run.events), default=0)


def total_steps(run: Run) -> int:
  """The length of the time axis: what was planned, or more if more was run."""
  planned = run.curriculum.total_steps if run.curriculum else 0
  return max(planned, last_step(run))


def spans(run: Run) -> list[Span]:
  """When each stage was trained: until the last step that was charged to it."""
  end: dict[int, int] = {}
  for event in run.events:
    if isinstance(event, Training | Probing):
      end[event.stage] = max(end.get(event.stage, 0), event.step)
  found, start = [], 0
  for stage in sorted(end):
    found.append(Span(stage, start, max(start, end[stage])))
    start = found[-1].end
  return found


@dataclasses.dataclass(frozen=True)
class StageStory:
  """One stage: the plan, what the gate decided, and how it ended.

  Attributes:
    modules, kind: what it teaches, and whether it can be left by mastery.
    max_steps, readiness: of the plan; None without curriculum.json.
    steps: optimizer steps it took.
    rounds: remedial rounds it was given.
    outcome: of a `StageResult`, or 'running'.
    untaught: modules of it that no lesson could be had of.
    gates: probe events, in order.
    supplies: supply events, in order.
  """

  index: int
  modules: Sequence[str]
  kind: str
  max_steps: int | None
  readiness: float | None
  span: Span | None
  steps: int
  rounds: int
  outcome: str
  untaught: Sequence[str]
  gates: Sequence[Probing]
  supplies: Sequence[Supply]

  def lessons(self) -> dict[str, int]:
    """How many lessons each kind of supply brought."""
    count: Counter[str] = Counter()
    for supply in self.supplies:
      count[supply.kind] += supply.lessons
    # The stage's own lessons first.
    return dict(sorted(count.items(), key=lambda c: c[0] not in _OWN))


def stages(run: Run) -> list[StageStory]:
  """Every planned stage, and any further one that the events mention."""
  plan = run.curriculum.stages if run.curriculum else ()
  ended = run.results.stages if run.results else ()
  span_of = {s.stage: s for s in spans(run)}
  count = max(len(plan), len(ended), *(s + 1 for s in span_of), 0, 0)
  untaught = {name for e in of_kind(run, Supply) for name in e.untaught}
  stories = []
  for i in range(count):
    gates = [e for e in of_kind(run, Probing) if e.stage == i]
    supplies = [e for e in of_kind(run, Supply) if e.stage == i]
    known = (*ended[i : i + 1], *plan[i : i + 1], None)[0]
    span = span_of.get(i)
    end = ended[i] if i < len(ended) else None
    stories.append(
      StageStory(
        index=i,
        modules=known.modules if known else (),
        kind=known.kind if known else 'teach',
        max_steps=plan[i].max_steps if i < len(plan) else None,
        readiness=plan[i].readiness if i < len(plan) else None,
        span=span,
        steps=end.steps if end else span.end - span.start if span else 0,
        rounds=end.remedial_rounds
        if end
        else sum(g.decision == 'remediate' for g in gates),
        outcome=end.outcome if end else _outcome_so_far(span, gates),
        untaught=[n for n in known.modules if n in untaught] if known else [],
        gates=gates,
        supplies=supplies,
      )
    )
  return stories


def _outcome_so_far(span, gates):
  decisions = {g.decision for g in gates}
  if 'advance' in decisions:
    return 'mastered'
  if 'stall' in decisions:
    return 'unmastered'
  return 'running' if span else 'not_reached'


def mastery_points(run: Run, name: str) -> list[tuple[int, float]]:
  """(step, mastery by the gate probes), from the diagnosis at step 0 on.

  Mastery is the student's score over the teacher's, as the gate has it.
  """
  teacher = _teacher(run, name)
  if not teacher:
    return []
  points = [(0, run.diagnosis.modules[name].student.mean)]
  for event in of_kind(run, Probing):
    if name in event.scores:
      points.append((event.step, event.scores[name].mean))
  return [(s, p / teacher) for s, p in points if p is not None]


def end_mastery(run: Run, name: str) -> float | None:
  """Mastery at the end, by the held-out probes."""
  module = run.results.modules.get(name) if run.results else None
  return module.after / module.teacher if module and module.teacher else None


def _teacher(run: Run, name: str) -> float | None:
  module = run.diagnosis.modules.get(name) if run.diagnosis else None
  return module.teacher.mean if module else None


def threshold(run: Run) -> float | None:
  """The mastery at which the gate lets a module go."""
  gate = (run.config or {}).get('gate')
  tau = gate.get('tau_mastery') if isinstance(gate, dict) else None
  return tau if isinstance(tau, (int, float)) else None


def weakest(
  run: Run, event: Probing, modules: Sequence[str]
) -> tuple[str, float] | None:
  """The module that a gate decision hung on, with its mastery."""
  mastery = {
    k: v.mean / (_teacher(run, k) or 1.0)
    for k, v in event.scores.items()
    if v.n and (k in modules or not modules)
  }
  return min(mastery.items(), key=lambda item: item[1], default=None)


def forgetting(run: Run) -> list[dict[str, Any]]:
  """Rows `{label, stage, step, scores}`: before, then after each stage.

  Before results.json exists the probe that left a stage has asked every module,
  and tells the same. The last row is the end, by the held-out probes.
  """
  rows = []
  if run.diagnosis:
    scores = {k: m.student.mean for k, m in run.diagnosis.modules.items()}
    rows.append({'stage': None, 'step': 0, 'scores': scores})
  if run.results:
    found = [
      {'stage': f.after_stage, 'step': f.step, 'scores': f.scores}
      for f in run.results.forgetting
    ]
  else:
    found = [
      {
        'stage': e.stage,
        'step': e.step,
        'scores': {k: v.mean for k, v in e.scores.items()},
      }
      for e in of_kind(run, Probing)
      if e.decision in ('advance', 'stall')
    ]
  if run.results:
    scores = {k: m.after for k, m in run.results.modules.items()}
    found.append({'stage': 'end', 'step': last_step(run), 'scores': scores})
  return rows + found if found else []


def alarms(run: Run) -> list[tuple[int, str]]:
  """(step, module) whenever a mastered module was found fallen."""
  found, open_before = [], set()
  for event in of_kind(run, Probing):
    now = set(event.reopened)
    found += [(event.step, name) for name in sorted(now - open_before)]
    open_before = now
  return found


def rejected(run: Run) -> dict[str, int]:
  """Why lessons were thrown away, over all supplies, most frequent first."""
  count: Counter[str] = Counter()
  for event in of_kind(run, Supply):
    count.update(event.rejected)
  return dict(count.most_common())


def spending(run: Run) -> list[dict[str, Any]]:
  """Rows `{label, usd}` in three groups: by kind, by stage, by module."""
  money = run.results.money if run.results else None
  if money is None:
    return []
  sides = {
    'kind': lambda row: f'{row.kind} lessons',
    'stage': lambda row: f'stage {row.stage + 1}',
    'module': lambda row: row.module,
  }
  groups = []
  for title, label in sides.items():
    sums: Counter[str] = Counter()
    for row in money.lessons:
      sums[label(row)] += row.usd
    if title == 'kind':
      sums['probes and all else'] = money.other_usd
    groups.append({'title': title, 'sums': dict(sums)})
  return groups


# Measure to (what the strategy is for, unit, whether it is a share).
_MEASURES = {
  'steps': ('decompose', 'steps per solution', False),
  'words': ('plain language', 'words per sentence', False),
  'rare words': (
    'plain language',
    "words outside the seeds' common ones",
    True,
  ),
  'digits': ('cognitive load', 'digits per number of the problem', False),
  'numbers': ('cognitive load', 'numbers per problem', False),
  'template': ('one template', 'steps that open with First, Next, ...', True),
  'analogies': ('concretise', 'texts with the words of an analogy', True),
}


def adaptation(run: Run) -> list[dict[str, Any]]:
  """What the strategies did: raw seeds beside the lessons made from them.

  Sums over all deliveries, so a seed weighs as often as it was used.
  """
  measured = [e.measures for e in of_kind(run, Supply)]
  rows = []
  for name, (strategy, unit, share) in _MEASURES.items():
    value = {}
    for side in ('seeds', 'lessons'):
      sums = [getattr(m, side)[name] for m in measured if name in m.seeds]
      n = sum(s.n for s in sums)
      value[side] = sum(s.sum for s in sums) / n if n else None
    if value['lessons'] is not None:
      rows.append({'strategy': strategy, 'unit': unit, 'share': share, **value})
  flags = (
    'concretization',
    'decomposition',
    'format_template',
    'simplified_language',
  )
  for flag in flags if rows else ():
    claimed = [lesson.adapter_flags[flag] for lesson in run.lessons]
    if claimed:
      rows.append(
        {
          'strategy': flag.replace('_', ' '),
          'unit': 'lessons flagged so',
          'share': True,
          'seeds': None,
          'lessons': sum(claimed) / len(claimed),
        }
      )
  return rows


def lesson_samples(run: Run) -> list[tuple[str, list[Lesson]]]:
  """A few lessons of each module, as different as possible.

  A decomposed and a direct one where both exist, else different kinds, else
  different difficulties.
  """
  by_module: dict[str, list[Lesson]] = {}
  for lesson in run.lessons:
    by_module.setdefault(lesson.module, []).append(lesson)
  order = [n for n in module_names(run) if n in by_module]
  order += [n for n in by_module if n not in order]
  return [(name, _unlike(by_module[name])) for name in order]


def _unlike(lessons):
  chosen = [lessons[0]]
  # Where nothing is decomposed, lessons are alike but for their numbers.
  most = _MAX_SAMPLES if any(map(_decomposed, lessons)) else 1
  while len(chosen) < most:
    best = max(lessons, key=lambda l: min(_distance(l, c) for c in chosen))
    if not any(_distance(best, c) for c in chosen):
      break
    chosen.append(best)
  return chosen


def _distance(a, b):
  return (
    4 * (_decomposed(a) != _decomposed(b))
    + 2 * (a.metadata['kind'] != b.metadata['kind'])
    + abs(_difficulty(a) - _difficulty(b)) / 2
  )


def _decomposed(lesson):
  return lesson.adapter_flags['decomposition']


def _difficulty(lesson):
  tag = lesson.difficulty_tag
  return DIFFICULTIES.index(tag) if tag in DIFFICULTIES else len(DIFFICULTIES)


def identity(run: Run) -> dict[str, Any]:
  """The configuration's hash as recorded and as it is now, and the command."""
  text = run.config_text
  now = hashlib.sha256(text.encode()).hexdigest() if text is not None else None
  recorded = run.results.config_sha256 if run.results else None
  return {
    'sha256': recorded or now,
    'changed': bool(recorded and now and recorded != now),
    'seed': run.results.seed if run.results else (run.config or {}).get('seed'),
    'starts': run.starts,
    'fields': _flatten(run.config or {}),
  }


def _flatten(value: Any, prefix: str = '') -> list[tuple[str, Any]]:
  if not isinstance(value, dict):
    return [(prefix, value)]
  return [
    leaf
    for key, child in value.items()
    for leaf in _flatten(child, f'{prefix}.{key}' if prefix else key)
  ]
