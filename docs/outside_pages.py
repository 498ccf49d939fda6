"""Pages of the site that lie outside of docs/; mkdocs.yml names this hook."""

import os
import pathlib
import posixpath
import re

from mkdocs.structure import files as files_lib

ROOT = pathlib.Path(__file__).parents[1]
# Where a page lies in the repository, and in the site.
OUTSIDE = {
  'README.md': 'index.md',
  'CONTRIBUTING.md': 'CONTRIBUTING.md',
  'CHANGELOG.md': 'CHANGELOG.md',
  'ioa_jax/assets/composition/teacher/README.md': 'composition-teacher.md',
  **{
    f'configs/experiments/{p.name}': f'experiments/{p.name}'
    for p in sorted((ROOT / 'configs' / 'experiments').glob('*.md'))
  },
}
_SOURCES = {page: source for source, page in OUTSIDE.items()}
# `[words](target)` and `![words](target)`; the target without its anchor.
_LINK = re.compile(r'(?<=\]\()([^)#\s]+)')


def on_files(files, config):
  """Adds them. What is edited there is built again by `mkdocs serve`."""
  for source, page in OUTSIDE.items():
    file = files_lib.File.generated(
      config, page, abs_src_path=os.fspath(ROOT / source)
    )
    files.append(file)
  return files


def on_page_markdown(markdown, page, config, files):
  """Turns links between files of the repository into those of the site."""
  del config, files
  here = page.file.src_uri
  source = _SOURCES.get(here, f'docs/{here}')

  def link(found):
    target = found[0]
    if re.match(r'[a-z]+:', target):
      return target
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    in_site = OUTSIDE.get(path) or posixpath.relpath(path, 'docs')
    return posixpath.relpath(in_site, posixpath.dirname(here) or '.')

  return _LINK.sub(link, markdown)
