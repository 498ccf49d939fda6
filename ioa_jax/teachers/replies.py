"""What a server answered, read for what is in it and not for what is missing.

Servers agree on where an answer stands and on little else. Fields that nobody
needs are never a reason to lose what was paid for.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pydantic

from ioa_jax.teachers import finish, json_text, structured
from ioa_jax.teachers.requests import Completion, Request

_KEPT_CHARS = 20_000  # Of a reply that holds no text.
_REASONING = ('reasoning_content', 'reasoning', 'thinking', 'reasoning_details')
_TEXTS = ('text', 'content', 'output_text', 'thinking', 'summary', 'value')


class DamagedReply(ValueError):
  """A 200 response that is not a chat completion: cut, garbled, a stream."""


@dataclasses.dataclass(frozen=True)
class Reply:
  """A chat completion.

  Attributes:
    finish: one of `finish.name`.
    refusal: why the model will not answer; '' if it does.
    prompt_tokens, completion_tokens: as the server says; None if it does not.
    raw: the choice as it came, for what could not be read of it.
    unfit: why the server itself found that its text does not fit the schema.
    unpaid: whether the server took no money for it.
  """

  text: str = ''
  reasoning: str = ''
  refusal: str = ''
  finish: str = 'stop'
  prompt_tokens: int | None = None
  completion_tokens: int | None = None
  response_id: str = ''
  raw: str = ''
  unfit: str = ''
  unpaid: bool = False


def decode(content: bytes) -> str:
  """A body as text: whatever Unicode it is in, with or without a mark."""
  text = content.decode(json.detect_encoding(content), errors='replace')
  return text.lstrip('\ufeff')


def load(text: str) -> Any:
  """A body's JSON; halves of surrogate pairs become U+FFFD.

  Raises:
    DamagedReply: it has none.
  """
  if text.lstrip().startswith(('data:', 'event:', ':')):
    # Streams are not asked for: deltas carry no number, so a repeated one
    # cannot be told from a word that the model wrote twice.
    raise DamagedReply('an event stream that was not asked for')
  try:
    value = json.loads(text, strict=False, parse_int=_integer)
  except json.JSONDecodeError as e:
    raise DamagedReply(f'not JSON ({e.msg} at character {e.pos})') from None
  except (ValueError, RecursionError):
    raise DamagedReply('JSON that cannot be read') from None
  return value


def _integer(digits: str) -> int | float:
  # Python refuses to read thousands of digits as an int.
  return int(digits) if len(digits) < 100 else math.inf


def read(value: Any) -> Reply:
  """The reply in a response's JSON.

  Raises:
    DamagedReply: with what is wrong with it.
  """
  choices = value.get('choices') if isinstance(value, dict) else None
  if isinstance(choices, dict):
    choices = [choices]
  if not isinstance(choices, list) or not choices:
    raise DamagedReply('not a chat completion (no choices)')
  choice = choices[0]
  if not isinstance(choice, dict):
    raise DamagedReply('not a chat completion (a choice is no object)')
  message = choice.get('message') or choice.get('delta')
  if not isinstance(message, dict):
    # The older protocol has its text right here.
    message = {'content': message if message else choice.get('text')}
  end = finish.name(choice.get('finish_reason', choice.get('stop_reason')))
  if end == finish.BROKE_OFF:
    why = _text(choice.get('error')) or choice.get('finish_reason')
    raise DamagedReply(f'generation broke off ({_whole(why)[:200]})')
  content, thought, refused = _parts(message.get('content'))
  apart = next((t for k in _REASONING if (t := _text(message.get(k)))), '')
  said = message.get('refusal')
  reasoning, text = split_reasoning(_whole(content))
  usage = value.get('usage')
  prompt_tokens, completion_tokens = _usage(usage)
  response_id = value.get('id')
  return Reply(
    text=text,
    reasoning='\n'.join(_whole(r) for r in (apart, thought, reasoning) if r),
    refusal=_whole(said if isinstance(said, str) else refused),
    finish=end,
    prompt_tokens=prompt_tokens,
    completion_tokens=completion_tokens,
    response_id='' if response_id is None else _whole(response_id)[:200],
    raw=_whole(json.dumps(choice, ensure_ascii=False))[:_KEPT_CHARS],
  )


def _parts(content: Any) -> tuple[str, str, str]:
  """(text, reasoning, refusal) of a content: a text, or parts of one."""
  if not isinstance(content, list):
    if isinstance(content, dict) and not any(k in content for k in _TEXTS):
      return json.dumps(content), '', ''  # The server has parsed the JSON.
    return _text(content), '', ''
  texts, thoughts, refusals = [], [], []
  for part in content:
    kind = str(part.get('type', '')) if isinstance(part, dict) else ''
    if 'think' in kind or 'reason' in kind:
      thoughts.append(_text(part))
    elif 'refus' in kind:
      refusals.append(_text(part.get('refusal')))
    else:
      texts.append(_text(part))
  return ''.join(texts), ''.join(thoughts), ''.join(refusals)


def _text(value: Any, depth: int = 6) -> str:
  """The text in a text, a number, a part or a list of parts."""
  if isinstance(value, str):
    return value
  if isinstance(value, (bool, type(None))) or not depth:
    return ''
  if isinstance(value, (int, float)):
    return str(value)
  if isinstance(value, list):
    return ''.join(_text(x, depth - 1) for x in value)
  if isinstance(value, dict):
    texts = (_text(value.get(k), depth - 1) for k in _TEXTS)
    return next(filter(None, texts), '')
  return ''


def _whole(text: Any) -> str:
  """As it can be written: halves of surrogate pairs become U+FFFD."""
  return str(text).encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')


def _usage(usage: Any) -> tuple[int | None, int | None]:
  """Prompt and completion tokens, from whatever names there are."""
  if not isinstance(usage, dict):
    return None, None

  def count(*names):
    return next(
      (n for k in names if (n := _count(usage.get(k))) is not None), None
    )

  prompt = count('prompt_tokens', 'input_tokens', 'prompt_eval_count')
  completion = count('completion_tokens', 'output_tokens', 'eval_count')
  total = count('total_tokens')
  if total is not None:
    if completion is None and prompt is not None and total >= prompt:
      completion = total - prompt
    elif prompt is None and completion is not None and total >= completion:
      prompt = total - completion
  return prompt, completion


def _count(value: Any) -> int | None:
  if isinstance(value, bool) or not isinstance(value, (int, float, str)):
    return None
  try:
    number = float(value)
  except (ValueError, OverflowError):
    return None
  # What is absurd stays so, and is found out where it is counted.
  return int(number) if math.isfinite(number) else -1


def completion(
  reply: Reply,
  request: Request,
  worst_prompt_tokens: int,
  response_model: type[pydantic.BaseModel] | None,
) -> tuple[Completion, str, str]:
  """The answer in a reply, why it does not fit, and what was estimated.

  Args:
    worst_prompt_tokens: no more than this can have been sent.
  """
  end, text, why, mended_from = reply.finish, reply.text, reply.unfit, ''
  if reply.refusal:
    end, text = 'refusal', reply.refusal
  elif end == 'stop' and not text.strip() and not why:
    end = 'empty'
  elif end == 'stop' and response_model is not None:
    # Mending is free, and asking again is not.
    found = structured.parse(text, response_model)
    if found is None:
      end, why = 'schema', why or structured.misfit(text, response_model)
    elif not _is_plainly(found, text):
      mended_from, text = text, found.model_dump_json()
    else:
      text = json_text.without_fence(text)
  prompt_tokens, completion_tokens, estimated = _counted(
    reply, request, worst_prompt_tokens
  )
  is_answer = end == 'stop'
  answer = Completion(
    text=text if is_answer else '',
    finish_reason=end,
    prompt_tokens=prompt_tokens,
    completion_tokens=completion_tokens,
    reasoning=reply.reasoning,
    discarded=mended_from if is_answer else (text.strip() or reply.raw),
    response_id=reply.response_id,
  )
  return answer, why, estimated


def _is_plainly(found: pydantic.BaseModel, text: str) -> bool:
  """Whether whoever reads the text as JSON finds the same."""
  plain = json_text.without_fence(text)
  try:
    return type(found).model_validate_json(plain) == found
  except pydantic.ValidationError:
    return False


def _counted(reply, request, worst_prompt_tokens) -> tuple[int, int, str]:
  """Tokens as the server says them, if they can be; and what is estimated.

  A token is a byte at least. So a prompt has no more than its bytes, and an
  answer no more than was asked for, or than arrived if that is more. Budgets
  are kept by these numbers.
  """
  if reply.unpaid:
    return 0, 0, ''
  received = len((reply.text + reply.reasoning + reply.refusal).encode())
  most = max(request.max_tokens, received + 1)
  prompt, completion_, odd = reply.prompt_tokens, reply.completion_tokens, []
  if prompt is None or not 0 < prompt <= worst_prompt_tokens:
    odd.append(f'prompt_tokens {_said(prompt)}')
    prompt = worst_prompt_tokens
  if completion_ is None or not bool(received) <= completion_ <= most:
    odd.append(f'completion_tokens {_said(completion_)}')
    in_full = reply.finish == 'length' or (completion_ or 0) > most
    completion_ = most if in_full else min(request.max_tokens, received + 1)
  return prompt, completion_, ' and '.join(odd)


def _said(count: int | None) -> str:
  return 'missing' if count is None else f'{float(count):.6g}'


def split_reasoning(content: str) -> tuple[str, str]:
  """(reasoning, answer) of a text that may think aloud in <think> tags.

  Templates of some models open the tag in the prompt, so that only its end is
  in the answer. A tag that never ends leaves no answer.
  """
  opened = content.lstrip().startswith('<think>')
  head, end, tail = content.partition('</think>')
  if opened:
    head = head.lstrip().removeprefix('<think>')
    return head.strip(), tail.lstrip()
  if end and '<think>' not in head:
    return head.strip(), tail.lstrip()
  return '', content
