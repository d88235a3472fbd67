"""Splitting by a hash of the text: never dependent on order, and equal texts stay together."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence


def text_key(texts: Sequence[str]) -> str:
    """Return the SHA-256 of one example's text (or pair of texts), blind to Unicode form and white space."""
    normal = "\x1f".join(" ".join(unicodedata.normalize("NFC", text).split()) for text in texts)
    return hashlib.sha256(normal.encode()).hexdigest()


def share_of(key: str) -> float:
    """Return where in [0, 1) a key from `text_key` falls, evenly spread."""
    return int(key[:13], 16) / 16**13
