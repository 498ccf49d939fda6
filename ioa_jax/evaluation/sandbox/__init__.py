"""Isolated execution of model-written Python, and of the tests of it."""

from ioa_jax.evaluation.sandbox.executor import (
  BACKENDS,
  Limits,
  ProgramResult,
  Sandbox,
  SandboxUnavailable,
  TestResult,
  self_test,
)
from ioa_jax.evaluation.sandbox.launcher import process_mark

__all__ = [
  'BACKENDS',
  'Limits',
  'ProgramResult',
  'Sandbox',
  'SandboxUnavailable',
  'TestResult',
  'process_mark',
  'self_test',
]
