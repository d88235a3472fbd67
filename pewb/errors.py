"""Errors that a user can act on: each says what is wrong and names the way out."""


class PewbError(Exception):
    """Base of every error that is meant for the user rather than for a debugger."""


class InputError(PewbError):
    """What the user gave can't work: a recipe, a file, a name (exit status 2)."""


class RefusedError(InputError):
    """A combination that can't be, such as full tuning of a 4-bit model (a `refused` row in a comparison)."""


class UnavailableError(InputError):
    """An asset could not be had from any of its sources."""


class TrainingError(PewbError):
    """Training went wrong in a way that has a name, such as a loss that is not a number (a `failed` record)."""


class OutOfMemoryError(PewbError):
    """The run does not fit the device's memory, even with one example at a time."""


def nearest(name: str, allowed: list[str]) -> str:
    """Return `" (did you mean 'x'?)"` for the allowed name closest to `name`, or an empty string."""
    import difflib

    matches = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    return f" (did you mean '{matches[0]}'?)" if matches else ""
