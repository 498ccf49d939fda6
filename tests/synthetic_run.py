"""A run directory as a run of the built-in domain would leave it, in a second.

Learning curves are invented, everything else follows from them by the rules of
docs/method.md, so that a report can be checked against independent numbers.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import pathlib

import numpy as np

from ioa_jax.domains import arithmetic
from ioa_jax.evaluation.intervals import wilson
from ioa_jax.records import Lesson

GATE_N, HELD_OUT_N, TAU = 32, 48, 0.9
TEACHER = {'division/long': 31, 'mixed/product_sum': 30}
KNOWN = arithmetic.EASY_MODULES
STAGES = [
  ('teach', ['addition/three_digit', 'multiplication/table']),
  ('teach', ['multiplication/two_by_one', 'division/remainder']),
  ('teach', ['multiplication/two_by_teen', 'equations/linear']),
  ('teach', ['division/long', 'mixed/product_sum']),
]
TARGETS = [m for _, stage in STAGES for m in stage]
EVERY, STAGE_STEPS, REMEDIAL_STEPS, TOTAL = 25, 300, 75, 2200
NAMES = [m.name for m in arithmetic.MODULES]


def write(path: pathlib.Path, seed: int = 0) -> dict:
  """Writes all files into `path`; returns what they say, by file name."""
  rng = np.random.default_rng(seed)
  config = _config()
  text = json.dumps(config, indent=2, sort_keys=True) + '\n'
  diagnosis = _diagnosis(rng)
  events, stages, forgetting, score = _train(rng, diagnosis)
  files = {
    'config.json': config,
    'diagnosis.json': diagnosis,
    'curriculum.json': _curriculum(diagnosis),
    'lessons.jsonl': _lessons(rng),
    'metrics.jsonl': events,
    'results.json': _results(diagnosis, events, stages, forgetting, score)
    | {'config_sha256': hashlib.sha256(text.encode()).hexdigest()},
  }
  files['answers.jsonl'] = _answers(files['results.json'])
  save(path, files)
  return files


def save(path: pathlib.Path, files: dict) -> None:
  """Writes `files` as they are; lists as one JSON value a line."""
  path.mkdir(parents=True, exist_ok=True)
  for name, value in files.items():
    if name.endswith('.jsonl'):
      text = ''.join(json.dumps(v) + '\n' for v in value)
    else:
      text = json.dumps(value, indent=2, sort_keys=name == 'config.json') + '\n'
    (path / name).write_text(text, encoding='utf-8')


def _config():
  return {
    'seed': 7,
    'domain': 'arithmetic',
    'teacher': {'model': 'builtin', 'max_completion_tokens': 2_000_000},
    'identifier': {'tau_gap': 0.3, 'alpha': 0.7, 'target_share': 1.0},
    'organizer': {'tau_zpd': 0.15, 'zpd': 'readiness'},
    'gate': {
      'tau_mastery': TAU,
      'probe_every_steps': EVERY,
      'max_rounds': 2,
      'on_stall': 'advance',
    },
    'train': {'total_steps': TOTAL, 'replay_share': 0.3},
  }


def _counts(correct, n=GATE_N):
  return {'correct': int(correct), 'n': n}


def _diagnosis(rng):
  modules, wrong = {}, {}
  for m in arithmetic.MODULES:
    teacher = _counts(TEACHER.get(m.name, GATE_N))
    known = m.name in KNOWN
    student = _counts(
      GATE_N - rng.integers(0, 3) if known else rng.integers(0, 9)
    )
    gap = max(0.0, 1 - student['correct'] / teacher['correct'])
    modules[m.name] = {
      'description': m.description,
      'prerequisites': list(m.prerequisites),
      'level': m.level,
      'teacher': teacher,
      'student': student,
      'student_loss': None,
      'teacher_loss': None,
      'teacher_ci95': list(wilson(**teacher)),
      'student_ci95': list(wilson(**student)),
      'gap': gap,
      'severity': gap,
      'status': 'known' if known else 'target',
    }
    wrong[m.name] = []
    for _ in range(min(8, student['n'] - student['correct'])):
      problem = arithmetic.training_problem(m.name, rng)
      wrong[m.name].append(
        {
          'prompt': problem.prompt('steps'),
          'answer': problem.answer,
          'student': str(int(rng.integers(0, 9999))),
        }
      )
  edges = [
    {'from': p, 'to': m.name, 'strength': None}
    for m in arithmetic.MODULES
    for p in m.prerequisites
  ]
  return {
    'domain': 'arithmetic',
    'modules': modules,
    'dependency': {
      'source': 'given',
      'note': 'The domain states its prerequisites; they were not estimated.',
      'edges': edges,
      'removed': [],
      'graphs': {},
      'agreement': [],
    },
    'thresholds': {'tau_gap': 0.3, 'alpha': 0.7, 'target_share': 1.0},
    'wrong_answers': {k: w for k, w in wrong.items() if w},
    'difficulty': None,
    'teacher_held_out': {},
    'teacher_grades': {},
    'tokens': {},
    'seconds': 14.2,
  }


def _readiness(diagnosis, names):
  student = [diagnosis['modules'][k]['student'] for k in names]
  return float(np.mean([s['correct'] / s['n'] for s in student]))


def _curriculum(diagnosis):
  stages = [
    {
      'modules': modules,
      'kind': kind,
      'readiness': _readiness(diagnosis, modules),
      'max_steps': STAGE_STEPS,
      'remedial_steps': REMEDIAL_STEPS,
    }
    for kind, modules in [*STAGES, ('consolidate', TARGETS)]
  ]
  ready = [s['readiness'] for s in stages[:-1]]
  return {
    'stages': stages,
    'zpd': {
      'mode': 'readiness',
      'tau': 0.15,
      'response': 'exact',
      'checks': [
        {'before': a, 'after': b, 'limit': 0.15 * a, 'holds': a - b <= 0.15 * a}
        for a, b in itertools.pairwise(ready)
      ],
    },
    'rehearsed': list(KNOWN),
    'total_steps': TOTAL,
  }


# Of each teach stage: how its score saturates, in steps; 2 passes after one
# remedial round and 3 stalls.
_PACE = {0: 60.0, 1: 80.0, 2: 170.0, 3: 420.0}


def _train(rng, diagnosis):
  """Plays the gate's rules on invented curves."""
  score = {k: m['student']['correct'] for k, m in diagnosis['modules'].items()}
  events, stages, forgetting, step = [], [], [], 0
  supply = lambda stage, kind, names, lessons: events.append(
    {
      'event': 'supply',
      'step': step,
      'stage': stage,
      'kind': kind,
      'modules': list(names),
      'lessons': lessons,
      'rejected': {'wrong answer': int(rng.integers(0, 9))},
      'teacher_tokens': 14 * lessons,
      'untaught': [],
      'measures': {'seeds': {}, 'lessons': {}},
    }
  )
  supply(0, 'rehearsal', KNOWN, 1200)
  for index, (kind, modules) in enumerate([*STAGES, ('consolidate', TARGETS)]):
    start, rounds, decision = step, 0, 'stay'
    if kind == 'teach':
      supply(index, 'stage', modules, 1180)
    first = {k: score[k] for k in modules}
    while decision in ('stay', 'remediate') and step < TOTAL:
      step += EVERY
      events.append(
        {
          'event': 'train',
          'step': step,
          'stage': index,
          'train/loss': float(
            0.04
            + 1.9 * np.exp(-step / 260) * (1 + 0.1 * rng.random())
            + 0.5 * np.exp(-(step - start) / 40)
          ),
          'train/grad_norm': 1.0,
          'train/learning_rate': 4e-3,
          'train/tokens': 1500 * step,
        }
      )
      pace = _PACE.get(index, 200.0)
      for k in modules:
        rise = 1 - np.exp(-(step - start) / pace)
        noise = rng.integers(-1, 2)
        score[k] = int(
          np.clip(first[k] + (GATE_N - first[k]) * rise + noise, 0, GATE_N)
        )
      passed = all(
        score[k] >= TAU * diagnosis['modules'][k]['teacher']['correct']
        for k in modules
      )
      round_now = rounds
      if kind == 'consolidate':
        decision = 'stay'
      elif passed:
        decision = 'advance'
      elif step - start >= STAGE_STEPS + rounds * REMEDIAL_STEPS:
        decision = 'remediate' if rounds < 2 else 'stall'
      else:
        decision = 'stay'
      asked = list(modules)
      if decision in ('advance', 'stall'):
        for k in (k for k in TARGETS if k not in modules):
          if any(k in m for _, m in STAGES[:index]):
            score[k] = max(0, score[k] - int(rng.integers(0, 6)))
        asked = NAMES
      events.append(
        {
          'event': 'probe',
          'step': step,
          'stage': index,
          'round': round_now,
          'decision': decision,
          'scores': {k: _counts(score[k]) for k in asked},
          'reopened': list(STAGES[0][1][:1]) if index == 2 else [],
        }
      )
      if decision == 'remediate':
        rounds += 1
        supply(index, 'remedial', modules[-1:], 236)
    if asked is NAMES or kind == 'consolidate':
      forgetting.append(
        {
          'after_stage': index,
          'step': step,
          'scores': {k: v / GATE_N for k, v in score.items()},
        }
      )
    stages.append(
      {
        'modules': list(modules),
        'untaught': [],
        'kind': kind,
        'steps': step - start,
        'remedial_rounds': rounds,
        'outcome': 'mastered' if passed else 'unmastered',
      }
    )
  return events, stages, forgetting, score


def _lessons(rng):
  lessons = []
  for stage, (_, modules) in enumerate(STAGES):
    for module in modules:
      for i in range(12):
        problem = arithmetic.training_problem(module, rng)
        direct = i % 4 == 3 or not arithmetic.has_steps(module)
        text = problem.completion('direct' if direct else 'steps')
        prerequisites = diagnosis_prerequisites(module)
        lessons.append(
          Lesson(
            module=module,
            prereq=tuple(prerequisites),
            difficulty_tag=problem.difficulty_tag,
            problem=problem.prompt('direct' if direct else 'steps'),
            completion=text,
            solution={
              'steps': text.split(';'),
              'final_answer': problem.answer,
              'verification': 'every call recomputed, answer compared exactly',
            },
            adapter_flags={
              'concretization': False,
              'decomposition': not direct,
              'cognitive_load': {
                'scale': problem.difficulty_tag,
                'notes': f'operands {list(problem.operands)}',
              },
              'format_template': True,
              'simplified_language': False,
            },
            metadata={
              'stage_id': stage,
              'seed_style_ref': problem.text,
              'kind': 'remedial' if i % 5 == 4 else 'stage',
              'round': 0,
              'teacher': 'builtin',
              'request': f'{i:064x}',
            },
          ).to_dict()
        )
  return lessons


def diagnosis_prerequisites(module):
  return next(m.prerequisites for m in arithmetic.MODULES if m.name == module)


def _answers(results):
  """Held-out answers whose means are the scores; every other wrong one is cut
  off, which the results count."""
  rng = np.random.default_rng(5)
  lines = []
  for name, m in results['modules'].items():
    for index in range(HELD_OUT_N):
      problem = arithmetic.training_problem(name, rng)
      line = {
        'module': name,
        'probe_id': f'held_out/{name}/{index}',
        'prompt': problem.prompt('steps'),
        'answer': problem.answer,
      }
      for when in ('before', 'after'):
        right = index < round(HELD_OUT_N * m[when])
        line[when] = {
          'text': f'{when} {index}: {problem.answer if right else "1R2"}',
          'score': float(right),
          'truncated': not right and index % 2 == 1,
        }
      lines.append(line)
  for when in ('before', 'after'):
    count = sum(line[when]['truncated'] for line in lines)
    results['student'][f'truncated_{when}'] = count
  return lines


def _results(diagnosis, events, stages, forgetting, score):
  modules = {}
  for k, m in diagnosis['modules'].items():
    after = round(score[k] / GATE_N * HELD_OUT_N)
    modules[k] = {
      'teacher': round(m['teacher']['correct'] / GATE_N * HELD_OUT_N)
      / HELD_OUT_N,
      'before': round(m['student']['correct'] / GATE_N * HELD_OUT_N)
      / HELD_OUT_N,
      'after': after / HELD_OUT_N,
      'ci95': list(wilson(after, HELD_OUT_N)),
      'n': HELD_OUT_N,
      'loss_before': None,
      'loss_after': None,
    }
  mean = lambda field: float(np.mean([m[field] for m in modules.values()]))
  supplies = [e for e in events if e['event'] == 'supply']
  return {
    'domain': 'arithmetic',
    'method': 'ioa',
    'answer_format': 'steps',
    'teacher': {
      'name': 'builtin',
      'params': 1_021_440,
      'score': mean('teacher'),
    },
    'student': {
      'name': 'builtin-base',
      'params': 86_016,
      'score_before': mean('before'),
      'score_after': mean('after'),
    },
    'retention': mean('after') / mean('teacher'),
    'verdict': {
      'kind': 'better',
      'difference': mean('after') - mean('before'),
      'ci95': [0.1, 0.9],
      'fallen': [],
    },
    'modules': modules,
    'grades': {},
    'stages': stages,
    'reopened': {},
    'forgetting': forgetting,
    'tokens': {
      'student_train': 1500 * TOTAL,
      'teacher_generated': sum(s['teacher_tokens'] for s in supplies),
      'teacher_cached': 16_380,
      'teacher_scored': 0,
      'student_inferred': 0,
      'panel': 0,
    },
    'lessons': sum(s['lessons'] for s in supplies),
    'steps': {'planned': TOTAL, 'taken': TOTAL, 'exported': TOTAL},
    'compilations': 1,
    'seconds': {
      'diagnose': 14.2,
      'synthesise': 121.5,
      'train': 602.0,
      'evaluate': 9.4,
      'total': 751.3,
    },
    'seed': 7,
  }
