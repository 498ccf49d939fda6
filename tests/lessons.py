"""A whole lesson around the few fields that a test is about."""

from ioa_jax.records import Lesson

_FLAGS = {
  'concretization': False,
  'decomposition': False,
  'cognitive_load': {'scale': '', 'notes': ''},
  'format_template': False,
  'simplified_language': False,
}
_SOLUTION = {'steps': [], 'final_answer': '', 'verification': ''}
_LINEAGE = {
  'stage_id': 0,
  'seed_style_ref': '',
  'kind': 'stage',
  'round': 0,
  'teacher': '',
  'request': '',
}


def lesson(
  problem, completion, *, module='m', solution=None, flags=None, lineage=None
):
  return Lesson(
    module=module,
    prereq=(),
    difficulty_tag='introductory',
    problem=problem,
    completion=completion,
    solution=_SOLUTION | (solution or {}),
    adapter_flags=_FLAGS | (flags or {}),
    metadata=_LINEAGE | (lineage or {}),
  )
