"""What servers have been seen to send, and what a hostile one may: a table.

Each row is a status, headers and a body for one request, and what must come of
it: 'answer', an outcome (a finish reason), or words of the one line that says
why not. To add one is to add a row.
"""

from __future__ import annotations

import gzip
import json
from typing import Any

from tests.faulty_server import chat_completion, error

TEXT = 'The answer is 42.'
REFUSED, DOWN = 'refuses request', 'failed 2 times'


def reply(**choice) -> dict[str, Any]:
  return chat_completion('id', TEXT, **choice)


def content(value: Any, **message) -> dict[str, Any]:
  """A reply whose message has this content."""
  return chat_completion('id', '', message={'content': value, **message})


def bare(**fields) -> dict[str, Any]:
  return {k: v for k, v in (reply() | fields).items() if v is not ...}


def _nested(depth: int) -> bytes:
  return b'[' * depth + b']' * depth


# name, status, headers, body (bytes, or a value for JSON), what comes of it.
REPLIES = [
  # Fields that nobody needs.
  ('usage {}', 200, {}, bare(usage={}), 'answer'),
  ('no usage', 200, {}, bare(usage=...), 'answer'),
  ('id a number', 200, {}, bare(id=7), 'answer'),
  ('id null', 200, {}, bare(id=None), 'answer'),
  ('id an object', 200, {}, bare(id={'a': [1]}), 'answer'),
  (
    'no object, model, created',
    200,
    {},
    {'choices': reply()['choices']},
    'answer',
  ),
  ('choices an object', 200, {}, {'choices': reply()['choices'][0]}, 'answer'),
  (
    'choice with text',
    200,
    {},
    {'choices': [{'text': TEXT, 'finish_reason': 'stop'}]},
    'answer',
  ),
  ('a delta', 200, {}, {'choices': [{'delta': {'content': TEXT}}]}, 'answer'),
  (
    'content in parts',
    200,
    {},
    content(
      [
        {'type': 'text', 'text': TEXT[:5]},
        {'type': 'output_text', 'text': TEXT[5:]},
      ]
    ),
    'answer',
  ),
  ('parts as texts', 200, {}, content([TEXT[:5], TEXT[5:]]), 'answer'),
  (
    'a thinking part',
    200,
    {},
    content(
      [
        {'type': 'thinking', 'thinking': [{'type': 'text', 'text': 'hm'}]},
        {'type': 'text', 'text': TEXT},
      ]
    ),
    'answer',
  ),
  ('one part', 200, {}, content({'type': 'text', 'text': TEXT}), 'answer'),
  ('refusal false', 200, {}, content(TEXT, refusal=False), 'answer'),
  ('refusal empty', 200, {}, content(TEXT, refusal=''), 'answer'),
  ('refusal {}', 200, {}, content(TEXT, refusal={}), 'answer'),
  (
    'reasoning an object',
    200,
    {},
    content(TEXT, reasoning={'content': 'hm'}),
    'answer',
  ),
  (
    'reasoning a list',
    200,
    {},
    content(TEXT, reasoning_content=[{'text': 'hm'}, 3]),
    'answer',
  ),
  ('tool_calls []', 200, {}, content(TEXT, tool_calls=[]), 'answer'),
  ('logprobs odd', 200, {}, reply(logprobs='x'), 'answer'),
  ('a BOM', 200, {}, b'\xef\xbb\xbf' + json.dumps(reply()).encode(), 'answer'),
  ('UTF-16', 200, {}, json.dumps(reply()).encode('utf-16'), 'answer'),
  (
    'UTF-16 unmarked',
    200,
    {},
    json.dumps(reply()).encode('utf-16-le'),
    'answer',
  ),
  ('half a pair', 200, {}, content(TEXT + '\ud83d'), 'answer'),
  (
    'bytes that are no UTF-8',
    200,
    {},
    json.dumps(reply()).encode().replace(b'42.', b'42.\xff'),
    'answer',
  ),
  (
    'line breaks in strings',
    200,
    {},
    json.dumps(reply()).encode().replace(b'42.', b'42.\n'),
    'answer',
  ),
  (
    'blank lines before',
    200,
    {},
    b'\n\n \n' + json.dumps(reply()).encode(),
    'answer',
  ),
  (
    'thousands of digits',
    200,
    {},
    json.dumps(bare(created=1))
    .encode()
    .replace(b'"created": 1', b'"created": ' + b'9' * 9000),
    'answer',
  ),
  (
    'gzip',
    200,
    {'Content-Encoding': 'gzip'},
    gzip.compress(json.dumps(reply()).encode()),
    'answer',
  ),
  # Ends.
  *(
    (f'end {end}', 200, {}, reply(finish_reason=end), 'answer')
    for end in (
      None,
      '',
      'stop',
      'eos_token',
      'eos',
      'stop_sequence',
      'end',
      'STOP',
      'end_turn',
      'COMPLETE',
      'FINISH_REASON_STOP',
      'completed',
      'EOS_TOKEN',
      'end_of_text',
      'finished',
      7,
      {'type': 'eos'},
    )
  ),
  *(
    (f'end {end}', 200, {}, reply(finish_reason=end), 'length')
    for end in (
      'length',
      'max_tokens',
      'MAX_TOKENS',
      'model_length',
      'incomplete',
      'max_output_tokens',
      'model_context_window_exceeded',
    )
  ),
  *(
    (f'end {end}', 200, {}, reply(finish_reason=end), 'content_filter')
    for end in (
      'content_filter',
      'SAFETY',
      'RECITATION',
      'ERROR_TOXIC_FILTER',
      'PROHIBITED_CONTENT',
    )
  ),
  ('an end nobody knows', 200, {}, reply(finish_reason='wandered'), 'wandered'),
  (
    'a tool call',
    200,
    {},
    chat_completion(
      'id',
      None,
      finish_reason='tool_calls',
      message={'tool_calls': [{'id': 'c'}]},
    ),
    'tool_calls',
  ),
  (
    'a refusal part',
    200,
    {},
    content([{'type': 'refusal', 'refusal': 'No.'}]),
    'refusal',
  ),
  *(
    (
      f'broke off {end}',
      200,
      {},
      reply(finish_reason=end),
      f'{DOWN}.*broke off',
    )
    for end in ('error', 'abort', 'insufficient_system_resource', 'CANCELLED')
  ),
  # Errors in every shape: the words are shown.
  ('error object', 400, {}, error('odd words'), f'{REFUSED}.*odd words'),
  ('error text', 400, {}, {'error': 'odd words'}, f'{REFUSED}.*odd words'),
  (
    'top level',
    400,
    {},
    {'object': 'error', 'message': 'odd words', 'code': 400},
    f'{REFUSED}.*odd words',
  ),
  ('detail text', 422, {}, {'detail': 'odd words'}, f'{REFUSED}.*odd words'),
  (
    'detail list',
    422,
    {},
    {'detail': [{'loc': ['body', 'stop'], 'msg': 'odd words'}]},
    f'{REFUSED}.*body.stop: odd words',
  ),
  (
    'a list',
    400,
    {},
    [{'error': {'message': 'odd words'}}],
    f'{REFUSED}.*odd words',
  ),
  (
    'errors',
    400,
    {},
    {'errors': [{'message': 'odd words'}]},
    f'{REFUSED}.*odd words',
  ),
  (
    'wrapped',
    400,
    {},
    {
      'error': {
        'message': 'Provider returned error',
        'metadata': {'raw': 'odd words'},
      }
    },
    f'{REFUSED}.*odd words',
  ),
  (
    'plain text',
    400,
    {'Content-Type': 'text/plain'},
    b'odd words\n',
    f'{REFUSED}.*odd words',
  ),
  (
    'HTML',
    400,
    {'Content-Type': 'text/html'},
    b'<html><style>p {}</style><h1>odd&nbsp;words</h1></html>',
    f'{REFUSED}.*odd words',
  ),
  ('nothing', 400, {}, b'', f'{REFUSED}.*no words'),
  ('another object', 400, {}, {'status': 'odd words'}, f'{REFUSED}.*odd words'),
  (
    'an endless error',
    400,
    {},
    error('odd words ' * 9999),
    f'{REFUSED}.*odd words',
  ),
  ('a deep error', 400, {}, _nested(90_000), REFUSED),
  (
    'an odd error',
    400,
    {},
    {'error': {'message': {'detail': [[['x']]]}, 'code': [], 'param': 7}},
    REFUSED,
  ),
  ('500 HTML', 500, {}, b'<title>odd words</title>', f'{DOWN}.*odd words'),
  ('402', 402, {}, error('Insufficient Balance'), 'quota .*used up'),
  (
    'credit as 400',
    400,
    {},
    error('Your credit balance is too low'),
    'quota .*used up',
  ),
  ('303', 303, {}, b'', REFUSED),
  ('418', 418, {}, error('teapot'), f'{REFUSED}.*teapot'),
  # Errors with a status of 200.
  ('200 error', 200, {}, error('odd words'), f'{DOWN}.*odd words'),
  ('200 error text', 200, {}, {'error': 'odd words'}, f'{DOWN}.*odd words'),
  (
    '200 as 400',
    200,
    {},
    error('odd words', code=400),
    f'{REFUSED}.*odd words',
  ),
  ('200 as 402', 200, {}, error('odd words', code=402), 'quota .*used up'),
  (
    '200 as 401',
    200,
    {},
    error('odd words', code='invalid_api_key'),
    'refuses .*401',
  ),
  (
    '200 as 429',
    200,
    {},
    error('slow', type='rate_limit_error'),
    f'{DOWN}.*429 slow',
  ),
  (
    '200 in a choice',
    200,
    {},
    {
      'choices': [
        {
          'error': {'message': 'odd words'},
          'finish_reason': 'error',
          'message': {},
        }
      ]
    },
    f'{DOWN}.*broke off',
  ),
  # No reply at all.
  *(
    (f'damaged {i}', 200, {}, body, DOWN)
    for i, body in enumerate(
      (
        b'',
        b'null',
        b'[]',
        b'{}',
        b'3',
        b'"x"',
        b'{"choices": []}',
        b'\x00' * 99,
        b'{"choices": [null]}',
        b'{"choices": [[]]}',
        b'{"choices": "x"}',
        b'{"choices": [{"message": {"content":',
        b'\xff\xfe\xff',
        b'data: {}\n\n',
        b'{"choices":' + b'[' * 90_000,
        _nested(90_000),
        b'<html>',
        b'-' * 9999,
      )
    )
  ),
  ('204', 204, {}, b'', DOWN),
  (
    'bad gzip',
    200,
    {'Content-Encoding': 'gzip'},
    b'\x1f\x8b' + b'x' * 99,
    f'{DOWN}.*unpacked',
  ),
  ('brotli', 200, {'Content-Encoding': 'br'}, b'x' * 99, f'{DOWN}.*packing'),
  (
    'gzip twice',
    200,
    {'Content-Encoding': 'gzip, gzip'},
    b'x',
    f'{DOWN}.*packing',
  ),
  # Too much.
  (
    'a bomb',
    200,
    {'Content-Encoding': 'gzip'},
    gzip.compress(b' ' * 50_000_000),
    'more than 1048576 bytes',
  ),
  ('a large body', 200, {}, b' ' * 2_000_000, 'more than 1048576 bytes'),
  ('a large error', 400, {}, b'x' * 2_000_000, 'more than 1048576 bytes'),
  # Elsewhere.
  (
    'another host',
    307,
    {'Location': 'http://192.0.2.1/v1'},
    b'',
    'another host.*base_url',
  ),
  (
    'another port',
    308,
    {'Location': 'http://127.0.0.1:1/v1'},
    b'',
    'another service.*base_url',
  ),
  (
    'another scheme',
    307,
    {'Location': 'ftp://127.0.0.1/'},
    b'',
    'another service',
  ),
  ('as GET', 301, {'Location': '/v2/chat'}, b'', 'moved to .*v2/chat'),
  ('no place', 307, {'Location': 'http://[::'}, b'', ''),
  # Waits.
  ('a long wait', 429, {'Retry-After': '86400'}, error('day'), 'wait 86400 s'),
  (
    'a wait of ages',
    429,
    {'Retry-After': '9' * 300},
    error('x'),
    'wait 1000000000 s',
  ),
  ('a wait of nonsense', 429, {'Retry-After': 'inf'}, error('x'), DOWN),
  (
    'a date that is none',
    503,
    {'Retry-After': 'Wed, 99 Oct 99999999999999 07:28:00 GMT'},
    error('x'),
    DOWN,
  ),
  (
    'odd limits',
    200,
    {
      'x-ratelimit-remaining-requests': '-9' * 50,
      'x-ratelimit-reset-requests': '9' * 99 + 'h',
      'x-ratelimit-limit-tokens': 'nan',
    },
    reply(),
    'answer',
  ),
  # A terminal.
  (
    'escape sequences',
    400,
    {},
    error('\x1b]0;x\x07\x9b2J\u202eodd words'),
    f'{REFUSED}.*odd words',
  ),
]
