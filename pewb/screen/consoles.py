"""Where words go: answers to standard output, all else to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console

out = Console(soft_wrap=True, highlight=False, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document on standard output."""
    if sys.stdout is None:  # it was closed before pewb began
        return
    can_all = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    sys.stdout.write(json.dumps(document, indent=1, ensure_ascii=not can_all, allow_nan=False) + "\n")


def gathered(remarks: Iterable[tuple[str, str]]) -> list[str]:
    """Return remarks on rows as lines, of which each says one thing, after the names of all the rows of which it is true."""
    names: dict[str, list[str]] = {}
    for name, text in remarks:
        names.setdefault(text, []).append(name)
    return [f"{', '.join(dict.fromkeys(its_names))}: {text}" for text, its_names in names.items()]
