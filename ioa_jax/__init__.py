"""Pedagogically ordered distillation of language models in JAX.

  import ioa_jax as ioa

  config = ioa.config('quickstart', {'train.total_steps': 200})
  run = ioa.distill(config, 'runs/nb')
  run.retention, run.modules, run.wrong_answers(), run.report

See docs/python.md. What is named here is loaded when it is first used.
"""

import importlib

__version__ = '0.1.0'

_HOMES = {
  'config': 'ioa_jax.config',
  'ConfigError': 'ioa_jax.config',
  # What one does.
  'diagnose': 'ioa_jax.api',
  'distill': 'ioa_jax.api',
  'dry_run': 'ioa_jax.api',
  'generate': 'ioa_jax.api',
  'synthesize': 'ioa_jax.api',
  'Distilled': 'ioa_jax.api',
  # What a domain, a grader and a teacher of one's own are made of.
  'Domain': 'ioa_jax.domains',
  'KnowledgeModule': 'ioa_jax.records',
  'Probe': 'ioa_jax.records',
  'Seed': 'ioa_jax.records',
  'Grader': 'ioa_jax.domains.text',
  'Exact': 'ioa_jax.evaluation.final_answers',
  'Teacher': 'ioa_jax.teachers',
  'Completion': 'ioa_jax.teachers.requests',
  'Request': 'ioa_jax.teachers.requests',
}
__all__ = ['__version__', *_HOMES]


def __getattr__(name: str):
  if name not in _HOMES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module = importlib.import_module(_HOMES[name])
  return module if name == 'config' else getattr(module, name)


def __dir__():
  return sorted({*globals(), *__all__})
