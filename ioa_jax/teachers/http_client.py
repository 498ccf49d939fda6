"""The HTTP client of the `openai` client: bounded, and never sent elsewhere."""

from __future__ import annotations

import ipaddress
import ssl
import urllib.parse
import zlib

import httpx2

_MOST_REDIRECTS = 5
_PIECE = 1 << 16


class HttpError(Exception):
  """A response that cannot be taken; one line."""


class TooLarge(HttpError):
  """It is beyond the limit, unpacked."""


class SentElsewhere(HttpError):
  """A redirect to where the prompt must not go."""


class BoundedClient(httpx2.AsyncClient):
  """Reads whole replies of limited size, and follows no redirect elsewhere.

  Args:
    base_url: of the server; no proxy is used if it is on this machine.
    max_reply_bytes: of a body, unpacked.

  Raises:
    ValueError: for certificates, proxies or an address that cannot be used.
  """

  def __init__(
    self, base_url: str, max_reply_bytes: int, connect_timeout_seconds: float
  ):
    url = urllib.parse.urlsplit(base_url)
    local = is_loopback(url.hostname or '')
    self._max_reply_bytes = max_reply_bytes
    try:
      super().__init__(
        # The whole call has a time limit of its own.
        timeout=httpx2.Timeout(None, connect=connect_timeout_seconds),
        # What other packings unpack to cannot be bounded while reading.
        headers={'Accept-Encoding': 'gzip, deflate'},
        # Certificates of an own https server here come from the environment.
        trust_env=not (local and url.scheme == 'http'),
        mounts={f'all://{_bracketed(url.hostname)}': None} if local else None,
      )
    except ImportError:
      raise ValueError(
        'a SOCKS proxy is set in the environment (ALL_PROXY, HTTPS_PROXY or '
        'HTTP_PROXY) and the package socksio is missing: pip install socksio, '
        'or unset it.'
      ) from None
    except (OSError, ssl.SSLError) as e:
      raise ValueError(
        f'certificates cannot be read ({e}). Correct SSL_CERT_FILE or '
        'SSL_CERT_DIR, or unset them.'
      ) from None
    except (ValueError, httpx2.InvalidURL) as e:
      raise ValueError(
        f'a proxy in the environment cannot be used ({e}). Correct ALL_PROXY, '
        'HTTPS_PROXY or HTTP_PROXY, or unset them.'
      ) from None

  async def send(self, request: httpx2.Request, **options) -> httpx2.Response:
    """As the base class, with the body read.

    Raises:
      TooLarge, SentElsewhere: as their names say.
      HttpError: a body that cannot be unpacked.
    """
    options = {**options, 'stream': True, 'follow_redirects': False}
    for _ in range(_MOST_REDIRECTS):
      response = await super().send(request, **options)
      try:
        content = await self._read(response)
      finally:
        await response.aclose()
      if response.next_request is None:
        headers = [
          (k, v)
          for k, v in response.headers.multi_items()
          if k.lower()
          not in ('content-encoding', 'content-length', 'transfer-encoding')
        ]
        return httpx2.Response(
          response.status_code,
          headers=headers,
          content=content,
          request=request,
          extensions=response.extensions,
        )
      request = _followed(request, response.next_request)
    raise SentElsewhere('redirects go in circles')

  async def _read(self, response: httpx2.Response) -> bytes:
    packing = response.headers.get('content-encoding', 'identity').lower()
    unpack = _unpacker(packing.strip())
    parts, left = [], self._max_reply_bytes
    async for piece in response.aiter_raw(_PIECE):
      while piece:
        # One byte more than is allowed shows that there is more.
        part, piece = unpack(piece, left + 1)
        parts.append(part)
        left -= len(part)
        if left < 0:
          raise TooLarge(f'a reply of more than {self._max_reply_bytes} bytes')
    return b''.join(parts)


def _unpacker(packing: str):
  """(packed, most bytes) to (unpacked, what is left of the packed)."""
  if packing in ('', 'identity'):
    return lambda piece, most: (piece[:most], piece[most:])
  if packing not in ('gzip', 'x-gzip', 'deflate'):
    raise HttpError(f'a body in the packing {packing[:40]!r}')
  # 32: either header, found out by itself.
  unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)

  def unpack(piece, most):
    try:
      part = unpacker.decompress(piece, most)
    except zlib.error as e:
      raise HttpError(f'a body that cannot be unpacked ({e})') from None
    return part, unpacker.unconsumed_tail

  return unpack


def _followed(sent: httpx2.Request, told: httpx2.Request) -> httpx2.Request:
  """`told`, if it goes to the server that was asked, as it was asked."""
  before, after = sent.url, told.url
  if after.host != before.host:
    raise SentElsewhere(f'it redirects to another host, {after.host[:100]!r}')
  upgraded = (before.scheme, after.scheme) == ('http', 'https')
  same = (before.scheme, before.port) == (after.scheme, after.port)
  if not (same or (upgraded and after.port in (None, 443))):
    raise SentElsewhere(
      f'it redirects to another service, {after.scheme}://{after.host}'
      f':{after.port or "default port"}'
    )
  if told.method != sent.method:
    raise SentElsewhere(
      f'it has moved to the path {after.path[:100]!r}; name it in '
      'teacher.base_url'
    )
  return told


def is_loopback(host: str) -> bool:
  """Whether a host is this machine."""
  if host == 'localhost' or host.endswith('.localhost'):
    return True
  try:
    address = ipaddress.ip_address(host)
  except ValueError:
    return False
  return address.is_loopback or address.is_unspecified


def _bracketed(host: str) -> str:
  return f'[{host}]' if ':' in host else host
