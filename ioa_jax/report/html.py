"""The templates of reports and comparisons."""

from __future__ import annotations

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
