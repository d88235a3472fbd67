"""The states that a frozen prefix hands on, on disk: built once, mapped into memory by every run with the same prefix."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pewb.batching import Collated, Ragged
from pewb.errors import PewbError
from pewb.evaluation.predictions import computed
from pewb.objective import Inputs
from pewb.prefix.frozen import Prefix
from pewb.record import NUMERICS_VERSION
from pewb.reporting import Reporter
from pewb.units import format_bytes

LARGEST_BYTES = 16 * 2**30
"""What all cached states may take on disk together; those that were used longest ago make room."""
_ABANDONED_SECONDS = 86_400
_KEPT_FREE = 0.5
"""Share of the free disk that is left alone."""


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
        digest = hashlib.blake2b(digest_size=16)
        columns = batches.data.features.with_format("arrow")[:]
        config = self.prefix.model.config.to_dict()
        kept = {key: value for key, value in config.items() if not any(part in key for part in _IRRELEVANT)}
        versions = [version(name) for name in ("torch", "transformers", "peft", "bitsandbytes")]
        facts = [
            NUMERICS_VERSION,
            versions,
            self.device,
            torch.get_num_threads() if self.device.startswith("cpu") else None,
            str(self.prefix.dtype),
            self.prefix.num_layers,
            self.prefix.is_one_row,
            batches.tokenizer.padding_side,
            columns.column_names,
            kept,
        ]
        digest.update(json.dumps(facts, default=str, sort_keys=True).encode())
        for name in columns.column_names:
            if name != "labels":
                digest.update(json.dumps(columns[name].to_pylist()).encode())
        for name, part in sorted(self.prefix.parts.items()):
            digest.update(name.removeprefix("base_model.model.").encode())
            for inner, tensor in part.state_dict().items():
                if isinstance(tensor, torch.Tensor):
                    digest.update(f"{inner} {tensor.dtype} {tuple(tensor.shape)}".encode())
                    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

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
        partial = place.with_name(f"{place.name}.{os.getpid()}.partial")
        partial.mkdir(parents=True)
        try:
            values = _mapped(partial / "states", num_rows, self.prefix, write=True)
            self._fill(values, lengths, batches, batch_size, reporter, around_longest)
            self._check(Ragged(values, lengths), batches, batch_size)
            facts = {"build_seconds": round(time.perf_counter() - started, 3)}
            (partial / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
            shutil.rmtree(place, ignore_errors=True)
            partial.rename(place)
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
    def _check(self, rows: Ragged, batches: Collated, batch_size: int) -> None:
        """See that the model says the same with the states as without, of the longest examples.

        Raises:
            NotCachedError: it does not.
        """
        model, lengths = self.prefix.model, batches.data.lengths
        longest = sorted(range(len(lengths)), key=lambda index: -lengths[index])[: min(batch_size, 4)]
        was_training = model.training
        model.eval()

        def logits(source: Collated) -> torch.Tensor:
            inputs, _ = source(longest)
            mask = inputs["attention_mask"].bool()
            with self.autocast():
                found: torch.Tensor = model(**inputs).logits
            return (found[mask] if found.dim() > 2 else found).float()  # what follows padding means nothing

        whole = logits(batches)
        self.prefix.cut()
        try:
            rest = logits(replace(batches, states=rows))
        finally:
            self.prefix.restore()
            model.train(was_training)
        tolerance = 1e-4 if self.prefix.dtype == torch.float32 else 0.05
        if whole.shape != rest.shape or not torch.allclose(whole, rest, rtol=tolerance, atol=tolerance):
            raise NotCachedError("the model says something else with its frozen layers' states than without")

    def _make_room(self, needed_bytes: int) -> None:
        """Delete what was used longest ago, until there is room for so much more.

        Raises:
            NotCachedError: there would not be, even without all of it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        for unfinished in self.folder.glob("*.partial"):
            if now - unfinished.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(unfinished, ignore_errors=True)
        finished = [one for one in self.folder.iterdir() if one.suffix != ".partial"]
        there = {one: _bytes_in(one) for one in sorted(finished, key=lambda one: one.stat().st_mtime)}
        free = int(shutil.disk_usage(self.folder).free * (1 - _KEPT_FREE))
        if needed_bytes > min(LARGEST_BYTES, free + sum(there.values())):
            raise NotCachedError(
                f"the frozen layers' states would take {format_bytes(needed_bytes)} on disk, too much to keep"
            )
        while there and (sum(there.values()) + needed_bytes > LARGEST_BYTES or needed_bytes > free):
            oldest = next(iter(there))
            free += there.pop(oldest)
            shutil.rmtree(oldest, ignore_errors=True)


_IRRELEVANT = ("dropout", "pdrop", "label", "name_or_path", "attn_implementation", "architectures")
"""Parts of configuration keys that states do not depend on."""


def _mapped(path: Path, num_rows: int, prefix: Prefix, write: bool = False) -> torch.Tensor:
    """Return the file's states, (rows, hidden), read as they are asked for."""
    count = num_rows * prefix.hidden_size
    values = torch.from_file(str(path), shared=write, size=count, dtype=prefix.dtype)
    return values.view(num_rows, prefix.hidden_size)


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
