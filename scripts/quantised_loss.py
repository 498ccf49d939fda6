r"""What a student loses when its projections are in 8 or 4 bits.

  python scripts/quantised_loss.py --model=DIR --file=DATA/gsm8k/test.jsonl

Prints, for each kind of config.student.quantization, the mean loss in nats a
token of the file's answers, each behind its question in the model's chat
template, and what is added to the loss of whole weights.
"""

from collections.abc import Sequence
import pathlib

from absl import flags

from ioa_jax.runtime import commandline, terminal

_MODEL = flags.DEFINE_string('model', None, 'Directory, preset or hub id.')
_FILE = flags.DEFINE_string(
  'file', None, 'Rows with the columns question and answer, as GSM8K has them.'
)
_ROWS = flags.DEFINE_integer('rows', 24, 'The first of them.', lower_bound=1)
flags.mark_flags_as_required(['model', 'file'])


def losses(model: str, rows: Sequence[tuple[str, str]]) -> dict[str, float]:
  """Kind of quantization ('' is none) to mean loss in nats a token.

  Args:
    rows: questions and answers.
  """
  import numpy as np

  from ioa_jax.models import hub, loading, quantised, vocabulary
  from ioa_jax.sampling import likelihood

  directory = hub.locate(model)
  found = {}
  for kind in ('', *quantised.KINDS):
    loaded = loading.load(directory, model, quantization=kind)
    codec = vocabulary.ChatCodec(loaded.directory)
    read = likelihood.Likelihood(loaded.config, batch_size=8)
    log_probs = read(
      loaded.params,
      [codec.prompt(question) for question, _ in rows],
      [codec.answer(answer) for _, answer in rows],
    )
    found[kind] = -float(np.mean(np.concatenate(log_probs)))
  return found


def main(argv: Sequence[str]) -> None:
  del argv
  from ioa_jax.runtime import row_files

  columns = ('question', 'answer')
  rows = row_files.read(pathlib.Path(_FILE.value), columns)[: _ROWS.value]
  texts = [
    tuple(row_files.text_field(where, row, name) for name in columns)
    for where, row in rows
  ]
  found = losses(_MODEL.value, texts)
  terminal.say(f'| weights | nats a token, {len(texts)} answers | more |')
  terminal.say('|---|---|---|')
  for kind, loss in found.items():
    more = loss - found['']
    terminal.say(f'| {kind or "whole"} | {loss:.4f} | {more:+.4f} |')


if __name__ == '__main__':
  commandline.run(main)
