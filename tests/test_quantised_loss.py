"""The script that measures what rounding costs, against the definition."""

import json
import pathlib
import runpy

import numpy as np
import pytest

from ioa_jax.models import decoder, huggingface, quantised, vocabulary
from tests import test_text_pipeline
from tests.test_scripts import run

pytest.importorskip('qwix', reason="pip install -e '.[qlora]'")
SCRIPT = pathlib.Path(__file__).parents[1] / 'scripts' / 'quantised_loss.py'
ROWS = [
  {'question': f'What is {i} plus one?', 'answer': f'It is {i + 1}.'}
  for i in range(5)
]


def test_it_is_the_mean_over_tokens(tmp_path):
  model = tmp_path / 'model'
  test_text_pipeline.write_student(model)
  config = huggingface.read_config(model)
  params = huggingface.load_params(model, config)
  codec = vocabulary.ChatCodec(model)

  def loss(params, rows):
    total = []
    for row in rows:
      prompt, answer = (
        codec.prompt(row['question']),
        codec.answer(row['answer']),
      )
      token = np.array([prompt + answer])
      one = np.ones_like(token)
      hidden = decoder.forward(
        config, params, token, one, np.arange(token.size)[None]
      )
      logits = np.asarray(decoder.unembed(config, params, hidden))[0, :-1]
      p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
      chosen = p[np.arange(len(p)), token[0, 1:]]
      total += [*-np.log(chosen[len(prompt) - 1 :])]
    return np.mean(total)

  script = runpy.run_path(str(SCRIPT))
  texts = [(r['question'], r['answer']) for r in ROWS]
  found = script['losses'](str(model), texts)
  assert list(found) == ['', 'int8', 'nf4']
  for kind, got in found.items():
    rounded = quantised.quantise_projections(params, kind) if kind else params
    assert got == pytest.approx(loss(rounded, ROWS), abs=1e-5)
  assert len(set(found.values())) == 3

  file = tmp_path / 'rows.jsonl'
  file.write_text(''.join(json.dumps(r) + '\n' for r in ROWS))
  done = run(
    f'--model={model}', f'--file={file}', '--rows=3', script=SCRIPT.name
  )
  assert done.returncode == 0, done.stderr
  assert '3 answers' in done.stdout
  assert f'| whole | {loss(params, ROWS[:3]):.4f} | +0.0000 |' in done.stdout
