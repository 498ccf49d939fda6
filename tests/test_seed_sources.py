"""The same rows from a file, from `datasets` and from TFDS, all local."""

import json

import datasets
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
  (path / 'dataset_info.json').write_text(
    json.dumps(
      {
        'name': 'toy',
        'version': '1.0.0',
        'fileFormat': 'array_record',
        'moduleName': 'toy',
        'splits': [
          {
            'name': 'train',
            'shardLengths': ['5'],
            'numBytes': '100',
            'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
          }
        ],
      }
    )
  )
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


def saved(path, splits=False):
  dataset = datasets.Dataset.from_list(ROWS)
  if splits:
    dataset = datasets.DatasetDict({'train': dataset})
  dataset.save_to_disk(str(path))


def parquet(path):
  datasets.Dataset.from_list(ROWS).to_parquet(str(path))


@pytest.mark.parametrize(
  ('source', 'name', 'write'),
  [
    ('file', 'seeds.parquet', parquet),
    ('file', 'saved', saved),
    ('file', 'saved', lambda path: saved(path, splits=True)),
    ('datasets', 'saved', saved),
    ('datasets', 'saved', lambda path: saved(path, splits=True)),
  ],
)
def test_what_datasets_wrote(tmp_path, source, name, write):
  write(tmp_path / name)
  rows = seed_sources.read(source, str(tmp_path / name), 'train', COLUMNS)
  assert values(rows) == ROWS
  assert str(tmp_path / name) in rows[1][0] and rows[1][0].endswith(':1')
  with pytest.raises(ValueError, match=r"no column 'task'; there is"):
    seed_sources.read(source, str(tmp_path / name), 'train', ('task',))


def test_a_split_that_was_not_saved_is_named(tmp_path):
  saved(tmp_path / 'saved', splits=True)
  with pytest.raises(ValueError, match=r"no such split; there is \['train'\]"):
    seed_sources.read('datasets', str(tmp_path / 'saved'), 'exam', COLUMNS)


def turn(role, content, speaker='role', said='content'):
  return {speaker: role, said: content}


PAIR = ('problem', 'solution')


@pytest.mark.parametrize(
  ('row', 'pair'),
  [
    ({'messages': [turn('user', 'Q'), turn('assistant', 'A')]}, ('Q', 'A')),
    (
      {
        'messages': [
          turn('system', 'S'),
          turn('user', 'Q'),
          turn('assistant', 'A'),
          turn('user', 'then'),
          turn('assistant', 'B'),
        ]
      },
      ('Q', 'A'),
    ),
    (
      {
        'conversations': [
          turn('human', 'Q', 'from', 'value'),
          turn('gpt', 'A', 'from', 'value'),
        ]
      },
      ('Q', 'A'),
    ),
    (
      {
        'messages': [
          turn('user', [{'type': 'text', 'text': 'Q'}]),
          turn('assistant', 'A'),
        ]
      },
      ('Q', 'A'),
    ),
    # Columns of that name come first.
    ({'problem': 'P', 'solution': 'S', 'messages': 'chat'}, ('P', 'S')),
  ],
)
def test_a_chat_is_its_first_question_and_answer(tmp_path, row, pair):
  path = tmp_path / 'chat.jsonl'
  path.write_text(json.dumps(row))
  ((_, got),) = seed_sources.read('file', str(path), '', PAIR)
  assert (got['problem'], got['solution']) == pair


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    ({'messages': 'Q'}, "column 'messages' must be a list of turns"),
    ({'messages': ['Q']}, "column 'messages' must be a list of turns"),
    ({'messages': [turn('assistant', 'A')]}, 'no turn .* is of the user'),
    ({'messages': [turn('user', 'Q')]}, "no column 'solution'"),
  ],
)
def test_a_chat_that_is_none_is_named(tmp_path, row, message):
  path = tmp_path / 'chat.jsonl'
  path.write_text(json.dumps(row))
  with pytest.raises(ValueError, match=f'{path}:1: {message}'):
    seed_sources.read('file', str(path), '', PAIR)


def test_a_question_alone_is_a_prompt(tmp_path):
  path = tmp_path / 'chat.jsonl'
  path.write_text(json.dumps({'messages': [turn('user', 'Q')]}))
  ((_, row),) = seed_sources.read('file', str(path), '', ('problem',))
  assert row['problem'] == 'Q' and 'solution' not in row


@pytest.mark.parametrize('source', ['file', 'datasets', 'tfds'])
def test_what_is_not_there_is_one_line(source, tmp_path, monkeypatch):
  monkeypatch.setenv('HF_HUB_OFFLINE', '1')
  with pytest.raises(ValueError, match='nothing_here') as e:
    seed_sources.read(source, str(tmp_path / 'nothing_here'), 'train', COLUMNS)
  assert '\n' not in str(e.value)


@pytest.mark.parametrize(
  ('name', 'data', 'message'),
  [
    ('s.jsonl', b'{"question": "\xff"}', r's\.jsonl:1: byte 0xff is not UTF-8'),
    ('s.json', b'[' * 100_000, r's\.json: not JSON'),
    ('s.jsonl', b'{"a": ' * 100_000, r's\.jsonl:1: not JSON'),
    ('s.jsonl', b'{"a": ' + b'9' * 5000 + b'}', r's\.jsonl:1: not JSON'),
    ('s.json', b'[{"a": ' + b'9' * 5000 + b'}]', r's\.json: not JSON'),
    ('s.jsonl', b'[1]\n', r's\.jsonl:1: a row must be an object'),
    ('s.jsonl.gz', b'no gzip', r's\.jsonl\.gz: cannot be read'),
    ('s.parquet', b'PAR1 no', r's\.parquet.*file cannot read it'),
    ('s.csv', b'question,answer\n"a', r's\.csv:\d: not CSV'),
    ('s.jsonl', b'', r's\.jsonl: no rows'),
  ],
)
def test_a_damaged_file_is_named_in_one_line(tmp_path, name, data, message):
  (tmp_path / name).write_bytes(data)
  with pytest.raises(ValueError, match=message) as caught:
    seed_sources.read('file', str(tmp_path / name), 'train', COLUMNS)
  assert '\n' not in str(caught.value)


def test_a_field_of_a_csv_may_be_long(tmp_path):
  path = tmp_path / 's.csv'
  path.write_text(f'question,answer\n{"x" * 200_000},7\n')
  ((_, row),) = seed_sources.read('file', str(path), '', COLUMNS)
  assert len(row['question']) == 200_000


def test_a_wrong_split_is_named(lines):
  with pytest.raises(ValueError, match="split 'exam': datasets cannot read"):
    seed_sources.read('datasets', str(lines.parent), 'exam', COLUMNS)
