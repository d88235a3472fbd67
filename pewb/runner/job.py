"""What is to be done in a process of its own: everything that process needs, as a JSON document."""

from __future__ import annotations

import re
import sysconfig
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pewb.assets import cache_folder
from pewb.recipe import Limit, Recipe, TaskTable
from pewb.record import AssetRecord, Record, Status, Tuning


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Job(BaseModel):
    """Something to be done on one task, resolved to local files, which leaves a record or an answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str
    identity: str
    results: Path
    task_name: str
    task: TaskTable
    task_folder: Path
    limit: Limit
    recipe_given: dict[str, Any]
    recipe_resolved: dict[str, Any]
    assets: list[AssetRecord]
    warnings: list[str]
    notices: list[str]
    started_at: str

    @property
    def log_file(self) -> Path:
        """Where the libraries' own output goes."""
        return self.results / "logs" / f"{self.run}.log"

    def record(
        self, status: Status, reason: str | None = None, traceback: str | None = None, **measured: Any
    ) -> Record:
        """Return the record, with what was `measured`; `warnings` and `notices` are added to the job's own."""
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
            task=self.task_name,
            recipe_given=self.recipe_given,
            recipe_resolved=self.recipe_resolved,
            assets=self.assets,
            main_metric=self.task.main_metric,
            **self._facts() | measured,
        )

    def _facts(self) -> dict[str, Any]:
        """Return the fields of the record that depend on what kind of job it is."""
        raise NotImplementedError

    def _own_folders(self) -> dict[Path, str]:
        return {self.task_folder: self.task_name}

    def _without_own_paths(self, text: str) -> str:
        """Return `text` without the folders of this computer: records are shared."""
        names = self._own_folders() | {
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


class TrainingJob(Job):
    """One backbone, one strategy, one seed: a run, or a trial of a search, which sees no test example."""

    kind: Literal["training"] = "training"
    seed: int
    backbone: str
    backbone_public_name: str
    backbone_folder: Path
    recipe: Recipe
    tuning: Tuning | None = None
    is_trial: bool = False

    @property
    def model_folder(self) -> Path:
        """Where the trained weights go."""
        return self.results / "models" / self.run

    def _facts(self) -> dict[str, Any]:
        return {
            "backbone": self.backbone,
            "strategy": self.recipe.strategy.kind,
            "settings": self._settings(),
            "quantization": str(self.recipe.quantization),
            "seed": self.seed,
            "tuning": self.tuning,
        }

    def _settings(self) -> str:
        training = self.recipe.training
        rate = f"lr {training.learning_rate:g}{' tuned' if self.tuning else ''}"
        if self.recipe.tune and not self.tuning:  # the search failed, or was not begun
            rate = "no lr chosen"
        settings = [self.recipe.strategy.describe(), rate]
        if training.lora_plus_ratio:
            settings.append(f"LoRA+ {training.lora_plus_ratio:g}")
        settings.append(f"{training.epochs} epochs")
        if training.max_steps:
            settings.append(f"at most {training.max_steps} steps")
        return ", ".join(text for text in settings if text)

    def _own_folders(self) -> dict[Path, str]:
        return super()._own_folders() | {self.backbone_folder: self.backbone}


class ReferenceJob(Job):
    """A classical predictor without a backbone, that every strategy is held against."""

    kind: Literal["reference"] = "reference"
    reference: str

    def _facts(self) -> dict[str, Any]:
        return {
            "backbone": "none",
            "strategy": self.reference,
            "settings": "",
            "quantization": "none",
            "seed": 0,
            "is_reference": True,
        }


AnyJob = Annotated[TrainingJob | ReferenceJob, Field(discriminator="kind")]
