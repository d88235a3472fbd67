"""Texts to tokens: cuts are counted, pairs are kept apart, special tokens in a text are text."""

import json

import pytest
import torch
from tokenizers import processors

from pewb.batching import Collated
from pewb.errors import InputError
from pewb.heads import texts as texts_of_heads
from pewb.tasks import CausalLm, Seq2Seq, Split
from tests.encoding import encode, encode_split
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
    monkeypatch.setattr(texts_of_heads, "_tokenised", None)
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
    (place / "told.json").write_text("")
    assert encode(tokenizer_for("bert"), TEXTS, [1, 1], 5, tmp_path).features[:] == first.features[:]
    assert json.loads((place / "told.json").read_text()) == {"num_cut": 1}
    (tmp_path / "file").write_text("")
    assert encode(tokenizer_for("bert"), TEXTS, [1, 1], 5, tmp_path / "file").features[:] == first.features[:]


PAIRS = Split([("a good film", "it was great"), ("the plot", "dull")])
"""In tokens: 9 5 7 and 16 17 20; 10 8 and 19."""


def test_a_prompt_is_read_and_its_completion_learned():
    data = encode_split(CausalLm, tokenizer_for("llama"), PAIRS, 16)
    assert data.features["input_ids"][:] == [[9, 5, 7, 16, 17, 20, 4], [10, 8, 19, 4]]
    assert data.features["labels"][:] == [[-100, -100, -100, 16, 17, 20, 4], [-100, -100, 19, 4]]
    assert (data.lengths, data.weights, data.num_cut) == ([7, 4], [4, 2], 0)


def test_without_a_prompt_all_but_the_first_token_is_learned():
    data = encode_split(CausalLm, tokenizer_for("llama"), Split([("it was great",)]), 16)
    assert data.features["labels"][0] == [-100, 17, 20, 4]
    assert data.weights == [3]


def test_a_begin_token_is_read_and_predicts_the_first():
    tokenizer = tokenizer_for("llama")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", 1)]
    )
    data = encode_split(CausalLm, tokenizer, Split([("it was great",)]), 16)
    assert data.features["input_ids"][0] == [1, 16, 17, 20, 4]
    assert data.features["labels"][0] == [-100, 16, 17, 20, 4]


def test_what_is_too_long_loses_the_prompts_beginning_or_the_end():
    data = encode_split(CausalLm, tokenizer_for("llama"), PAIRS, 5)
    assert data.features["input_ids"][:] == [[7, 16, 17, 20, 4], [10, 8, 19, 4]]
    assert (data.weights, data.num_cut) == ([4, 2], 1)
    pairs = encode_split(Seq2Seq, tokenizer_for("t5"), PAIRS, 3)
    assert pairs.features["input_ids"][:] == [[9, 5, 4], [10, 8, 4]]
    assert pairs.features["labels"][:] == [[16, 17, 4], [19, 4]]
    assert (pairs.lengths, pairs.weights, pairs.num_cut) == ([6, 5], [3, 2], 1)


@pytest.mark.parametrize(("family", "architecture"), [(CausalLm, "llama"), (Seq2Seq, "t5")])
def test_padding_is_no_target(family, architecture):
    tokenizer = tokenizer_for(architecture)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    data = encode_split(family, tokenizer, PAIRS, 16)
    inputs, labels = Collated(tokenizer, data, torch.device("cpu"))([1, 0])
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape
    assert (labels != -100).sum(1).tolist() == [data.weights[1], data.weights[0]]
    assert labels[0].tolist()[-2:] == [-100, -100]
    assert labels[1].tolist()[-1] == 4, "the end is learned, though it also pads"


def test_a_decoder_that_can_not_end_is_no_use():
    tokenizer = tokenizer_for("llama")
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="has no end token"):
        encode_split(CausalLm, tokenizer, PAIRS, 16)


def test_each_family_has_tokens_of_its_own_in_the_cache(tmp_path):
    tokenizer = tokenizer_for("t5")
    encode(tokenizer, PAIRS.texts, [0, 1], 16, tmp_path)
    stored = [encode_split(family, tokenizer, PAIRS, 16, tmp_path) for family in (CausalLm, Seq2Seq, CausalLm)]
    assert len(list(tmp_path.iterdir())) == 3
    for family, data in zip((CausalLm, Seq2Seq, CausalLm), stored, strict=True):
        plain = encode_split(family, tokenizer, PAIRS, 16)
        assert data.features[:] == plain.features[:]
        assert (data.lengths, data.weights) == (plain.lengths, plain.weights)


@pytest.mark.parametrize("kind", ["cpu", "meta"])
def test_batches_are_on_the_device_whatever_its_kind(kind):
    """Of the kinds that there are everywhere, "meta" is one that is neither a CPU nor CUDA."""
    tokenizer = tokenizer_for("bert")
    batches = Collated(tokenizer, encode(tokenizer, [("a film",), ("the plot",)], [0, 1], 16), torch.device(kind))
    inputs, labels = batches([0, 1])
    assert {one.device.type for one in (*inputs.values(), labels)} == {kind}
