"""Conversations: turns that follow each other, as lists of messages, or as one turn a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pewb.errors import InputError
from pewb.tasks.tables import column, filled

if TYPE_CHECKING:
    import pandas

    from pewb.tasks.family import Rows

ASSISTANT = "assistant"
"""The role whose turns are learned."""
_ROLES = {"human": "user", "prompter": "user"} | dict.fromkeys(("gpt", "model", "ai", "bot", "chatbot"), ASSISTANT)
"""What others call the roles."""


def messages_of(table: pandas.DataFrame, name: str | int, path: str) -> Rows:
    """Return the texts of each row's messages, and their roles.

    Raises:
        InputError: a row holds no list of messages, or nothing that an assistant says.
    """
    from pandas.api.types import is_list_like

    rows: Rows = []
    for number, value in enumerate(column(table, name, "messages", path), 1):
        messages = list(value) if is_list_like(value) and not isinstance(value, Mapping) else []
        turns = [_turn(one) for one in messages]
        told = [turn for turn in turns if turn is not None]
        if not turns or len(told) < len(turns):
            raise InputError(
                f"task.messages: {path} has no list of messages in row {number}; each is a table with role and content, which is text"
            )
        if ASSISTANT not in [role for role, _ in told[1:]]:
            roles = ", ".join(dict.fromkeys(role for role, _ in told))
            raise InputError(
                f"task.messages: {path} has no answer of an assistant in row {number}, whose roles are {roles}; remove the row, or"
                f" call the role {ASSISTANT}"
            )
        rows.append((tuple(text for _, text in told), tuple(role for role, _ in told)))
    return rows


def _turn(message: Any) -> tuple[str, str] | None:
    """Return a message's role and text."""
    if not isinstance(message, Mapping):
        return None
    role = message.get("role", message.get("from"))
    text = _said(message.get("content", message.get("value")))
    named = str(role).strip().lower()
    return (_ROLES.get(named, named), text) if role is not None and text is not None else None


def _said(content: Any) -> str | None:
    """Return a message's text, which may be in parts; None if there are others than text."""
    from pandas.api.types import is_list_like

    if not is_list_like(content):
        return content if isinstance(content, str) else None
    parts = [] if isinstance(content, Mapping) else list(content)
    found = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    texts = [text for text in found if isinstance(text, str)]
    return "".join(texts) if texts and len(texts) == len(found) else None


def following_turns(
    table: pandas.DataFrame, turn: str | int, speaker: str | int, conversation: str | int, context: int, path: str
) -> Rows:
    """Return, for each turn but a conversation's first, what was said before it and who speaks now; and what is said.

    The label is the conversation, which is divided as a whole.

    Raises:
        InputError: a column is missing, or a conversation is interrupted by another.
    """
    names = {"turn": turn, "speaker": speaker, "conversation": conversation}
    columns = [column(table, name, key, path) for key, name in names.items()]
    filled(columns[2], "conversation", path)
    said: list[str] = []
    rows: Rows = []
    before = None
    begun = set()
    for number, (text, who, where) in enumerate(zip(*columns, strict=True), 1):
        line, person = _in_one_line(text), _in_one_line(who)
        if where != before:
            if where in begun:
                raise InputError(
                    f"task.conversation: in {path} '{where}' goes on in row {number}, after another; sort the rows by conversation"
                )
            said, before = [], where
            begun.add(where)
        if not line or not person:  # a stage direction, or a gap
            continue
        if said:
            prompt = "\n".join([*said[-context:], f"{person}:"])
            rows.append(((prompt, f" {line}"), str(where)))
        said.append(f"{person}: {line}")
    return rows


def replies(
    table: pandas.DataFrame, turn: str | int, speaker: str | int, identifier: str | int, parent: str | int, path: str
) -> Rows:
    """Return, for each turn of an assistant in a tree of turns, the conversation that leads to it, and its roles.

    Raises:
        InputError: a column is missing, or a turn answers one that is not there.
    """
    names = {"turn": turn, "speaker": speaker, "identifier": identifier, "parent": parent}
    columns = [column(table, name, key, path) for key, name in names.items()]
    turns = {
        _name(one): (_in_one_line(role), "" if _is_missing(text) else str(text), _name(above))
        for text, role, one, above in zip(*columns, strict=True)
    }
    rows: Rows = []
    for name, (role, text, above) in turns.items():
        if _ROLES.get(role, role) != ASSISTANT or not text.strip():
            continue
        told, passed, before = [(ASSISTANT, text)], {name}, above
        while before:
            if before not in turns:
                raise InputError(
                    f"task.parent: {path} has a turn that answers '{before}', which is not there; remove it"
                )
            if before in passed:
                raise InputError(
                    f"task.parent: {path} has turns that answer each other in a ring, '{before}' among them"
                )
            passed.add(before)
            who, said, before = turns[before]
            told.append((_ROLES.get(who, who), said))
        if len(told) > 1:
            told.reverse()
            rows.append((tuple(text for _, text in told), tuple(role for role, _ in told)))
    return rows


def _is_missing(value: Any) -> bool:
    return value is None or value != value


def _name(value: Any) -> str:
    """Return a turn's name as text; beside missing ones, whole numbers are read with a decimal point."""
    if _is_missing(value):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _in_one_line(value: Any) -> str:
    return "" if _is_missing(value) else " ".join(str(value).split())
