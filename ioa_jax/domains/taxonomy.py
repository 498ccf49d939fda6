"""Modules and what each stands on, as a file in YAML.

modules:
  - name: word_problems/two_steps
    description: two calculations
    prerequisites: []
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import pathlib

import networkx as nx
import yaml

from ioa_jax.records import KnowledgeModule

# Of each module: its description and its prerequisites.
Units = Mapping[str, tuple[str, Sequence[str]]]


class DomainError(ValueError):
  """Seeds or taxonomy cannot be used; one line that names the place."""


def order(units: Units) -> tuple[KnowledgeModule, ...]:
  """Modules with their levels, prerequisites first.

  Raises:
    DomainError: a prerequisite that is no module, or a circle.
  """
  graph = nx.DiGraph()
  graph.add_nodes_from(units)
  for name, (_, needs) in units.items():
    for needed in needs:
      if needed not in units:
        raise DomainError(
          f'{name!r} stands on {needed!r}, which is not a module.'
        )
      graph.add_edge(needed, name)
  if not nx.is_directed_acyclic_graph(graph):
    circle = ' -> '.join(a for a, _ in nx.find_cycle(graph))
    raise DomainError(f'the prerequisites go in a circle: {circle}.')
  return tuple(
    KnowledgeModule(name, units[name][0], tuple(units[name][1]), level)
    for level, generation in enumerate(nx.topological_generations(graph))
    for name in generation
  )


def read(path: pathlib.Path) -> tuple[KnowledgeModule, ...]:
  """The modules of a file.

  Raises:
    DomainError: naming the entry: unknown keys, unknown prerequisites, cycles.
  """
  try:
    raw = yaml.safe_load(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise DomainError(
      f'{path}: no such file; domain.taxonomy names the modules.'
    ) from None
  except (OSError, UnicodeDecodeError) as e:
    raise DomainError(f'{path}: cannot be read as text ({e}).') from None
  except yaml.YAMLError as e:
    raise DomainError(f'{path}: not YAML ({e}).') from None
  entries = raw.get('modules') if isinstance(raw, dict) else None
  if not isinstance(entries, list) or not entries:
    raise DomainError(f'{path}: wanted a list under the key "modules".')
  units: dict[str, tuple[str, Sequence[str]]] = {}
  for index, entry in enumerate(entries):
    where = f'{path}: modules[{index}]'
    if not isinstance(entry, dict) or not isinstance(entry.get('name'), str):
      raise DomainError(f'{where}: wanted a mapping with a name.')
    extra = sorted(set(entry) - {'name', 'description', 'prerequisites'})
    needs = entry.get('prerequisites') or []
    if extra or not isinstance(needs, list):
      raise DomainError(
        f'{where} ({entry["name"]}): wanted name, description and a list of '
        f'prerequisites; got {extra or needs!r}.'
      )
    if entry['name'] in units:
      raise DomainError(f'{where}: {entry["name"]!r} is there twice.')
    description = str(entry.get('description') or entry['name'])
    units[entry['name']] = (description, tuple(map(str, needs)))
  try:
    return order(units)
  except DomainError as e:
    raise DomainError(f'{path}: {e}') from None


def write(path: pathlib.Path, modules: Sequence[KnowledgeModule]) -> None:
  """The file that `read` reads."""
  entries = [
    {
      'name': m.name,
      'description': m.description,
      'prerequisites': list(m.prerequisites),
    }
    for m in modules
  ]
  path.write_text(
    yaml.safe_dump({'modules': entries}, sort_keys=False, allow_unicode=True)
  )
