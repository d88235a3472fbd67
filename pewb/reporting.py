"""How long work tells of itself: the library reports, and whoever called it decides what to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

StepState = Literal["waiting", "running", "done", "kept", "refused", "failed", "out_of_memory", "cancelled"]
"""`kept`: it had been done before, and its record stands."""


@dataclass(frozen=True)
class Step:
    """How one of several things to be done stands."""

    name: str
    state: StepState = "waiting"
    detail: str = ""
    """How far it has come, or what came of it."""
    seconds: float | None = None
    """It has taken so far, or took."""


class Reporter(Protocol):
    """Receives what is going on; `screen/progress.py` has those that print, a run's process one that writes events."""

    def notice(self, text: str) -> None:
        """Say one line that the user should see, such as which fallback was taken."""

    def progress(self, stage: str, done: float, total: float | None, detail: str = "") -> None:
        """Say how far `stage` has come; `detail` is a few words such as the loss and the rate."""

    def standing(self, steps: Sequence[Step], seconds_left: float | None) -> None:
        """Say how all of several things stand, whenever one of them changes; None: the time left is not known yet."""


class Silent:
    """A reporter that keeps quiet."""

    def notice(self, text: str) -> None:
        """Ignore the line."""

    def progress(self, stage: str, done: float, total: float | None, detail: str = "") -> None:
        """Ignore the progress."""

    def standing(self, steps: Sequence[Step], seconds_left: float | None) -> None:
        """Ignore the standing."""


class Named:
    """A reporter that says of which of several things the progress is."""

    def __init__(self, name: str, reporter: Reporter) -> None:
        """Tell `reporter` everything under `name`."""
        self._name = name
        self._reporter = reporter

    def notice(self, text: str) -> None:
        """Keep quiet: the run itself says it again."""

    def progress(self, stage: str, done: float, total: float | None, detail: str = "") -> None:
        """Pass the progress on."""
        self._reporter.progress(f"{self._name}: {stage}", done, total, detail)

    def standing(self, steps: Sequence[Step], seconds_left: float | None) -> None:
        """Pass it on."""
        self._reporter.standing(steps, seconds_left)
