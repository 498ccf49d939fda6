"""A server that knows a tiny domain of word problems, for tests.

It solves `NAME has A apples and gets B more. How many?` and writes lessons of
the two units of `SEEDS`. Some lessons are wrong on purpose.
"""

from __future__ import annotations

import json
import re
import zlib

from tests import faulty_server

UNITS = ('apples/one', 'apples/two')


def problem(unit: str, a: int, b: int) -> tuple[str, int]:
  if unit == UNITS[0]:
    return f'Ann has {a} apples and gets {b} more. How many?', a + b
  return (
    f'Ann has {a} apples and gets {b} more. She loses 1. How many?',
    a + b - 1,
  )


def seeds() -> list[dict]:
  rows = []
  for unit in UNITS:
    for n in range(40):
      text, answer = problem(unit, n, n % 7)
      rows.append(
        {
          'module': unit,
          'problem': text,
          'solution': f'First, count.\n#### {answer}',
        }
      )
  return rows


def solve(text: str) -> int:
  a, b = map(int, re.findall(r'\d+', text)[:2])
  return a + b - ('loses 1' in text)


def lesson(prompt: str) -> str:
  """A lesson as asked for; every fifth is wrong, every seventh no JSON."""
  unit = re.search(r'"module" is "(.*?)"', prompt)[1]
  variant = int(re.search(r'Variant (\d+)', prompt)[1])
  text, answer = problem(unit, 100 + variant, 3 + variant % 50)
  if variant % 7 == 6:
    return 'I would rather not.'
  return json.dumps(
    draft(
      unit,
      text,
      [f'First, add the numbers in variant {variant}.'],
      str(answer + (variant % 5 == 4)),
    )
  )


def draft(module: str, problem: str, steps: list[str], answer: str) -> dict:
  """What a teacher answers, with all keys of the paper."""
  return {
    'module': module,
    'prereq': [],
    'difficulty_tag': 'introductory',
    'problem': problem,
    'solution': {
      'steps': steps,
      'final_answer': answer,
      'verification': 'counted',
    },
    'adapter_flags': {
      'concretization': True,
      'decomposition': True,
      'cognitive_load': {'scale': 'small', 'notes': ''},
      'format_template': True,
      'simplified_language': True,
    },
    'metadata': {'stage_id': 0, 'seed_style_ref': ''},
  }


def written(prompt: str) -> str:
  """A problem of the unit that a prompt shows, another for another prompt."""
  unit = UNITS['loses 1' in prompt]
  number = zlib.crc32(prompt.encode())
  text, _ = problem(unit, 100 + number % 5000, 3 + number % 50)
  return json.dumps({'problem': text})


def marks(prompt: str) -> str:
  """Of two answers, or one; every other wrong one is found good all the same.

  The first place gets a mark more: a referee has to be asked in both orders.
  """
  parts = re.split(r'\n\n(?:First |Second )?[Aa]nswer:\n\n', prompt)
  right = solve(parts[0])

  def mark(text):
    known = f'The answer is {right}.' in text
    return 8 if known or right % 2 else 3

  if len(parts) == 2:
    return json.dumps({'mark': mark(parts[1])})
  return json.dumps({'first': mark(parts[1]) + 1, 'second': mark(parts[2])})


def respond(body, headers) -> faulty_server.Reply:
  """For `FaultyServer(respond=...)`."""
  del headers
  user = next(m['content'] for m in body['messages'] if m['role'] == 'user')
  if 'Unit: ' in user:
    text = lesson(user)
  elif '{"problem": ' in user:
    text = written(user)
  elif 'JSON object' in user:
    text = marks(user)
  else:
    text = f'First, count.\nThe answer is {solve(user)}.'
  return 200, {}, faulty_server.chat_completion('r', text)
