"""Texts to tokens: cuts are counted, pairs are kept apart, special tokens in a text are text."""

import pytest

from pewb import batching
from pewb.batching import encode
from tests.tiny_backbones import tokenizer_for


@pytest.mark.parametrize("architecture", ["bert", "t5", "llama"])
def test_longer_texts_are_cut_and_counted(architecture):
    tokenizer = tokenizer_for(architecture)
    data = encode(tokenizer, [("a good film",), ("the plot was good and it was great",)], [1, 1], 5)
    assert data.num_cut == 1
    assert max(data.lengths) == 5
    assert len(data) == 2


def test_pairs_of_an_encoder_are_kept_apart_by_its_separator():
    data = encode(tokenizer_for("bert"), [("a film", "the plot")], [1], 16)
    ids = data.features["input_ids"][0]
    assert (ids[0], ids[3], ids[6], len(ids)) == (1, 2, 2, 7)


def test_pairs_of_a_decoder_are_two_lines():
    tokenizer = tokenizer_for("llama")
    apart = encode(tokenizer, [("a film\nthe plot",)], [1], 16)
    assert (
        encode(tokenizer, [("a film", "the plot")], [1], 16).features["input_ids"][0] == apart.features["input_ids"][0]
    )


def test_special_tokens_in_a_text_are_text():
    data = encode(tokenizer_for("t5"), [("a good </s> film",)], [1], 16)
    assert data.features["input_ids"][0].count(4) == 1


TEXTS = [("a good film",), ("the plot was good and it was great",)]


def test_what_was_tokenised_once_is_read_by_the_next_run(tmp_path, monkeypatch):
    first = encode(tokenizer_for("bert"), TEXTS, [1, 1], 5, tmp_path)
    monkeypatch.setattr(batching, "_tokenised", None)
    again = encode(tokenizer_for("bert"), TEXTS, [1, 1], 5, tmp_path)
    assert again.features[:] == first.features[:]
    assert (again.lengths, again.num_cut) == (first.lengths, first.num_cut) == ([5, 5], 1)


@pytest.mark.parametrize(
    ("architecture", "texts", "max_tokens"),
    [("t5", TEXTS, 5), ("bert", TEXTS, 6), ("bert", TEXTS[::-1], 5), ("bert", [("a", "film"), ("b", "plot")], 5)],
)
def test_anything_else_is_tokenised_anew(architecture, texts, max_tokens, tmp_path):
    encode(tokenizer_for("bert"), TEXTS, [1, 1], 5, tmp_path)
    stored = encode(tokenizer_for(architecture), texts, [1, 1], max_tokens, tmp_path)
    plain = encode(tokenizer_for(architecture), texts, [1, 1], max_tokens)
    assert stored.features[:] == plain.features[:]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_or_unwritable_cache_costs_only_time(tmp_path):
    first = encode(tokenizer_for("bert"), TEXTS, [1, 1], 5, tmp_path)
    [place] = tmp_path.iterdir()
    (place / "cut.json").write_text("")
    assert encode(tokenizer_for("bert"), TEXTS, [1, 1], 5, tmp_path).features[:] == first.features[:]
    assert (place / "cut.json").read_text() == "1"
    (tmp_path / "file").write_text("")
    assert encode(tokenizer_for("bert"), TEXTS, [1, 1], 5, tmp_path / "file").features[:] == first.features[:]
