"""The simulation of the gate's errors, against the binomial itself."""

import math
import pathlib
import runpy

import pytest
from scipy import stats

from ioa_jax.config import checks
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


@pytest.mark.parametrize('probes', [3, 8, 16, 32, 64])
@pytest.mark.parametrize('tau', [0.3, 0.8, 0.9, 0.95])
def test_configurations_are_judged_as_the_gate_judges(script, probes, tau):
  found = script['table'](probes=probes, looks=1, stages=20_000, tau=tau)
  for share, passed in found.items():
    for confidence, rate in zip((0.5, 0.8, 0.9, 0.95), passed, strict=True):
      want = checks.pass_rate(probes, confidence, tau, share)
      assert rate == pytest.approx(want, abs=0.02)
