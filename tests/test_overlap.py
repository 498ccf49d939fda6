"""ROUGE-L: MiniLLM's for Latin letters, every script otherwise."""

import pytest

from ioa_jax.evaluation import final_answers, graders, overlap

pytest.importorskip('rouge_score', reason='needs the extra "eval"')


@pytest.mark.parametrize(
  ('text', 'tokens'),
  [
    ('Привет, мир!', ['привет', 'мир']),
    ('GPU4 是快的', ['gpu4', '是', '快', '的']),
    ('हिन्दी में', ['हिन्दी', 'में']),
    ('กำ', ['กํ', 'า']),
    ('한국어 말', ['한국어', '말']),
    ('ＡＢ１', ['ab1']),
    ('', []),
  ],
)
def test_tokens(text, tokens):
  assert overlap.UnicodeWords().tokenize(text) == tokens


def test_one_latin_name_decides_nothing():
  """Only `gpu` is left of both by a tokenizer that keeps a-z: a score of 1."""
  reference = 'GPU 并行计算能力强，因此训练更快。'
  other = 'GPU 价格昂贵而且功耗很高！'
  assert graders.rouge_l_stemmed_f(other, [reference]) < 0.4
  assert graders.rouge_l_stemmed_f(reference, [reference]) == 1.0


def test_texts_without_latin_letters_can_be_graded():
  grader = final_answers.RougeL()
  for text in (
    'Столица Франции — Париж.',
    '东京是日本的首都。',
    'القاهرة عاصمة مصر',
  ):
    assert grader.fits(text)
    assert grader.is_correct(text, text)
    assert not grader.is_correct('London', text)


def test_the_longest_common_subsequence_by_hand():
  # 2 of 3 words: precision = recall = F = 2/3.
  score = graders.rouge_l_stemmed_f('кот сел тут', ['кот встал тут'])
  assert score == pytest.approx(2 / 3)


def test_latin_references_are_scored_as_before():
  """A foreign phrase in an English text does not change its tokens."""
  from rouge_score import rouge_scorer

  scorer = rouge_scorer.RougeScorer(['rougeL'], use_stemmer=True)
  for reference, answer in (
    ('The café opens at nine (九时).', 'It opens at nine.'),
    ('Été in Москва runs long.', 'Summer runs long'),
    ('42', '42'),
  ):
    assert graders.rouge_l_stemmed_f(answer, [reference]) == (
      scorer.score(reference, answer)['rougeL'].fmeasure
    )
