"""Settings of the domain, the teacher and the student; see `settings`."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Predicate

from ioa_jax.config.kinds import (
  BelowOne,
  Changeable,
  Count,
  CountOrNone,
  Dtype,
  Group,
  NotNegative,
  Positive,
  Remat,
  Share,
)


class Columns(Group):
  """Which columns of the seeds hold what."""

  module: str = 'module'
  """The tag of a seed, as category/module."""
  problem: str = 'problem'
  """What is asked."""
  solution: str = 'solution'
  """A worked answer, which ends in the final one."""
  answer: str = ''
  """The final answer; '' reads it from the solution."""


class Domain(Group):
  """What is taught. Of a built-in domain `kind` and `evaluate_on`
  count."""

  kind: Literal['text', 'arithmetic', 'composition'] = 'text'
  """'text' is a domain of one's own; the others ship with the package."""
  evaluate_on: Literal['held_out', 'development'] = 'held_out'
  """The probes that results are of: 'held_out' is for tables, 'development'
  for choosing settings (built-in domains)."""
  name: str = 'mine'
  """For reports and cards."""
  description: str = ''
  """What the teacher is told that the student is learning, as 'to solve
  grade-school word problems'."""
  source: Literal['file', 'datasets', 'tfds', 'given'] = 'file'
  """Where seeds come from; 'datasets' takes a hub id, as openai/gsm8k:main, and
  'given' is a domain that is handed in from Python."""
  split: str = 'train'
  """Of 'datasets' and 'tfds'."""
  seeds: str = ''
  """The file, hub id or TFDS name of the seeds."""
  taxonomy: str = ''
  """YAML that says what each module stands on; '' takes the seeds' tags as they
  are, without prerequisites."""
  columns: Columns = Columns()
  grader: Literal[
    'number',
    'maths',
    'choice',
    'last_line',
    'code',
    'rouge_l',
    'judge',
    'given',
  ] = 'number'
  r"""How answers are read and compared: 'maths' in \boxed{}, 'choice' A to D,
  'code' by unit tests (the answer is the tests), 'rouge_l' for open answers,
  'judge' asks the model of `judge` about them, 'given' is a grader that is
  handed in from Python."""
  min_probes: Count = 8
  """Of a module, in each of the gate's and the held-out part; fewer are an
  error."""
  max_probes: Count = 16
  """Of a module, likewise; more are left unused."""
  benchmarks: tuple[
    Literal[
      'gsm8k',
      'math',
      'aime2024',
      'humaneval',
      'mbpp',
      'livecodebench',
      'dolly',
      'vicuna',
      'gpqa_diamond',
    ],
    ...,
  ] = ()
  """Benchmarks that no lesson may overlap with."""
  benchmark_dir: str = ''
  """The folder of their files; '' reads the hub."""


class Price(Group):
  """What a model on a server costs."""

  prompt_usd_per_million: Changeable[NotNegative] = 0.0
  """US dollars for a million tokens that it reads."""
  completion_usd_per_million: Changeable[NotNegative] = 0.0
  """US dollars for a million tokens that it writes."""


class TeacherPrice(Price):
  """What a served teacher costs."""

  batch_discount: Changeable[Share] = 0.5
  """Share of these prices that asking in batches saves."""


class Judge(Group):
  """A second model that compares open answers, on any compatible server.

  Waits, attempts and limits for a minute are those of the teacher.
  """

  model: str = ''
  """As the server calls it; '' is no judge. It confirms the lessons of the
  graders 'judge' and 'rouge_l'."""
  base_url: Changeable[str] = 'http://127.0.0.1:8000/v1'
  """Of the server, with its version path."""
  api_key_env: Changeable[str] = ''
  """The environment variable that holds the key; '' sends none."""
  recording: Changeable[str] = ''
  """The judge.sqlite of another run, which is not asked again."""
  price: Price = Price()
  max_usd: Changeable[NotNegative] = 0.0
  """Hard limit in US dollars over all starts of the run; 0 sets none. It needs
  the prices."""
  max_completion_tokens: Changeable[Count] = 1_000_000
  """Hard limit over all starts; nothing is sent that could cross it."""
  max_tokens: Count = 512
  """Tokens of an opinion at most, reasoning included."""
  reasoning_effort: str = ''
  """Passed on to a reasoning model, as 'low'; '' is the server's default."""


class Teacher(Group):
  """Who knows."""

  kind: Literal['openai', 'local', 'replay', 'given'] = 'openai'
  """'openai' is any compatible server, 'local' a model directory, 'replay' the
  answers of `recording` alone, 'given' is handed in from Python."""
  model: str = ''
  """As the server calls it; else a directory, a hub id, or 'builtin'."""
  base_url: Changeable[str] = 'http://127.0.0.1:8000/v1'
  """Of the server, with its version path."""
  api_key_env: Changeable[str] = ''
  """The environment variable that holds the key; '' sends none."""
  recording: Changeable[str] = ''
  """The ledger of another run: what it has an answer to is not asked again."""
  batch: Changeable[Literal['never', 'lessons', 'all']] = 'never'
  """Which requests go to the server's batch API (/v1/batches), for less and
  hours later: none, lessons with their confirmations, or all."""
  max_concurrency: Changeable[Count] = 16
  """Requests that are under way at the same time."""
  requests_per_minute: Changeable[NotNegative] = 0.0
  """Sent at most; 0 sets no limit."""
  tokens_per_minute: Changeable[NotNegative] = 0.0
  """Read and written at most; 0 sets no limit."""
  timeout_seconds: Changeable[Positive] = 600.0
  """Of one whole answer, however slowly it comes."""
  max_attempts: Changeable[Count] = 8
  """Of one request, when the server is busy, fails or cannot be reached."""
  max_retry_after_seconds: Changeable[NotNegative] = 600.0
  """A server that asks to wait for longer ends the run, which can go on."""
  max_regenerations: Changeable[CountOrNone] = 2
  """Further answers after one that is empty or does not fit its schema."""
  max_reply_bytes: Changeable[Count] = 2**24
  """Of one response, unpacked; at least 1024."""
  reasoning_effort: str = ''
  """Passed on to a reasoning model, as 'low'; '' is the server's default."""
  price: TeacherPrice = TeacherPrice()
  max_usd: Changeable[NotNegative] = 0.0
  """Hard limit in US dollars over all starts of the run; 0 sets none. It needs
  the prices."""
  max_completion_tokens: Changeable[Count] = 1_000_000
  """Hard limit over all starts; nothing is sent that could cross it."""
  max_tokens: Count = 1024
  """Tokens of an answer at most, reasoning included."""
  max_unanswered_share: Changeable[Share] = 0.1
  """Of a module's probes: with more that get no answer its score is unknown."""
  temperature: NotNegative = 0.7
  """Of lessons and their confirmations; 0 is greedy."""
  batch_size: Count = 8
  """Requests that a local teacher answers together."""
  scan_unroll: Count = 1
  """Layers laid out in an iteration of the scan; all is fastest on CPU."""
  remat: Remat = 'none'
  """What a backward pass computes again to save memory."""
  dtype: Dtype = 'float32'
  """Of a local teacher's weights and arithmetic."""


class Lora(Group):
  """Adapters in the place of whole weights."""

  rank: CountOrNone = 16
  """0 trains all weights."""
  alpha: Positive = 32.0
  """An adapter's update counts alpha / rank."""
  dropout: BelowOne = 0.05
  """Share of an adapter's inputs that is dropped in training."""
  targets: Annotated[
    tuple[
      Literal[
        'q_proj',
        'k_proj',
        'v_proj',
        'o_proj',
        'gate_proj',
        'up_proj',
        'down_proj',
      ],
      ...,
    ],
    Predicate(bool),
  ] = ('q_proj', 'k_proj', 'v_proj', 'o_proj')
  """The adapted projections, at least one."""


class Student(Group):
  """Who learns."""

  model: str = ''
  """A directory, a preset, a hub id, or 'builtin'."""
  scan_unroll: Count = 1
  """Layers laid out in an iteration of the scan; all is fastest on CPU."""
  remat: Remat = 'full'
  """What the backward pass computes again to save memory."""
  dtype: Dtype = 'float32'
  """Of the arithmetic; weights that train are float32."""
  export_dtype: Dtype = 'bfloat16'
  """Of the weights in RUN/student."""
  batch_size: Count = 16
  """Probes that are answered together."""
  max_tokens: Count = 192
  """Tokens of an answer at most."""
  lora: Lora = Lora()
  quantization: Literal['', 'int8', 'nf4'] = ''
  """Of weights that do not train (QLoRA); '' keeps them whole."""
  thinking: bool = False
  """Let a template with a switch for it (Qwen3, SmolLM3) think before answers.
  Lessons are answers without thoughts, so it is off for teaching."""
