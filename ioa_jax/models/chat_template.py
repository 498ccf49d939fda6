"""Conversations as a model's own chat template writes them.

A template is a program that came with the model: it may refuse what it does not
know, fail in any way, and ask for the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import datetime
import functools
import pathlib
import re
from typing import Any

from ioa_jax.models import weights

ModelError = weights.ModelError

# What a template is told to be now, always: with another day or second it would
# write another prompt. The day is the one that Llama 3's writes by itself where
# no clock is given.
_NOW = datetime.datetime(2024, 7, 26)
_CLOCK_CALL = re.compile(r'strftime_now\(\s*(["\'])([^"\'\n]*)\1\s*\)')
_SWITCH = 'enable_thinking'
_CLOCK_TEST = re.compile(r'strftime_now\s+is\s+(not\s+)?(un)?defined')


def write(
  tokenizer: Any,
  directory: str | pathlib.Path,
  messages: Sequence[Mapping[str, str]],
  *,
  answered: bool = False,
  continued: bool = False,
  thinking: bool | None = None,
) -> str:
  """A conversation as the template writes it; always the same.

  A template that knows no system message gets it at the head of the first
  user's, as Gemma 3's does with it.

  Args:
    answered: whether the last message is the assistant's. Otherwise the text
      ends where the assistant answers.
    continued: whether it is the beginning of one, where the text ends.
    thinking: whether the assistant thinks before it answers, where the template
      has a switch for that; None is what `with_default` wrote into it, and else
      that it does not.

  Raises:
    ModelError: if there is no template, or it fails.
  """
  messages = [dict(m) for m in messages]
  if thinking is None:
    thinking = thinks(tokenizer)
  render = functools.partial(
    _render,
    tokenizer,
    directory,
    add_generation_prompt=not (answered or continued),
    continue_final_message=continued,
    **{_SWITCH: thinking},
  )
  if not messages or messages[0]['role'] != 'system':
    return render(messages)
  system, *turns = messages
  if _knows_system(tokenizer, directory) or not turns:
    return render(messages)
  content = f'{system["content"]}\n\n{turns[0]["content"]}'
  return render([turns[0] | {'content': content}, *turns[1:]])


def require_switch(tokenizer: Any, directory: str | pathlib.Path) -> None:
  """Raises ModelError unless a template writes otherwise for one who thinks."""
  question = [{'role': 'user', 'content': 'x'}]
  first, second = (
    write(tokenizer, directory, question, thinking=thinking)
    for thinking in (False, True)
  )
  if first == second:
    raise ModelError(
      f'{directory}: its chat template has no switch for thinking '
      f'({_SWITCH}, as those of Qwen3 and SmolLM3 have); leave thinking off.'
    )


def with_default(template: str, thinking: bool) -> str:
  """The template, which thinks or not where its switch is not given."""
  if _SWITCH not in template:
    return template
  for value in (True, False):
    template = template.removeprefix(_default(value))
  return _default(thinking) + template


def thinks(tokenizer: Any) -> bool:
  """Whether `with_default` made the template think."""
  if not tokenizer.chat_template:
    return False
  return tokenizer.get_chat_template().startswith(_default(True))


def _default(thinking: bool) -> str:
  # An expression at its end: behind a statement a line break is dropped.
  value = str(thinking).lower()
  return (
    f'{{% if {_SWITCH} is not defined %}}{{% set {_SWITCH} = {value} %}}'
    "{% endif %}{{ '' }}"
  )


def _knows_system(tokenizer, directory) -> bool:
  """Whether the template writes a system message: it may refuse or drop it."""
  mark = 'SYSTEM5927'
  try:
    text = _render(
      tokenizer,
      directory,
      [
        {'role': 'system', 'content': mark},
        {'role': 'user', 'content': 'x'},
      ],
      add_generation_prompt=True,
      **{_SWITCH: False},
    )
  except ModelError:
    return False  # If all else fails too, that is said of the other message.
  return mark in text


def _render(tokenizer, directory, messages, **kwargs) -> str:
  if not tokenizer.chat_template:
    raise ModelError(
      f'{pathlib.Path(directory) / "tokenizer_config.json"}: field '
      '"chat_template" is missing, and there is no chat_template.jinja; a '
      'conversation cannot be written without one. Use an instruction-tuned '
      'model, or add its template.'
    )
  try:
    return tokenizer.apply_chat_template(
      messages,
      chat_template=_stopped(tokenizer.get_chat_template()),
      tokenize=False,
      date_string=_NOW.strftime('%d %b %Y'),
      **kwargs,
    )
  except Exception as e:  # It is a program, and fails in any way it likes.
    raise ModelError(
      f'{directory}: its chat template fails on the roles '
      f'{[m["role"] for m in messages]} ({weights.reason(e)}). Use another '
      'template, in chat_template.jinja.'
    ) from None


def _stopped(template: str) -> str:
  """The template with the time of its clock written in."""
  stopped = _CLOCK_CALL.sub(
    lambda call: call[1] + _NOW.strftime(call[2]) + call[1], template
  )
  if 'strftime_now' in _CLOCK_TEST.sub('', stopped):
    raise ValueError('it asks strftime_now for a format that it makes up')
  return stopped
