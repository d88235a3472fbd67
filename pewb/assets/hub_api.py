"""What the model hub says of a repository: asked once, in seconds, and never waited for longer."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pewb.assets.missing import MissingError, one_line

if TYPE_CHECKING:
    import httpx2

PROBE_SECONDS = 3.0
"""How long the hub may take, all in all, to say what a repository holds."""

_unreachable: dict[str, str] = {}
"""From an endpoint to why it can't be reached, which is found out once in a process."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository, with what the hub says of it."""

    path: str
    size: int | None
    sha256: str | None
    """Known for large files only."""


@dataclass(frozen=True)
class Repository:
    """A repository at one commit."""

    commit: str
    files: dict[str, RemoteFile]
    token: str | None


def endpoint() -> str:
    """Return the hub's address: `HF_ENDPOINT`, or the public one."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _offline() -> str | None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            return f"{name}={os.environ[name]}"
    return None


def forget_unreachable() -> None:
    """Forget which hubs could not be reached, so that they are asked again."""
    _unreachable.clear()


def ask(repository_type: str, hub_id: str, revision: str) -> Repository:
    """Ask the hub what a repository holds, within `PROBE_SECONDS`.

    Raises:
        MissingError: the hub can't be reached, is not one, or has no such repository for us.
    """
    address = endpoint()
    if setting := _offline():
        raise MissingError(
            f"the model hub is not asked, since {setting} is set",
            f"unset {setting.partition('=')[0]}, or give a folder with the files",
        )
    if address in _unreachable:
        raise _hub_missing(address)
    url = f"{address}/api/{repository_type}/{hub_id}/revision/{quote(revision, safe='')}?blobs=true"
    try:
        status, body, token = _answer_within(PROBE_SECONDS, url)
    except Exception as error:  # whatever keeps the hub from answering, it can't be reached
        _unreachable[address] = one_line(error)
        raise _hub_missing(address) from None
    if status in (401, 403, 404):
        raise no_repository(hub_id, revision, status)
    if status != 200:
        _unreachable[address] = f"it answers with status {status}"
        raise _hub_missing(address)
    try:
        return _repository(body, token)
    except (ValueError, KeyError, TypeError, AttributeError):
        _unreachable[address] = "it does not answer as a hub does"
        raise _hub_missing(address) from None


def _hub_missing(address: str) -> MissingError:
    return MissingError(
        f"the model hub can't be reached ({address}: {_unreachable[address]})",
        "check the network and proxy, set HF_ENDPOINT to a mirror, or give a folder with the files",
    )


class NoRepositoryError(MissingError):
    """The hub answers, but has no such repository or revision for us."""


def no_repository(hub_id: str, revision: str, status: int) -> NoRepositoryError:
    """Return the error for a repository that the hub answers with `status`."""
    if status == 404:
        return NoRepositoryError(
            f"the model hub has no '{hub_id}' at revision '{revision}'", "check the name and the revision"
        )
    return NoRepositoryError(
        f"the model hub has no '{hub_id}', or does not show it to you (status {status}: it is private or gated)",
        "check the name; for a gated one accept its terms on the hub and set HF_TOKEN",
    )


def _answer_within(seconds: float, url: str) -> tuple[int, bytes, str | None]:
    """Return status, body and the token used; a server that keeps silent or trickles is given up in time."""
    import httpx2
    import huggingface_hub

    outcome: list[tuple[int, bytes, str | None] | Exception] = []
    end = time.monotonic() + seconds

    def probe() -> None:
        try:
            token = huggingface_hub.get_token()
            with (
                httpx2.Client(timeout=seconds, follow_redirects=True) as client,
                client.stream("GET", url, headers=authorization(token)) as response,
            ):
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if time.monotonic() > end:
                        return
                outcome.append((response.status_code, bytes(body), token))
        except Exception as error:  # handed to the thread that waits
            outcome.append(error)

    # A read time limit starts anew with every byte, and a name look-up has none: only a thread can be given up.
    thread = threading.Thread(target=probe, daemon=True, name="pewb-hub-probe")
    thread.start()
    thread.join(seconds)
    if not outcome or isinstance(outcome[0], httpx2.TimeoutException):
        raise TimeoutError(f"no answer within {seconds:g} s")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def see_that_files_come(client: httpx2.Client, url: str, token: str | None) -> None:
    """Ask for the head of one file within `PROBE_SECONDS`: many networks let the hub's API through, but not its file host.

    Raises:
        MissingError: there is no answer.
    """
    import httpx2

    try:
        client.head(url, headers=authorization(token), follow_redirects=True, timeout=PROBE_SECONDS)
    except httpx2.TransportError as error:
        _unreachable[endpoint()] = f"it answers, but its files do not come: {one_line(error)}"
        raise _hub_missing(endpoint()) from None


def authorization(token: str | None) -> dict[str, str]:
    """Return the headers of a request to the hub."""
    return {"User-Agent": "pewb"} | ({"Authorization": f"Bearer {token}"} if token else {})


def _repository(body: bytes, token: str | None) -> Repository:
    content = json.loads(body)
    commit = content["sha"]
    if not isinstance(commit, str) or not commit.isalnum():
        raise ValueError
    return Repository(commit, {file.path: file for file in map(_remote_file, content["siblings"])}, token)


def _remote_file(content: dict[str, Any]) -> RemoteFile:
    large = content.get("lfs") or {}
    return RemoteFile(str(content["rfilename"]), content.get("size"), large.get("sha256"))
