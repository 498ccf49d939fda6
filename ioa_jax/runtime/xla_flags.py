"""Flags of XLA that help on a platform: said at a run's start, never set.

XLA reads its flags once, before any program is compiled, and ends the process
for one that it does not know. So they are the user's to set, in the shell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Advice:
  """One environment variable with what belongs in it.

  Attributes:
    platform: 'gpu' or 'tpu'.
    kind: a pattern of the device's name.
    devices: from so many on.
    value: a flag, or the variable's whole value.
    helps: what for, in a few words.
  """

  platform: str
  kind: str
  devices: int
  variable: str
  value: str
  helps: str


# As the vendors advise; none was measured here. On CPU none helped, see
# docs/decisions.md.
TABLE = (
  Advice(
    'gpu',
    '',
    2,
    'XLA_FLAGS',
    '--xla_gpu_enable_latency_hiding_scheduler=true',
    'what devices exchange goes on beside products',
  ),
  Advice(
    'gpu',
    '',
    1,
    'XLA_PYTHON_CLIENT_MEM_FRACTION',
    '0.92',
    'JAX takes three quarters of the memory by itself',
  ),
  Advice(
    'tpu',
    r'v6',
    1,
    'LIBTPU_INIT_ARGS',
    '--xla_tpu_scoped_vmem_limit_kib=98304',
    'larger tiles of a product, which the memory of a v6e has room for',
  ),
)


def advice(
  platform: str, kind: str, devices: int, environ: Mapping[str, str]
) -> Iterator[str]:
  """Lines about what would help on these devices and is not set.

  A variable without flags that has any value is the user's decision, and so is
  a flag that is set to another value.
  """
  for a in TABLE:
    if platform != a.platform or devices < a.devices:
      continue
    flag, _, _ = a.value.partition('=')
    now = environ.get(a.variable, '')
    is_set = flag in now if flag.startswith('--') else bool(now)
    if re.search(a.kind, kind) and not is_set:
      yield f'Not set, may help: {a.variable}={a.value} ({a.helps}).'
