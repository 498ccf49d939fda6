"""The same rows from a file, from `datasets` and from TFDS, all local."""

import json

import pytest

from ioa_jax.domains import seed_sources

ROWS = [
  {'question': f'What is {n} + 1?', 'answer': f'So.\n#### {n + 1}'}
  for n in range(5)
]
COLUMNS = ('question', 'answer')


def values(rows):
  return [dict(row) for _, row in rows]


@pytest.fixture
def lines(tmp_path):
  path = tmp_path / 'seeds' / 'train.jsonl'
  path.parent.mkdir()
  path.write_text('\n'.join(map(json.dumps, ROWS)) + '\n')
  return path


def test_from_a_file(lines):
  rows = seed_sources.read('file', str(lines), '', COLUMNS)
  assert values(rows) == ROWS and rows[1][0] == f'{lines}:2'


def test_from_datasets(lines, tmp_path, monkeypatch):
  monkeypatch.setenv('HF_DATASETS_CACHE', str(tmp_path / 'cache'))
  rows = seed_sources.read('datasets', str(lines.parent), 'train', COLUMNS)
  assert values(rows) == ROWS
  assert rows[1][0] == f'{lines.parent}[train]:1'


def test_from_tfds_without_tensorflow(tmp_path):
  tfds = pytest.importorskip('tensorflow_datasets')
  from array_record.python import array_record_module
  from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

  path = tmp_path / 'toy' / '1.0.0'
  path.mkdir(parents=True)
  text = tfds.features.Text()
  tfds.features.FeaturesDict(dict.fromkeys(COLUMNS, text)).save_config(path)
  (path / 'dataset_info.json').write_text(json.dumps({
    'name': 'toy', 'version': '1.0.0', 'fileFormat': 'array_record',
    'moduleName': 'toy',
    'splits': [{
      'name': 'train', 'shardLengths': ['5'], 'numBytes': '100',
      'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
    }],
  }))  # fmt: skip
  writer = array_record_module.ArrayRecordWriter(
    str(path / 'toy-train.array_record-00000-of-00001'), 'group_size:1'
  )
  for row in ROWS:
    feature = {
      name: tf_feature_pb2.Feature(
        bytes_list=tf_feature_pb2.BytesList(value=[value.encode()])
      )
      for name, value in row.items()
    }
    example = tf_example_pb2.Example(
      features=tf_feature_pb2.Features(feature=feature)
    )
    writer.write(example.SerializeToString())
  writer.close()
  rows = seed_sources.read('tfds', str(path), 'train', COLUMNS)
  assert values(rows) == ROWS


@pytest.mark.parametrize('source', ['file', 'datasets', 'tfds'])
def test_what_is_not_there_is_one_line(source, tmp_path, monkeypatch):
  monkeypatch.setenv('HF_HUB_OFFLINE', '1')
  with pytest.raises(ValueError, match='nothing_here') as e:
    seed_sources.read(source, str(tmp_path / 'nothing_here'), 'train', COLUMNS)
  assert '\n' not in str(e.value)


def test_a_wrong_split_is_named(lines):
  with pytest.raises(ValueError, match="split 'exam': datasets cannot read"):
    seed_sources.read('datasets', str(lines.parent), 'exam', COLUMNS)
