"""The documents as a site: it builds, and asks nothing of the network."""

import html.parser
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from tests.test_documented_commands import PAGES, ROOT

SOURCES = [*PAGES, ROOT / 'CHANGELOG.md']


def _build(project, site):
  return subprocess.run(
    [sys.executable, '-m', 'mkdocs', 'build', '--strict', '-d', str(site)],
    cwd=project,
    capture_output=True,
    text=True,
    env=os.environ | {'NO_MKDOCS_2_WARNING': '1'},
  )


@pytest.fixture(scope='module')
def site(tmp_path_factory):
  site = tmp_path_factory.mktemp('site')
  done = _build(ROOT, site)
  assert done.returncode == 0, done.stderr
  assert 'WARNING' not in done.stderr
  return site


class _Loads(html.parser.HTMLParser):
  """What a browser fetches for a page without being asked."""

  def __init__(self):
    super().__init__()
    self.found = []

  def handle_starttag(self, tag, attrs):
    given = dict(attrs)
    if tag != 'a' and given.get('rel') != 'canonical':
      self.found += [given[k] for k in ('src', 'href') if given.get(k)]


def test_every_page_is_in_it_and_loads_only_what_is_there(site):
  pages = sorted(site.rglob('*.html'))
  # Three cards of models are for those who open the package; 404.html is more.
  assert len(pages) == len(SOURCES) - 3 + 1
  for page in pages:
    loads = _Loads()
    loads.feed(page.read_text(encoding='utf-8'))
    assert loads.found
    for target in loads.found:
      assert not re.match(r'(?:https?:)?//', target), (page, target)
      if page.name != '404.html' and not target.startswith(('#', 'data:')):
        assert (page.parent / target.partition('?')[0]).exists(), (page, target)
  for style in site.rglob('*.css'):
    assert not re.findall(
      r'(?:url\(|@import )[\'"]?(?:https?:)?//', style.read_text()
    )


@pytest.mark.parametrize(
  'page,text,said',
  [
    ('README.md', '[x](docs/none.md)', "'none.md'"),
    # It is a page of the site, but no file beside README.md.
    ('README.md', '[x](faq.md)', "'../faq.md'"),
    ('CONTRIBUTING.md', '[x](docs/design.md#none)', "'#none'"),
    ('docs/faq.md', '[x](method.md#none)', "'#none'"),
    ('docs/faq.md', '![x](none.svg)', "'none.svg'"),
    ('docs/faq.md', '[x](/absolute.md)', 'absolute'),
    ('configs/experiments/sweep.md', '[x](../none.md)', 'none.md'),
    ('docs/forgotten.md', '# In no menu', 'forgotten.md'),
  ],
)
def test_a_dead_link_or_forgotten_page_fails(tmp_path, page, text, said):
  for name in ('mkdocs.yml', 'docs', 'configs'):
    at = tmp_path / name
    copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
    copy(ROOT / name, at)
  for path in SOURCES:
    at = tmp_path / path.relative_to(ROOT)
    at.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, at)
  with (tmp_path / page).open('a', encoding='utf-8') as file:
    file.write(f'\n\n{text}\n')
  done = _build(tmp_path, tmp_path / 'site')
  assert done.returncode and said in done.stderr, done.stderr


def test_the_picture_stands_alone():
  """Nothing is fetched and nothing runs; readers of the page hear a text."""
  path = ROOT / 'docs' / 'architecture.svg'
  picture = ElementTree.parse(path).getroot()
  names = [node.tag.rpartition('}')[2] for node in picture.iter()]
  assert {'title', 'desc'} <= set(names)
  assert not {'script', 'image', 'foreignObject', 'use'} & set(names)
  left, top, width, height = map(float, picture.get('viewBox').split())
  for node in picture.iter():
    if node.tag.endswith('}rect'):
      x, y = float(node.get('x', 0)), float(node.get('y', 0))
      assert left <= x <= x + float(node.get('width')) <= width
      assert top <= y <= y + float(node.get('height')) <= height
  files = ('diagnosis.json', 'curriculum.json', 'lessons.jsonl', 'report.html')
  written = ' '.join(picture.itertext())
  assert all(name in written for name in files)
