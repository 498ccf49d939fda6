"""Modules and what each stands on, as a file in YAML.

modules:
  - name: word_problems/two_steps
    description: two calculations
    prerequisites: []
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
import pathlib
import re
from typing import Any

import networkx as nx
import yaml

from ioa_jax.records import KnowledgeModule
from ioa_jax.runtime import files

# Of each module: its description and its prerequisites.
Units = Mapping[str, tuple[str, Sequence[str]]]

# Everything is read as text. libyaml's is ten times faster, where it is.
_Loader = getattr(yaml, 'CBaseLoader', yaml.BaseLoader)
_MAX_BYTES = 1_000_000  # Thousands of modules.
_MAX_DEPTH = 8
_SHOWN = 200  # Characters of a bad value.
_CONTROL = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]')
_NOTHING = (None, '', 'null', '~', [])


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
  """The modules of a file; every value of it is text.

  Raises:
    DomainError: naming the entry: unknown keys, unknown prerequisites, cycles.
  """
  raw = _load(path)
  entries = raw.get('modules') if isinstance(raw, dict) else None
  if not isinstance(entries, list) or not entries:
    raise DomainError(f'{path}: wanted a list under the key "modules".')
  units: dict[str, tuple[str, Sequence[str]]] = {}
  for index, entry in enumerate(entries):
    name, unit = _unit(f'{path}: modules[{index}]', entry)
    if name in units:
      raise DomainError(f'{path}: modules[{index}]: {name!r} is there twice.')
    units[name] = unit
  try:
    return order(units)
  except DomainError as e:
    raise DomainError(f'{path}: {e}') from None


def _load(path: pathlib.Path) -> Any:
  """Lists, mappings and texts, of a bounded size and depth."""
  try:
    size = path.stat().st_size
    text = path.read_text(encoding='utf-8') if size <= _MAX_BYTES else ''
  except FileNotFoundError:
    raise DomainError(
      f'{path}: no such file; domain.taxonomy names the modules.'
    ) from None
  except (OSError, UnicodeDecodeError) as e:
    raise DomainError(f'{path}: cannot be read as text ({e}).') from None
  if size > _MAX_BYTES:
    raise DomainError(
      f'{path}: {size} bytes; a taxonomy has at most {_MAX_BYTES}.'
    )
  try:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
      # A short file of aliases can stand for an endless list.
      if isinstance(event, yaml.AliasEvent):
        raise DomainError(
          f'{path}:{event.start_mark.line + 1}: an alias (*{event.anchor}); '
          'write out what it stands for.'
        )
      depth += isinstance(event, yaml.CollectionStartEvent)
      depth -= isinstance(event, yaml.CollectionEndEvent)
      if depth > _MAX_DEPTH:
        raise DomainError(
          f'{path}:{event.start_mark.line + 1}: nested deeper than '
          f'{_MAX_DEPTH}; wanted a list of modules.'
        )
    return yaml.load(text, Loader=_Loader)
  except (yaml.YAMLError, ValueError) as e:
    if isinstance(e, DomainError):
      raise
    reason = ' '.join(str(e).split())[:_SHOWN]
    raise DomainError(f'{path}: not YAML ({reason}).') from None


def _unit(where: str, entry: Any) -> tuple[str, tuple[str, Sequence[str]]]:
  """The name of a module, and what is said of it."""
  name = entry.get('name') if isinstance(entry, dict) else None
  if not isinstance(name, str) or not name.strip():
    raise DomainError(f'{where}: wanted a mapping with a name.')
  extra = sorted(set(entry) - {'name', 'description', 'prerequisites'})
  needs = entry.get('prerequisites')
  needs = [] if needs in _NOTHING else needs
  if extra or not isinstance(needs, list):
    got = repr(extra or needs)[:_SHOWN]
    raise DomainError(
      f'{where} ({name!r}): wanted name, description and a list of '
      f'prerequisites; got {got}.'
    )
  description = entry.get('description')
  description = name if description in _NOTHING else description
  for text in (name, description, *needs):
    if not isinstance(text, str) or _CONTROL.search(text.strip()):
      raise DomainError(
        f'{where} ({name!r}): {text!r:.{_SHOWN}} is not one line of text.'
      )
  return name, (description.strip(), tuple(needs))


def only(
  modules: Sequence[KnowledgeModule], names: Collection[str]
) -> tuple[KnowledgeModule, ...]:
  """Those of `names`; each stands on what the others between them stood on."""
  found: dict[str, list[str]] = {}
  for module in modules:  # Prerequisites come first.
    needs = []
    for needed in module.prerequisites:
      needs += [needed] if needed in names else found[needed]
    found[module.name] = list(dict.fromkeys(needs))
  return order(
    {m.name: (m.description, found[m.name]) for m in modules if m.name in names}
  )


def write(
  path: pathlib.Path, modules: Sequence[KnowledgeModule], note: str = ''
) -> None:
  """The file that `read` reads, with a note for people on top."""
  entries = [
    {
      'name': m.name,
      'description': m.description,
      'prerequisites': list(m.prerequisites),
    }
    for m in modules
  ]
  about = ''.join(f'# {line}\n' for line in note.splitlines())
  text = yaml.safe_dump(
    {'modules': entries}, sort_keys=False, allow_unicode=True
  )
  files.write_text(path, about + text)
