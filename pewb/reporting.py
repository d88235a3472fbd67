"""How long work tells of itself: the library reports, and whoever called it decides what to show."""

from typing import Protocol


class Reporter(Protocol):
    """Receives what is going on; `screen.py` has those that print, a run's process one that writes events."""

    def notice(self, text: str) -> None:
        """Say one line that the user should see, such as which fallback was taken."""

    def progress(self, stage: str, done: float, total: float | None, detail: str = "") -> None:
        """Say how far `stage` has come; `detail` is a few words such as the loss and the rate."""


class Silent:
    """A reporter that keeps quiet."""

    def notice(self, text: str) -> None:
        """Ignore the line."""

    def progress(self, stage: str, done: float, total: float | None, detail: str = "") -> None:
        """Ignore the progress."""
