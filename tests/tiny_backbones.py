"""Tiny random backbones of several architectures, each a folder as a user would name it: config, weights, tokenizer."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    T5Config,
)

WORDS = [
    "good",
    "bad",
    "film",
    "plot",
    "a",
    "the",
    "very",
    "not",
    "and",
    "cast",
    "story",
    "it",
    "was",
    "is",
    "dull",
    "great",
]
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "</s>"]
VOCABULARY = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
SIZE = 64

_SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_ENCODER = _SHAPE | {"vocab_size": SIZE, "max_position_embeddings": 64, "pad_token_id": 0}

CONFIGURATIONS = {
    "bert": lambda: BertConfig(**_ENCODER),
    "roberta": lambda: RobertaConfig(**_ENCODER | {"max_position_embeddings": 66}),
    "deberta-v2": lambda: DebertaV2Config(
        **_ENCODER, relative_attention=True, pos_att_type=["p2c", "c2p"], pooler_hidden_size=32
    ),
    "llama": lambda: LlamaConfig(**_SHAPE, num_key_value_heads=2, vocab_size=SIZE, bos_token_id=None, eos_token_id=4),
    "gpt2": lambda: GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=SIZE, n_positions=64, bos_token_id=None, eos_token_id=4
    ),
    "t5": lambda: T5Config(
        d_model=32,
        d_kv=8,
        num_layers=2,
        num_heads=4,
        d_ff=64,
        vocab_size=SIZE,
        decoder_start_token_id=0,
        eos_token_id=4,
    ),
}
DECODERS = ("llama", "gpt2")


def tokenizer_for(architecture: str) -> PreTrainedTokenizerFast:
    """Return a word tokenizer with the special tokens that the architecture expects; decoders have no pad token."""
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens = {"unk_token": "[UNK]", "eos_token": "</s>"}
    if architecture == "t5":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 4)]
        )
    elif architecture not in DECODERS:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
        tokens |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    if architecture not in DECODERS:
        tokens["pad_token"] = "[PAD]"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens)


def make_backbone(architecture: str, folder: Path) -> Path:
    """Write a tiny random backbone without a head into `folder`."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(CONFIGURATIONS[architecture]())
    backbone = getattr(model, model.base_model_prefix)
    backbone.save_pretrained(folder)
    tokenizer_for(architecture).save_pretrained(folder)
    return folder


def make_language_model(architecture: str, folder: Path) -> Path:
    """Write a tiny random backbone with what it predicts tokens with into `folder`; Llama's alone is not tied."""
    torch.manual_seed(0)
    kind = AutoModelForSeq2SeqLM if architecture == "t5" else AutoModelForCausalLM
    kind.from_config(CONFIGURATIONS[architecture]()).save_pretrained(folder)
    tokenizer_for(architecture).save_pretrained(folder)
    return folder
