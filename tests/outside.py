"""All that tests read outside the repository; they skip without it.

IOA_SHARED names another folder with published benchmark items (data/) and the
script that builds a real small checkpoint (tools/).
"""

import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SHARED = pathlib.Path(os.environ.get('IOA_SHARED', ROOT.parent / 'shared'))
DATA = SHARED / 'data'
SMOLLM2_TOOL = SHARED / 'tools' / 'smollm2.py'
needs_data = pytest.mark.skipif(
  not DATA.is_dir(), reason=f'real benchmark files are not at {DATA}'
)
