"""pip's own configuration, so that a company's package mirror works here as it does for pip."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unearth.fetchers import PyPIClient

_DEFAULT_INDEX = "https://pypi.org/simple"
_SECTIONS = ("global", "install", "download", ":env:")
"""Later ones win, as in pip."""
_NOT_HONOURED = ("keyring-provider", "uploaded-prior-to", "use-deprecated")


@dataclass(frozen=True)
class PipSettings:
    """What pip is told about where packages are."""

    index_urls: tuple[str, ...] = (_DEFAULT_INDEX,)
    find_links: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    cert: str | None = None
    client_cert: str | None = None
    proxy: str | None = None
    timeout_seconds: float = 15.0
    not_honoured: tuple[str, ...] = field(default=())
    """Settings that bear on where packages come from and that are not followed here."""


def read_settings() -> PipSettings:
    """Read pip's configuration: its files if pip is there, and its `PIP_…` environment variables."""
    settings = _listed_by_pip()
    if settings is None:
        settings = {
            name[4:].lower().replace("_", "-"): value for name, value in os.environ.items() if name.startswith("PIP_")
        }
    indexes = [settings.get("index-url") or _DEFAULT_INDEX, *settings.get("extra-index-url", "").split()]
    alone = settings.get("no-index", "").lower() in ("1", "true", "yes", "on")
    timeout = settings.get("timeout") or settings.get("default-timeout") or ""
    return PipSettings(
        index_urls=() if alone else tuple(indexes),
        find_links=tuple(settings.get("find-links", "").split()),
        trusted_hosts=tuple(settings.get("trusted-host", "").split()),
        cert=settings.get("cert") or None,
        client_cert=settings.get("client-cert") or None,
        proxy=settings.get("proxy") or None,
        timeout_seconds=float(timeout) if timeout.replace(".", "", 1).isdigit() else 15.0,
        not_honoured=tuple(name for name in _NOT_HONOURED if name in settings),
    )


def _listed_by_pip() -> dict[str, str] | None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return parse(listed)


def parse(listed: str) -> dict[str, str]:
    """Turn what `pip config list` prints into settings, the stronger section winning."""
    found: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in found:
            try:
                found[section][name] = str(ast.literal_eval(value))
            except (ValueError, SyntaxError):
                found[section][name] = value
    merged: dict[str, str] = {}
    for section in _SECTIONS:
        merged |= found[section]
    return merged


def open_client(settings: PipSettings) -> PyPIClient:
    """Return an HTTP client that follows `settings`; it reads file: addresses too."""
    import ssl

    import httpx2
    from unearth.auth import MultiDomainBasicAuth
    from unearth.fetchers import PyPIClient

    return PyPIClient(
        trusted_hosts=settings.trusted_hosts,
        verify=ssl.create_default_context(cafile=settings.cert) if settings.cert else True,
        cert=settings.client_cert,
        timeout=httpx2.Timeout(settings.timeout_seconds, connect=min(settings.timeout_seconds, 10.0)),
        proxy=settings.proxy,
        follow_redirects=True,
        auth=MultiDomainBasicAuth(prompting=False, index_urls=settings.index_urls),
    )
