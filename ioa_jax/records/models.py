"""What a run knows its models by: `models.json`."""

from __future__ import annotations

from ioa_jax.records.base import Record, record


@record
class Models(Record):
  """Of the student and the teacher when the run began, see `models.contents`.

  Attributes:
    student, teacher: file to SHA-256; the teacher's is None if its weights are
      not on this machine.
  """

  student: dict[str, str]
  teacher: dict[str, str] | None
