"""What every page of this room shares: its templates and how it is written."""

from __future__ import annotations

import os
import pathlib

import jinja2


def environment() -> jinja2.Environment:
  """This folder's templates: values are escaped, a missing one is an error."""
  return jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )


def replace(path: pathlib.Path, text: str) -> None:
  """Writes a file whole: a reader sees the old or the new one."""
  temporary = path.with_name(f'.{path.name}.tmp')
  temporary.write_text(text, encoding='utf-8')
  os.replace(temporary, path)
