"""What a run would ask of its teacher, projected before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

from ioa_jax.teachers.requests import Budget, Price


@dataclasses.dataclass(frozen=True)
class Planned:
  """Requests of one purpose.

  Attributes:
    purpose: a name for people, as 'stage lessons'.
    low_requests, high_requests: how many; they differ where it depends on the
      student, as with remedial rounds.
    prompt_tokens: of one request, on average.
    max_tokens: the most that one answer may be.
    max_calls: of one request, at most (schema checks that fail ask again).
    in_batches: whether they are asked at the price of a batch.
  """

  purpose: str
  low_requests: int
  high_requests: int
  prompt_tokens: float
  max_tokens: int
  max_calls: int = 1
  in_batches: bool = False

  def __post_init__(self):
    for wrong, text in (
      (self.low_requests < 0, 'low_requests < 0'),
      (self.high_requests < self.low_requests, 'high_requests < low_requests'),
      (self.prompt_tokens < 0, 'prompt_tokens < 0'),
      (self.max_tokens < 1, 'max_tokens < 1'),
      (self.max_calls < 1, 'max_calls < 1'),
    ):
      if wrong:
        raise ValueError(f'planned requests for {self.purpose!r}: {text}.')


@dataclasses.dataclass(frozen=True)
class Bound:
  """One end of a projection; tokens are rounded up."""

  requests: int
  prompt_tokens: int
  completion_tokens: int
  usd: float


@dataclasses.dataclass(frozen=True)
class Projection:
  """From the cheapest course to the dearest."""

  low: Bound
  high: Bound


def project(planned: Sequence[Planned], price: Price) -> Projection:
  """Sums `planned` at both ends.

  Low: the fewest requests, each answered at once in one token. High:
  the most requests, each asked `max_calls` times and answered in full length;
  every repeat carries the answer before it in its prompt. Retries after errors
  are not in it: servers do not charge them.
  """
  low = [
    (p, p.low_requests, p.low_requests * p.prompt_tokens, p.low_requests)
    for p in planned
  ]
  high = [
    (
      p,
      p.high_requests,
      p.high_requests
      * (p.max_calls * p.prompt_tokens + (p.max_calls - 1) * p.max_tokens),
      p.high_requests * p.max_calls * p.max_tokens,
    )
    for p in planned
  ]
  return Projection(_bound(low, price), _bound(high, price))


def _bound(rows, price):
  usd = sum(
    (price.in_batches() if p.in_batches else price).usd(prompt, completion)
    for p, _, prompt, completion in rows
  )
  requests, prompt, completion = (
    sum(row[column] for row in rows) for column in (1, 2, 3)
  )
  return Bound(requests, _up(prompt), _up(completion), usd)


def _up(value: float) -> int:
  # 3 * 33.4 is a hair over 100.2; a millionth of a token is not a token.
  return int(-(-(value - 1e-6) // 1)) if value > 0 else 0


def render(
  planned: Sequence[Planned], price: Price, budget: Budget | None = None
) -> str:
  """The projection as lines for people, with what the budget says to it."""
  lines = []
  for p in planned:
    ends = project([p], price)
    lines.append(f'{p.purpose}: {_range(ends)}')
  total = project(planned, price)
  lines.append(f'total: {_range(total)}')
  for name, end in (('low', total.low), ('high', total.high)):
    crossed = (budget or Budget()).crossed_by(end.completion_tokens, end.usd)
    if crossed:
      lines.append(
        f'the {name} end crosses the budget: '
        + '; '.join(crossed)
        + (
          '. The run cannot finish.'
          if name == 'low'
          else '. The run may stop before it finishes.'
        )
      )
      break
  return '\n'.join(lines)


def _range(projection: Projection) -> str:
  low, high = projection.low, projection.high

  def between(a, b, form='{:,}'):
    a, b = form.format(a), form.format(b)
    return a if a == b else f'{a} to {b}'

  return (
    f'{between(low.requests, high.requests)} requests, '
    f'{between(low.prompt_tokens, high.prompt_tokens)} prompt tokens, '
    f'{between(low.completion_tokens, high.completion_tokens)} completion '
    f'tokens, ${between(low.usd, high.usd, "{:,.4f}")}'
  )
