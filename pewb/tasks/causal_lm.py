"""Causal language modelling: a text is continued, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pewb.tasks.completions import Completions
from pewb.tasks.conversations import ASSISTANT, following_turns, messages_of, replies
from pewb.tasks.examples import Split
from pewb.tasks.family import Rows
from pewb.tasks.model_heads import CAUSAL_LM, ModelHead
from pewb.tasks.splits import text_key
from pewb.tasks.tables import column
from pewb.tasks.templates import is_template

if TYPE_CHECKING:
    import pandas


class CausalLm(Completions):
    """The keys of a `task` table with `kind = "causal_lm"`: plain text, prompts with completions, or conversations."""

    kind: Literal["causal_lm"] = "causal_lm"
    prompt: str | int | None = None
    """The column with what is read and not learned, or a text with columns in braces; left out: `completion` is plain text.

    Plain text that is longer than `training.max_tokens` becomes several rows, and every token of it is learned.
    """
    messages: str | int | None = None
    """The column with lists of messages, each a role and a content; the backbone's chat template puts them together, and
    what the assistant says is learned."""
    turn: str | int | None = None
    """The column with what is said, of a file with one turn a row; `speaker` says who, and `conversation` in which."""
    speaker: str | int | None = None
    """The column with who says it."""
    conversation: str | int | None = None
    """Turns in a row with the same value belong together, and are never divided between the splits."""
    context: int | None = Field(default=None, ge=1)
    """Turns before the one that is learned; left out: 4."""

    identifier: str | int | None = None
    """The column with a turn's name."""
    parent: str | int | None = None
    """The column with the name of the turn that it answers, of a file that holds trees of turns; each
    answer of an assistant, with all that leads to it, is a chat."""

    model_head: ClassVar[ModelHead] = CAUSAL_LM

    @model_validator(mode="after")
    def _is_one_kind_of_text(self) -> CausalLm:
        turns = (self.turn, self.speaker, self.conversation)
        if any(one is not None for one in turns) and None in turns:
            raise ValueError("turn, speaker and conversation go together: give the column of each, or none")
        given = [self.prompt is not None, self.messages is not None, self.turn is not None]
        if sum(given) > 1:
            raise ValueError("give one of prompt, messages and turn: they are three forms of data")
        if (self.identifier is None) != (self.parent is None) or (self.parent is not None and self.turn is None):
            raise ValueError("identifier and parent go together, and with turn, speaker and conversation")
        if self.context is not None and (self.turn is None or self.parent is not None):
            raise ValueError("context counts turns: it needs turn, speaker and conversation, and no parent")
        return self

    @property
    def form(self) -> str:
        """Chats are put together by the backbone's template."""
        return "chat" if self.is_chat else "causal_lm"

    @property
    def training_options(self) -> tuple[str, ...]:
        """Texts that are continued may share a row."""
        return ("label_smoothing", "packing")

    @property
    def is_chat(self) -> bool:
        """Whether its examples are messages with roles."""
        return self.messages is not None or self.parent is not None

    def rows(self, table: pandas.DataFrame, path: str) -> Rows:
        """Return the texts of each row; with the messages' roles, or with the conversation that a turn belongs to."""
        if self.messages is not None:
            return messages_of(table, self.messages, path)
        if self.turn is not None:
            assert self.speaker is not None
            assert self.conversation is not None
            if self.identifier is not None and self.parent is not None:
                return replies(table, self.turn, self.speaker, self.identifier, self.parent, path)
            return following_turns(table, self.turn, self.speaker, self.conversation, self.context or 4, path)
        if self.prompt is None and not is_template(self.completion):
            texts = column(table, self.completion, "completion", path)
            told = texts.notna() & (texts.astype(str).str.strip() != "")  # blank lines of plain text are no examples
            return super().rows(table[told.to_numpy()], path)
        return super().rows(table, path)

    def written(self, texts: tuple[str, ...], label: Any, names: Sequence[str]) -> dict[str, Any]:
        """Return the messages, or what texts without roles are."""
        if not self.is_chat:
            return super().written(texts, label, names)
        turns = zip(label, texts, strict=True)
        return {"messages": [{"role": role, "content": text} for role, text in turns]}

    def written_keys(self, num_texts: int, names: Sequence[str]) -> dict[str, Any]:
        """Return what the texts are."""
        if not self.is_chat:
            return super().written_keys(num_texts, names)
        return {"kind": self.kind, "messages": "messages"}

    def why_not_written(self) -> str | None:
        """Conversations have something to answer to."""
        return None if self.messages is not None or self.turn is not None else super().why_not_written()

    def to_be_written(self, texts: tuple[str, ...], label: Any) -> str:
        """Return the completion, or what the assistant says last."""
        if not self.is_chat:
            return super().to_be_written(texts, label)
        return next(text for role, text in zip(reversed(label), reversed(texts), strict=True) if role == ASSISTANT)

    def split_key(self, texts: tuple[str, ...], label: Any) -> str:
        """Divide conversations as a whole: those with the same beginning, or of the same name."""
        if self.is_chat:
            asked = label.index("user") if "user" in label else 0  # what stands before may be the same in every chat
            return text_key(texts[: asked + 1])
        return text_key((label,)) if self.turn is not None else super().split_key(texts, label)

    def _split(self, rows: Rows) -> Split:
        labels = [roles for _, roles in rows] if self.is_chat else []
        return Split([texts for texts, _ in rows], labels)
