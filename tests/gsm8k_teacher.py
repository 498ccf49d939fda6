r"""A teacher that is the people who wrote GSM8K, behind the chat protocol.

It solves a problem with its written solution, and answers a request for a
lesson with another problem of the unit, none of the run's seeds. So a real
student can be taught real text where no large model can be reached:

  python scripts/gsm8k_seeds.py --input=train.jsonl.gz --output_dir=data/gsm8k
  python -m tests.gsm8k_teacher data/gsm8k 60 8000 &
  python scripts/distill.py --config=configs/smollm2_135m.py --workdir=RUN ...

or, for the comparison, scripts/experiment.py with
--plan=configs/experiments/smollm2.py.

60 is the run's adapter.seeds_per_module, 8000 the port.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys
import threading

from ioa_jax.domains import text
from ioa_jax.evaluation import final_answers
from ioa_jax.runtime import row_files
from tests import faulty_server, word_problem_teacher

COLUMNS = {
  'module': 'module',
  'problem': 'problem',
  'solution': 'solution',
  'answer': '',
}


class People:
  """Answers by looking up what was written."""

  def __init__(self, directory: pathlib.Path, seeds_per_module: int):
    rows = row_files.read(
      directory / 'seeds.jsonl', ('module', 'problem', 'solution')
    )
    domain = text.TextDomain(
      rows,
      directory / 'taxonomy.yaml',
      columns=COLUMNS,
      grader=final_answers.Number(),
      min_probes=1,
      max_probes=1,
    )
    self._solution = {
      row['problem'].strip(): row['solution'] for _, row in rows
    }
    self._unused = {
      m.name: domain.seeds(m.name, 10**9)[seeds_per_module:]
      for m in domain.MODULES
    }

  def respond(self, body, headers) -> faulty_server.Reply:
    del headers
    user = next(m['content'] for m in body['messages'] if m['role'] == 'user')
    answer = self._lesson(user) if 'Unit: ' in user else self._solve(user)
    completion = faulty_server.chat_completion('r', answer)
    # People have no tokenizer; their words are counted.
    read = sum(len(m['content'].split()) for m in body['messages'])
    written = len(answer.split())
    completion['usage'] = {
      'prompt_tokens': read,
      'completion_tokens': written,
      'total_tokens': read + written,
    }
    return 200, {}, completion

  def _parts(self, problem: str) -> tuple[list[str], str]:
    steps, _, answer = self._solution[problem.strip()].rpartition('####')
    return [s for s in steps.splitlines() if s.strip()], answer.strip()

  def _solve(self, problem: str) -> str:
    steps, answer = self._parts(problem)
    return '\n'.join([*steps, f'The answer is {answer}.'])

  def _lesson(self, request: str) -> str:
    unit = re.search(r'"module" is "(.*?)"', request)[1]
    variant = int(re.search(r'Variant (\d+)', request)[1])
    # Remedial rounds get problems of their own, from the other end.
    place = -variant if 'still fails' in request else variant - 1
    seed = self._unused[unit][place]
    steps, answer = self._parts(seed.problem)
    lesson = word_problem_teacher.draft(unit, seed.problem, steps, answer)
    lesson['difficulty_tag'] = re.search(r'Difficulty: (\w+)', request)[1]
    return json.dumps(lesson)


def main(directory: str, seeds_per_module: str, port: str) -> None:
  people = People(pathlib.Path(directory), int(seeds_per_module))
  with faulty_server.FaultyServer(
    respond=people.respond, port=int(port)
  ) as server:
    print(server.url, flush=True)
    threading.Event().wait()


if __name__ == '__main__':
  main(*sys.argv[1:])
