"""Quantities with units, as text: sizes in binary units, counts, durations."""

import re

from pewb.errors import InputError

_FACTORS = {"b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_FACTORS |= {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


def parse_bytes(text: str | int) -> int:
    """Return the number of bytes that `text` ("8GiB", "500 MB", or a plain number) stands for.

    Raises:
        InputError: the text is no size.
    """
    match = re.fullmatch(r"\s*(\d{1,18}\.?\d{0,18}|\.\d{1,18})\s*([a-zA-Z]*)\s*", str(text), re.ASCII)
    factor = _FACTORS.get(match[2].lower() or "b") if match else None
    if match is None or factor is None:
        raise InputError(f"'{text}' is not a size; write a number and a unit, such as '8GiB' or '500MB'")
    return int(match[1]) * factor if match[1].isdigit() else int(float(match[1]) * factor)


_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_DURATIONS = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}


def parse_count(text: str) -> int:
    """Return the number that `text` ("300k", "1.5M", "1_000_000") stands for.

    Raises:
        InputError: the text is no count.
    """
    match = re.fullmatch(
        r"\s*(\d{1,18}\.?\d{0,18}|\.\d{1,18})\s*([kKmMbB]?)\s*", text.replace("_", "").replace(",", ""), re.ASCII
    )
    if match is None:
        raise InputError(f"'{text}' is not a count; write a whole number, or such as '300k' or '1.5M'")
    return int(float(match[1]) * _COUNTS[match[2].lower()])


def parse_seconds(text: str) -> float:
    """Return the seconds that `text` ("30min", "2h", "90s") stands for.

    Raises:
        InputError: the text is no duration.
    """
    match = re.fullmatch(r"\s*(\d{1,18}\.?\d{0,18}|\.\d{1,18})\s*([a-zA-Z]+)\s*", text, re.ASCII)
    if match is None or match[2].lower() not in _DURATIONS:
        raise InputError(f"'{text}' is not a duration; write a number and a unit, such as '30min', '2h' or '90s'")
    return float(match[1]) * _DURATIONS[match[2].lower()]


def format_bytes(count: int | None) -> str:
    """Return a size in GiB or MiB ("1.25 GiB"), or "–" where it was not measured."""
    if count is None:
        return "–"
    if count >= 1023.95 * 2**20:
        return f"{count / 2**30:.2f} GiB"
    if count >= 1023.95 * 2**10:
        return f"{count / 2**20:.1f} MiB"
    return f"{count / 2**10:.1f} KiB"


def format_count(count: int | None) -> str:
    """Return a count with thousands separators, or "–" where it is unknown."""
    return "–" if count is None else f"{count:,}"


def format_seconds(seconds: float | None) -> str:
    """Return a duration as "48 s", "3 min 05 s" or "2 h 07 min", or "–" where it is unknown."""
    if seconds is None:
        return "–"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
