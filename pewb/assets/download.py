"""Download over HTTP so that an interruption loses nothing but the current chunk."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx2

_log = logging.getLogger(__name__)

OnBytes = Callable[[int, int | None], None]
"""Called with the bytes that are there and how many there will be, if that is known."""


def download(
    client: httpx2.Client, url: str, partial: Path, on_bytes: OnBytes, headers: dict[str, str] | None = None
) -> None:
    """Fetch `url` into `partial`, going on where an earlier attempt has stopped.

    A connection that breaks after it has brought something is taken up again at once. Whether the content is right is
    for the caller to check: `partial` may be of another version of the file.

    Raises:
        httpx2.HTTPError: the server can't be reached, or refuses; `partial` keeps what has arrived.
    """
    import httpx2

    partial.parent.mkdir(parents=True, exist_ok=True)
    while True:
        start = partial.stat().st_size if partial.exists() else 0
        try:
            _take_up(client, url, partial, start, on_bytes, headers or {})
            return
        except httpx2.TransportError as error:
            if not partial.exists() or partial.stat().st_size <= start:
                raise
            _log.info("%s broke off (%s); going on at byte %d", partial.name, error, partial.stat().st_size)


def _take_up(
    client: httpx2.Client, url: str, partial: Path, start: int, on_bytes: OnBytes, headers: dict[str, str]
) -> None:
    # Compressed in transit, a file could be neither taken up nor compared with its digest.
    headers = headers | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with client.stream("GET", url, headers=headers, follow_redirects=True) as response:
        if start and response.status_code == 416:  # there is nothing after `start`
            return
        response.raise_for_status()
        goes_on = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {start}-"
        )
        done = start if goes_on else 0
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdigit() else None
        with partial.open("ab" if goes_on else "wb", buffering=0) as file:
            for chunk in response.iter_raw():
                file.write(chunk)
                done += len(chunk)
                on_bytes(done, total)
