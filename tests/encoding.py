"""Heads as tests want them: of a task with no files."""

from pewb.heads import head_of
from pewb.tasks import Split, TextClassification


def encode(tokenizer, texts, labels, max_tokens, cache=None):
    """Tokenise the texts of a classification."""
    return head_of(TextClassification()).encode(tokenizer, Split(list(texts), labels), max_tokens, cache)


def encode_split(family, tokenizer, split, max_tokens, cache=None):
    """Tokenise a split of a task of `family`."""
    return head_of(family()).encode(tokenizer, split, max_tokens, cache)
