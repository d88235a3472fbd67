"""Texts to tokens: cuts are counted, pairs are kept apart, special tokens in a text are text."""

import pytest

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
