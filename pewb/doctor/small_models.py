"""What the doctor trains: random backbones, a tokenizer of whole words and texts, so that nothing is downloaded."""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from pathlib import Path

_SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "</s>")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Size:
    """How large the backbones and their inputs are."""

    hidden_size: int
    num_layers: int
    vocabulary: int
    num_tokens: int
    """Of the longer half of the texts; the others are shorter, so that there is padding, as in most data."""
    num_texts: int


SIZES = {"cpu": Size(256, 4, 4000, 96, 32), "cuda": Size(1024, 8, 32000, 256, 64)}
"""On a GPU large enough that its allocator's rounding and the libraries' workspaces are small beside it."""


def size_for(device_kind: str) -> Size:
    """Return the size that suits a kind of device."""
    return SIZES.get(device_kind, SIZES["cpu"])


def write_models(size: Size, folder: Path) -> None:
    """Write an `encoder` (BERT), a `language_model` (Llama) and a file of random texts for each split into `folder`."""
    import torch
    from transformers import AutoModel, AutoModelForCausalLM, BertConfig, LlamaConfig

    shape = {
        "hidden_size": size.hidden_size,
        "num_hidden_layers": size.num_layers,
        "num_attention_heads": size.hidden_size // 64,
        "intermediate_size": 4 * size.hidden_size,
        "vocab_size": size.vocabulary,
        "max_position_embeddings": 2 * size.num_tokens,
        "pad_token_id": 0,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModel.from_config(BertConfig(**shape)).save_pretrained(folder / "encoder")
        heads = max(1, size.hidden_size // 128)
        llama = LlamaConfig(**shape, num_key_value_heads=heads, bos_token_id=None, eos_token_id=4)
        AutoModelForCausalLM.from_config(llama).save_pretrained(folder / "language_model")
    words = [f"word{number}" for number in range(size.vocabulary - len(_SPECIAL))]
    for name in ("encoder", "language_model"):
        _write_tokenizer(words, is_encoder=name == "encoder", folder=folder / name)
    drawn = random.Random(0)
    for split in SPLITS:
        lengths = [size.num_tokens - place % 2 * size.num_tokens // 8 for place in range(size.num_texts)]
        texts = [" ".join(drawn.choices(words, k=length - 1)) for length in lengths]
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            rows = [(text, ("yes", "no")[place % 2]) for place, text in enumerate(texts)]
            csv.writer(file).writerows([("text", "label"), *rows])


def _write_tokenizer(words: list[str], is_encoder: bool, folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate([*_SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens = {"unk_token": "[UNK]", "eos_token": "</s>", "pad_token": "[PAD]"}
    if is_encoder:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
        tokens |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens).save_pretrained(folder)
