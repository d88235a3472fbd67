"""The states that a frozen prefix hands on, on disk: built once, mapped into memory by every run with the same prefix."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from pewb.batching import Collated, Inputs, Ragged
from pewb.errors import PewbError
from pewb.fingerprint import of_computation, of_weights, surroundings
from pewb.measurement.memory import is_out_of_memory
from pewb.prediction import computed
from pewb.prefix.frozen import NotReachedError, Prefix
from pewb.reporting import Reporter
from pewb.units import format_bytes

LARGEST_BYTES = 16 * 2**30
"""What all cached states may take on disk together; those that were used longest ago make room."""
_ABANDONED_SECONDS = 86_400
_KEPT_FREE = 0.5
"""Share of the free disk that is left alone."""
_PARTIAL = ".partial"
"""Ending of what is being built, or going away."""
_CHECKED = 4


class NotCachedError(PewbError):
    """Why states are not cached; the run goes on without."""


@dataclass(frozen=True)
class CachedStates:
    """The states of one split."""

    rows: Ragged
    build_seconds: float
    """What it took to compute them, whichever run did."""
    were_there: bool
    """Whether an earlier run had computed them."""

    @property
    def nbytes(self) -> int:
        """What they take, on disk and mapped into memory."""
        return int(self.rows.values.nbytes)


@dataclass(frozen=True)
class PrefixCache:
    """Where the states of a prefix are kept."""

    prefix: Prefix
    folder: Path
    autocast: Callable[[], AbstractContextManager[Any]]
    device: str
    """Kind and name: numbers differ between devices."""

    def states(
        self,
        batches: Collated,
        batch_size: int,
        reporter: Reporter,
        around_longest: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> CachedStates:
        """Return the states of every example of `batches`, computed now if they are nowhere to be found.

        Raises:
            NotCachedError: they would take too much room, or the disk fails.
            OutOfMemoryError: one example at a time does not fit.
        """
        lengths = torch.tensor(batches.data.lengths)
        if self.prefix.is_one_row:
            lengths = torch.ones_like(lengths)
        num_rows = int(lengths.sum())
        place = self.folder / self._key(batches)
        try:
            were_there = (place / "facts.json").exists()
            if not were_there:
                self._make_room(num_rows * self.prefix.row_bytes)
                self._build(place, num_rows, lengths, batches, batch_size, reporter, around_longest)
            facts = json.loads((place / "facts.json").read_text(encoding="utf-8"))
            os.utime(place)
            values = _mapped(place / "states", num_rows, self.prefix)
        except (OSError, ValueError) as error:
            raise NotCachedError(f"the frozen layers' states can't be kept: {error}") from None
        return CachedStates(Ragged(values, lengths), facts["build_seconds"], were_there)

    def _key(self, batches: Collated) -> str:
        """Return a name for these examples before this prefix, made of all that the states depend on."""
        config = self.prefix.model.config.to_dict()
        kept = {key: value for key, value in config.items() if not any(part in key for part in _IRRELEVANT)}
        facts = [
            surroundings(self.device),
            str(self.prefix.dtype),
            self.prefix.num_layers,
            self.prefix.is_one_row,
            batches.tokenizer.padding_side,
            kept,
        ]
        features = batches.data.features
        read = [name for name in features.column_names if name != "labels" and not name.startswith("_")]
        return of_computation(facts, features, read, self._weights)

    @cached_property
    def _weights(self) -> bytes:
        """The digest of what is frozen."""
        return of_weights({name.removeprefix("base_model.model."): one for name, one in self.prefix.frozen.items()})

    def _build(
        self,
        place: Path,
        num_rows: int,
        lengths: torch.Tensor,
        batches: Collated,
        batch_size: int,
        reporter: Reporter,
        around_longest: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        """Compute the states into a folder that appears whole or not at all, and see that they serve."""
        started = time.perf_counter()
        partial = Path(tempfile.mkdtemp(_PARTIAL, f"{place.name}.", self.folder))
        try:
            values = _mapped(partial / "states", num_rows, self.prefix, write=True)
            self._fill(values, lengths, batches, batch_size, reporter, around_longest)
            self._check(Ragged(values, lengths), batches)
            facts = {"build_seconds": round(time.perf_counter() - started, 3)}
            (partial / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
            for file in partial.iterdir():
                _write_through(file)
            try:
                partial.rename(place)
            except OSError:
                if not (place / "facts.json").exists():  # no other process was faster
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @torch.no_grad()
    def _fill(
        self,
        values: torch.Tensor,
        lengths: torch.Tensor,
        batches: Collated,
        batch_size: int,
        reporter: Reporter,
        around_longest: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        model = self.prefix.model
        was_training = model.training
        model.eval()
        starts = (lengths.cumsum(0) - lengths).tolist()

        def compute(inputs: Inputs, _labels: torch.Tensor) -> list[torch.Tensor]:
            with self.autocast():
                states = self.prefix.states(inputs)
            if states.shape[1] == 1:
                return list(states.cpu())
            mask = inputs["attention_mask"].bool()
            found: list[torch.Tensor] = list(states[mask].cpu().split(mask.sum(1).tolist()))
            return found

        stage = "running the frozen layers"
        for indices, states in computed(batches, batch_size, compute, reporter, stage, around_longest):
            for index, rows in zip(indices, states, strict=True):
                values[starts[index] : starts[index] + len(rows)] = rows
        model.train(was_training)

    @torch.no_grad()
    def _check(self, rows: Ragged, batches: Collated) -> None:
        """See that the head is given the same with the states as without, of the longest examples, one at a time.

        The difference is held against how much its inputs differ among themselves: another example's states differ as much.

        Raises:
            NotCachedError: it is not, or the model can't be computed without its prefix.
            OutOfMemoryError: one example at a time does not fit.
        """
        model, lengths = self.prefix.model, batches.data.lengths
        longest = sorted(range(len(lengths)), key=lambda index: -lengths[index])[:_CHECKED]
        was_training = model.training
        model.eval()

        def read(source: Collated) -> torch.Tensor:
            found = []
            for index in longest:
                with self.autocast():
                    found.append(self.prefix.read_by_head(source([index])[0]).flatten(0, -2).float())
            return torch.cat(found)

        try:
            whole = read(batches)
            self.prefix.cut()
            rest = read(replace(batches, states=rows))
        except NotReachedError:
            raise NotCachedError("it can't be seen what the head is given") from None
        except Exception as error:
            if is_out_of_memory(error):
                raise
            told = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            raise NotCachedError(f"the model can't be computed without its frozen layers ({told})") from None
        finally:
            self.prefix.restore()
            model.train(was_training)
        tolerance = 1e-3 if self.prefix.dtype == torch.float32 else 0.05
        spread = whole - whole.mean(0) if len(whole) > 1 else whole
        if whole.shape != rest.shape or not (whole - rest).norm() <= tolerance * spread.norm():
            raise NotCachedError("the head is given something else with its frozen layers' states than without")

    def _make_room(self, needed_bytes: int) -> None:
        """Delete what was used longest ago, until there is room for so much more.

        Raises:
            NotCachedError: there would not be, even without all of it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        for unfinished in self.folder.glob(f"*{_PARTIAL}"):
            if now - unfinished.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(unfinished, ignore_errors=True)
        finished = [one for one in self.folder.iterdir() if one.suffix != _PARTIAL]
        there = {one: _bytes_in(one) for one in sorted(finished, key=lambda one: one.stat().st_mtime)}
        free = int(shutil.disk_usage(self.folder).free * (1 - _KEPT_FREE))
        if needed_bytes > min(LARGEST_BYTES, free + sum(there.values())):
            raise NotCachedError(
                f"the frozen layers' states would take {format_bytes(needed_bytes)} on disk, too much to keep"
            )
        while there and (sum(there.values()) + needed_bytes > LARGEST_BYTES or needed_bytes > free):
            oldest = next(iter(there))
            free += there.pop(oldest)
            leaving = oldest.with_name(f"{oldest.name}.{time.time_ns()}{_PARTIAL}")
            oldest.rename(leaving)  # whole or not at all, for whoever looks for it
            shutil.rmtree(leaving, ignore_errors=True)


_IRRELEVANT = ("dropout", "pdrop", "label", "name_or_path", "attn_implementation", "architectures")
"""Parts of configuration keys that states do not depend on."""


def _mapped(path: Path, num_rows: int, prefix: Prefix, write: bool = False) -> torch.Tensor:
    """Return the file's states, (rows, hidden), read as they are asked for."""
    count = num_rows * prefix.hidden_size
    if write:
        with path.open("wb") as file:
            _reserve(file.fileno(), count * prefix.dtype.itemsize)
    try:
        values = torch.from_file(str(path), shared=write, size=count, dtype=prefix.dtype)
    except RuntimeError as error:  # PyTorch's word for a file that is gone, or too short
        raise OSError(str(error).splitlines()[0]) from None
    return values.view(num_rows, prefix.hidden_size)


def _reserve(file: int, num_bytes: int) -> None:
    """Give a file its size on the disk: to write to a mapped one for which there is no room would end the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, num_bytes)
    else:
        os.truncate(file, num_bytes)


def _write_through(path: Path) -> None:
    """Have a file on the disk before it gets its name, so that no power cut leaves it empty."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
