"""A conversation, put together by the backbone's chat template, of which the assistant's turns are learned."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pewb.batching import Tokenised
from pewb.errors import InputError
from pewb.heads.causal_lm import NextTokens, Segment, end_token, rows_of
from pewb.tasks import Split
from pewb.tasks.conversations import ASSISTANT


class ChatTokens(NextTokens):
    """The loss of what the assistant says, and of where it stops."""

    def _tokenised(self, tokenizer: Any, split: Split, max_tokens: int) -> Tokenised:
        """Return each conversation as one sequence; one that is too long loses its beginning."""
        if not tokenizer.chat_template:
            raise InputError(
                "backbone: its tokenizer has no chat template, so conversations can't be put together; name an instruction-"
                'tuned one, or give prompts and completions: task = { kind = "causal_lm", prompt = "…", completion = "…" }'
            )
        end = end_token(tokenizer)
        writer = _Writer(tokenizer, _special_tokens(tokenizer))
        conversations = zip(split.texts, split.labels, strict=True)
        return rows_of([_segments(writer, texts, roles, end) for texts, roles in conversations], max_tokens)


def _segments(writer: _Writer, texts: Sequence[str], roles: Sequence[str], end: int) -> list[Segment]:
    """Return what is read and what is learned, one after the other; with what an assistant begins is read.

    The tokenizer's `end` comes after the last turn alone: where the template ends turns otherwise, a conversation goes on
    without it.

    Raises:
        InputError: the template writes a conversation's beginning anew when it goes on, or takes no such roles.
    """
    messages = [{"role": role, "content": writer.masked(text)} for role, text in zip(roles, texts, strict=True)]
    segments: list[Segment] = []
    written = ""
    answers = [number for number, role in enumerate(roles) if role == ASSISTANT and number]
    for number in answers:
        before = writer.rendered(messages[:number], add_generation_prompt=True)
        after = writer.rendered(messages[: number + 1], add_generation_prompt=False)
        if not before.startswith(written) or not after.startswith(before):
            raise InputError(
                "backbone: its chat template writes earlier turns differently once a conversation goes on, so what is learned"
                " can't be told from what is read; give conversations of one question and one answer each"
            )
        told = writer.tokens(after[len(before) :])
        segments.append((writer.tokens(before[len(written) :]), False))
        segments.append((told if end in told or number != answers[-1] else [*told, end], True))
        written = after
    return segments


@dataclass(frozen=True)
class _Writer:
    """Puts conversations together, and makes tokens of them: special ones of the template's, none of what people said."""

    tokenizer: Any
    special: Sequence[str]

    def masked(self, text: str) -> str:
        """Return a text with a mark in the place of what would be a special token."""
        text = text.replace(_MARK, "")
        for number, token in enumerate(self.special):
            text = text.replace(token, f"{_MARK}{number}{_MARK}")
        return text

    def rendered(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        """Return messages as the template writes them.

        Raises:
            InputError: it takes no such roles.
        """
        from jinja2 import TemplateError

        try:
            text: str = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except (TemplateError, ValueError) as error:
            roles = ", ".join(message["role"] for message in messages)
            raise InputError(f"backbone: its chat template takes no conversation of {roles}: {error}") from None
        return text

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a part of what the template wrote."""
        parts = re.split(f"{_MARK}(\\d+){_MARK}", text)
        ids: list[int] = []
        for place, part in enumerate(parts):
            is_marked = place % 2 == 1
            token = self.special[int(part)] if is_marked else ""
            for words in (token[:1], token[1:]) if is_marked else (part,):  # in two, nothing takes it for the token
                ids += self.tokenizer(words, add_special_tokens=False, split_special_tokens=is_marked)["input_ids"]
        return ids


_MARK = "\ue000"
"""Of the characters that stand for nothing."""


def _special_tokens(tokenizer: Any) -> list[str]:
    """Return what a tokenizer takes for special tokens, or its template writes as tokens of their own, the longest first."""
    added = tokenizer.added_tokens_decoder.values()
    found = {one.content for one in added if one.special or one.content in str(tokenizer.chat_template)}
    return sorted(found, key=lambda token: (-len(token), token))
