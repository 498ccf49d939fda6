"""A run on a bad student ends before the teacher is asked anything."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

from ioa_jax import pipeline
from ioa_jax.models import huggingface
from ioa_jax.runtime import display
from tests import faulty_server, test_text_pipeline, word_problem_teacher
from tests.test_huggingface import edit_json
from tests.test_pipeline import run_config

pytest.importorskip('transformers')

files = test_text_pipeline.files


def nan_in_weights(d):
  path = d / 'model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  tensors['model.norm.weight'][5] = np.nan
  safetensors.numpy.save_file(tensors, path)


def token_without_a_row(d):
  path = d / 'tokenizer.json'
  raw = json.loads(path.read_text())
  raw['model']['vocab']['word'] = 104
  path.write_text(json.dumps(raw))


def template(text):
  return lambda d: edit_json(d / 'tokenizer_config.json', chat_template=text)


def stop_token(value):
  return lambda d: edit_json(d / 'config.json', eos_token_id=value)


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (nan_in_weights, 'parameter final_norm/scale holds NaN'),
    (token_without_a_row, "tokenizer.json: 1 tokens have no row .*'word'"),
    (template('{% if %}'), 'chat template fails'),
    (template("{{ raise_exception('no') }}"), 'chat template fails'),
    (template('?'), 'leaves out what the user says'),
    (stop_token(104), r'config\.json: eos_token_id is 104'),
    (
      lambda d: edit_json(d / 'config.json', max_position_embeddings=8),
      r'a row \(config.train.row_length\) has \d+ tokens',
    ),
    (stop_token([]), r'config\.json: eos_token_id is \[\]'),
  ],
)
def test_nothing_is_asked_for_a_bad_student(
  files,
  tmp_path,
  damage,
  message,
):
  student = tmp_path / 'student'
  shutil.copytree(files / 'student', student)
  damage(student)
  with faulty_server.FaultyServer(
    respond=word_problem_teacher.respond
  ) as server:
    config = test_text_pipeline.config(
      files, server.url, **{'student.model': str(student)}
    )
    with pytest.raises(huggingface.ModelError, match=message):
      run_config(config, tmp_path / 'run')
    assert not server.asked
  assert not (tmp_path / 'run').exists()


def test_a_run_goes_on_only_with_the_student_it_began_with(files, tmp_path):
  student = tmp_path / 'student'
  shutil.copytree(files / 'student', student)
  with faulty_server.FaultyServer(
    respond=word_problem_teacher.respond
  ) as server:
    config = test_text_pipeline.config(
      files, server.url, **{'student.model': str(student)}
    )
    identify = lambda: pipeline.identify(
      config, tmp_path / 'run', display.Display()
    )
    identify()
    asked = len(server.asked)
    identify()  # Nothing has changed.
    path = student / 'model.safetensors'
    tensors = safetensors.numpy.load_file(path)
    tensors['model.norm.weight'][5] += 1
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(
      huggingface.ModelError, match='changed are weights. Put it back'
    ):
      identify()
    assert len(server.asked) == asked
