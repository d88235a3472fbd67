"""One run to be done: everything its process needs, as a JSON document."""

from __future__ import annotations

import re
import sysconfig
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from pewb.assets import cache_folder
from pewb.recipe import Recipe, TaskTable
from pewb.record import AssetRecord, Record, Status


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Job(BaseModel):
    """A run, resolved: local files, one seed, one backbone, one task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str
    identity: str
    results: Path
    seed: int
    backbone: str
    backbone_public_name: str
    backbone_folder: Path
    task_name: str
    task: TaskTable
    task_folder: Path
    recipe: Recipe
    recipe_given: dict[str, Any]
    recipe_resolved: dict[str, Any]
    assets: list[AssetRecord]
    warnings: list[str]
    notices: list[str]
    started_at: str

    @property
    def model_folder(self) -> Path:
        """Where the trained weights go."""
        return self.results / "models" / self.run

    @property
    def log_file(self) -> Path:
        """Where the libraries' own output goes."""
        return self.results / "logs" / f"{self.run}.log"

    def record(
        self, status: Status, reason: str | None = None, traceback: str | None = None, **measured: Any
    ) -> Record:
        """Return the run's record, with what was `measured`; `warnings` and `notices` are added to the job's own."""
        strategy = self.recipe.strategy
        training = self.recipe.training
        settings = [strategy.describe(), f"lr {training.learning_rate:g}", f"{training.epochs} epochs"]
        if training.max_steps:
            settings.append(f"at most {training.max_steps} steps")
        return Record(
            run=self.run,
            identity=self.identity,
            status=status,
            reason=reason and self._without_own_paths(reason),
            traceback=traceback and self._without_own_paths(traceback),
            warnings=[*self.warnings, *measured.pop("warnings", [])],
            notices=[*self.notices, *measured.pop("notices", [])],
            started_at=self.started_at,
            finished_at=now(),
            backbone=self.backbone,
            task=self.task_name,
            strategy=strategy.kind,
            settings=", ".join(text for text in settings if text),
            quantization=str(self.recipe.quantization),
            seed=self.seed,
            recipe_given=self.recipe_given,
            recipe_resolved=self.recipe_resolved,
            assets=self.assets,
            main_metric=self.task.main_metric,
            **measured,
        )

    def _without_own_paths(self, text: str) -> str:
        """Return `text` without the folders of this computer: records are shared."""
        names = {
            self.backbone_folder: self.backbone,
            self.task_folder: self.task_name,
            Path(sysconfig.get_path("purelib")): "site-packages",
            Path(sysconfig.get_path("stdlib")): "python",
            cache_folder(): "PEWB_CACHE",
            Path(__file__).parents[2]: ".",
            Path.cwd(): ".",
            Path.home(): "~",
        }
        for folder in sorted(names, key=lambda path: -len(str(path))):
            if folder.is_absolute() and folder != Path(folder.anchor):
                text = re.sub(rf"{re.escape(str(folder))}(?![\w.-])", lambda _, name=names[folder]: name, text)  # type: ignore[misc]
        return text
