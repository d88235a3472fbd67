"""A conversation, put together by the backbone's chat template, of which the assistant's turns are learned."""

from __future__ import annotations

from collections.abc import Sequence
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
        conversations = zip(split.texts, split.labels, strict=True)
        return rows_of([_segments(tokenizer, texts, roles, end) for texts, roles in conversations], max_tokens)


def _segments(tokenizer: Any, texts: Sequence[str], roles: Sequence[str], end: int) -> list[Segment]:
    """Return what is read and what is learned, one after the other.

    Raises:
        InputError: the template writes a conversation's beginning anew when it goes on, or takes no such roles.
    """
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
    segments: list[Segment] = []
    written = ""
    for number, role in enumerate(roles):
        if role != ASSISTANT:
            continue
        before = _rendered(tokenizer, messages[:number], add_generation_prompt=True)
        after = _rendered(tokenizer, messages[: number + 1], add_generation_prompt=False)
        if not before.startswith(written) or not after.startswith(before):
            raise InputError(
                "backbone: its chat template writes earlier turns differently once a conversation goes on, so what is learned"
                " can't be told from what is read; give conversations of one question and one answer each"
            )
        told = _tokens(tokenizer, after[len(before) :])
        segments.append((_tokens(tokenizer, before[len(written) :]), False))
        segments.append((told if end in told else [*told, end], True))
        written = after
    return segments


def _rendered(tokenizer: Any, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
    from jinja2 import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    except (TemplateError, ValueError) as error:
        roles = ", ".join(message["role"] for message in messages)
        raise InputError(f"backbone: its chat template takes no conversation of {roles}: {error}") from None
    return text


def _tokens(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
