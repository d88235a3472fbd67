"""The one way in which a source fails: it can't be had, for a reason, and there is a way out."""

from pewb.errors import UnavailableError


class MissingError(UnavailableError):
    """An asset, or one source of it, that can't be had."""

    def __init__(self, reason: str, way_out: str, subject: str = "") -> None:
        super().__init__(f"{subject}{': ' if subject else ''}{reason}; {way_out}")
        self.reason = reason
        self.way_out = way_out


def one_line(error: BaseException) -> str:
    """Return what `error` says in one line, or its name if it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
