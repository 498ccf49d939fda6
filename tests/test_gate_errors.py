"""The simulation of the gate's errors, against the binomial itself."""

import math
import pathlib
import runpy

import pytest
from scipy import stats

from ioa_jax.training import gate

SCRIPT = pathlib.Path(__file__).parents[1] / 'scripts' / 'gate_errors.py'


@pytest.fixture(scope='module')
def script():
  return runpy.run_path(str(SCRIPT))


def test_one_look_at_the_estimate_is_a_binomial_tail(script):
  found = script['table'](probes=32, looks=1, stages=20_000, tau=0.9)
  least = math.ceil(0.9 * 32)
  for share, (passed, *_) in found.items():
    want = stats.binom.sf(least - 1, 32, share)
    assert passed == pytest.approx(want, abs=0.015)


def test_more_looks_pass_more_and_more_confidence_passes_less(script):
  once = script['table'](probes=32, looks=1, stages=2000, tau=0.9)
  often = script['table'](probes=32, looks=15, stages=2000, tau=0.9)
  for share in once:
    assert all(a <= b + 0.02 for a, b in zip(once[share], often[share]))
    assert often[share] == sorted(often[share], reverse=True)
  assert gate.normal_quantile(0.5) == 0
