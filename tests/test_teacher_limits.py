"""Rate limits, cost projection, and the forms of requests and replies."""

import pytest

from ioa_jax.teachers import cost, rate_limits
from ioa_jax.teachers.cost import Bound, Planned
from ioa_jax.teachers.requests import Budget, Price


class Clock:
  """Time that passes only when told to."""

  def __init__(self):
    self.now = 1000.0

  def __call__(self):
    return self.now


def send_all(limiter, clock, amounts):
  """Sends one after another as soon as allowed; the times, from 0."""
  times = []
  for tokens in amounts:
    while wait := limiter.try_acquire(tokens):
      clock.now += wait
    times.append(clock.now - 1000.0)
    limiter.finish(tokens, {})
    clock.now += 0.25
  return times


@pytest.mark.parametrize('limit', [1, 7, 60])
def test_any_minute_holds_at_most_the_limit_of_requests(limit):
  clock = Clock()
  limiter = rate_limits.RateLimiter(limit, clock=clock)
  times = send_all(limiter, clock, [1] * 5 * limit)
  for start in times:
    assert sum(start <= t < start + 60 for t in times) <= limit
  # And no slower than that: five batches start at minutes 0 to 4.
  assert times[-1] < 4 * 60 + 60


def test_any_minute_holds_at_most_the_limit_of_tokens():
  clock = Clock()
  limiter = rate_limits.RateLimiter(tokens_per_minute=100, clock=clock)
  amounts = [30, 60, 20, 50, 10, 70, 40, 40] * 4
  times = send_all(limiter, clock, amounts)
  for start in times:
    window = zip(times, amounts)
    assert sum(a for t, a in window if start <= t < start + 60) <= 100


def test_what_is_over_the_limit_goes_alone():
  clock = Clock()
  limiter = rate_limits.RateLimiter(tokens_per_minute=100, clock=clock)
  assert send_all(limiter, clock, [50, 250, 50]) == [0.0, 60.0, 120.0]


def test_the_server_says_nothing_is_left():
  clock = Clock()
  limiter = rate_limits.RateLimiter(clock=clock)
  assert limiter.try_acquire(10) == 0
  limiter.finish(
    10,
    {
      'x-ratelimit-remaining-tokens': '5',
      'x-ratelimit-reset-tokens': '6m0s',
    },
  )
  assert limiter.try_acquire(5) == 0  # This much is left.
  assert limiter.try_acquire(1) == pytest.approx(360)
  clock.now += 360
  assert limiter.try_acquire(1000) == 0


def test_what_is_on_its_way_is_not_yet_counted_by_the_server():
  clock = Clock()
  limiter = rate_limits.RateLimiter(clock=clock)
  for _ in range(3):
    assert limiter.try_acquire(1) == 0
  limiter.finish(
    1,
    {
      'x-ratelimit-remaining-requests': '3',
      'x-ratelimit-reset-requests': '2s',
    },
  )
  # Three are left, two of them are under way.
  assert limiter.try_acquire(1) == 0
  assert limiter.try_acquire(1) == pytest.approx(2)


def test_the_server_lowers_a_limit_and_does_not_raise_it():
  clock = Clock()
  limiter = rate_limits.RateLimiter(requests_per_minute=3, clock=clock)
  for told in ('2', '50', '-1', 'many'):
    assert limiter.try_acquire(1) == 0
    limiter.finish(1, {'x-ratelimit-limit-requests': told})
    assert limiter.try_acquire(1) == 0
    assert limiter.try_acquire(1) == pytest.approx(60)
    limiter.finish(1, {})
    clock.now += 60


def test_a_pause_holds_for_everyone():
  clock = Clock()
  limiter = rate_limits.RateLimiter(clock=clock)
  limiter.pause(3)
  limiter.pause(1)
  assert limiter.try_acquire(1) == pytest.approx(3)


@pytest.mark.parametrize(
  ('text', 'seconds'),
  [
    ('1s', 1),
    ('6m0s', 360),
    ('12ms', 0.012),
    ('1h2m3.5s', 3723.5),
    ('17.5', 17.5),
    ('0', 0),
    ('', None),
    ('soon', None),
    ('-3', None),
    ('1735689600', None),
    ('nan', None),
  ],
)
def test_durations(text, seconds):
  assert rate_limits.parse_duration(text) == seconds


def test_retry_after():
  read = rate_limits.retry_after_seconds
  assert read({'retry-after': '2.5'}) == 2.5
  assert read({'retry-after': '-1'}) == 0
  assert read({'retry-after-ms': '1500', 'retry-after': '9'}) == 1.5
  assert read({'retry-after': 'Wed, 21 Oct 2015 07:28:00 GMT'}) == 0
  assert 1e6 < read({'retry-after': 'Wed, 21 Oct 2065 07:28:00 GMT'})
  assert read({}) is None and read({'retry-after': 'later'}) is None


# Cost.

LESSONS = Planned('lessons', 100, 150, 40.0, 200)
PROBES = Planned('probes', 10, 10, 33.4, 20, max_calls=3)


def test_a_projection_worked_by_hand():
  price = Price(2.0, 8.0)
  projected = cost.project([LESSONS, PROBES], price)
  # 100*40 + 10*33.4 and 100*1 + 10*1 tokens.
  assert projected.low == Bound(110, 4334, 110, pytest.approx(0.009548))
  # 150*40 + 10*(3*33.4 + 2*20) and 150*200 + 10*3*20 tokens.
  assert projected.high == Bound(160, 7402, 30600, pytest.approx(0.259604))


def test_the_parts_add_up_and_nothing_costs_nothing():
  price = Price(1.0, 1.0)
  both = cost.project([LESSONS, PROBES], price)
  parts = [cost.project([p], price) for p in (LESSONS, PROBES)]
  for end in ('low', 'high'):
    assert getattr(both, end).usd == pytest.approx(
      sum(getattr(p, end).usd for p in parts)
    )
  assert cost.project([], price).high == Bound(0, 0, 0, 0.0)


def test_a_projection_says_what_the_budget_says():
  price = Price(2.0, 8.0)
  text = cost.render([LESSONS, PROBES], price)
  assert text.splitlines() == [
    'lessons: 100 to 150 requests, 4,000 to 6,000 prompt tokens, 100 to '
    '30,000 completion tokens, $0.0088 to 0.2520',
    'probes: 10 requests, 334 to 1,402 prompt tokens, 10 to 600 completion '
    'tokens, $0.0007 to 0.0076',
    'total: 110 to 160 requests, 4,334 to 7,402 prompt tokens, 110 to '
    '30,600 completion tokens, $0.0095 to 0.2596',
  ]
  may = cost.render([LESSONS], price, Budget(max_usd=0.1))
  assert 'the high end crosses the budget: max_usd 0.1' in may
  cannot = cost.render([LESSONS], price, Budget(max_completion_tokens=99))
  assert cannot.endswith('The run cannot finish.')
  assert 'budget' not in cost.render([LESSONS], price, Budget(max_usd=1.0))


@pytest.mark.parametrize(
  'wrong',
  [
    {'low_requests': -1},
    {'high_requests': 99},
    {'prompt_tokens': -1.0},
    {'max_tokens': 0},
    {'max_calls': 0},
  ],
)
def test_impossible_plans_are_refused(wrong):
  fields = {
    'purpose': 'x',
    'low_requests': 100,
    'high_requests': 100,
    'prompt_tokens': 1.0,
    'max_tokens': 200,
  }
  with pytest.raises(ValueError, match="planned requests for 'x'"):
    Planned(**fields | wrong)
  with pytest.raises(ValueError, match='wanted >= 0'):
    Price(-1.0, 0.0)
