"""How an answer ended, whatever the server calls it."""

from __future__ import annotations

import re
from typing import Any

# Ends of a generation that broke off on the server's side: worth another try.
BROKE_OFF = 'broke off'
# In this order: `max_tokens_stop` is a cut, `incomplete` is no `complete`.
_NAMES = (
  (
    'content_filter',
    r'filter|safety|blocklist|prohibited|recitation|spii'
    r'|moderation|blocked|sensitive|policy',
  ),
  ('refusal', r'refus'),
  (BROKE_OFF, r'insufficient_system|error|abort|cancel|timeout|fail|interrupt'),
  ('length', r'length|max|limit|truncat|incomplete|window|budget'),
  ('tool_calls', r'tool|function'),
  (
    'stop',
    r'stop|eos|eot|eog|end|complete|done|finish|success'
    r'|^(word|none|null|normal|natural|ok)$',
  ),
)


def name(said: Any) -> str:
  """'stop', 'length', 'content_filter', 'refusal', 'tool_calls', BROKE_OFF.

  An end that is not named is one of its own accord. A name that is not known is
  given back as it is.
  """
  if isinstance(said, dict):
    said = said.get('type') or said.get('reason')
  if not isinstance(said, str) or not said.strip():
    return 'stop'
  plain = re.sub(r'[\W_]+', '_', said).strip('_').lower()
  # Gemini says what it is before it says which: FINISH_REASON_STOP.
  plain = plain.removeprefix('finish_reason_').removeprefix('finishreason_')
  for ours, pattern in _NAMES:
    if re.search(pattern, plain):
      return ours
  return plain[:40] or 'stop'
