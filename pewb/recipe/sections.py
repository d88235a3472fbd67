"""Recipes: TOML in, checked sections out. Every fault is told at once, with its key and the way out."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from pewb.errors import InputError, RefusedError, nearest
from pewb.strategies import Strategy, strategies
from pewb.tasks import TASKS, TextClassification
from pewb.units import parse_bytes

Precision = Literal["auto", "fp32", "bf16", "fp16", "bf16-true"]
Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "sgd"]
Schedule = Literal["linear", "cosine", "constant", "cosine_with_restarts", "polynomial"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Quantization(_Section):
    """How the frozen backbone's linear layers are stored."""

    kind: Literal["none", "int8", "nf4", "fp4"] = "none"
    double: bool = False
    """Quantise the 4-bit scales as well (Dettmers et al. 2023, section 3)."""

    def __str__(self) -> str:
        return f"{self.kind} double" if self.double else self.kind


class Training(_Section):
    """How the model is trained."""

    epochs: int = Field(default=3, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after so many optimizer steps."""
    batch_size: int = Field(default=32, ge=1)
    """Examples per optimizer step."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Examples on the device at once; left out: as many as fit."""
    max_tokens: int = Field(default=128, ge=4)
    """Longer inputs are cut, and counted."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Left out: the strategy's own default."""
    schedule: Schedule = "linear"
    warmup_ratio: float = Field(default=0.06, ge=0, lt=1)
    """Share of the steps in which the rate rises from zero (0.06: Liu et al. 2019, table 10)."""
    optimizer: Optimizer = "adamw"
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm; a very large one (1e9) clips nothing."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Every dropout of the backbone; left out: the backbone's own."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    precision: Precision = "auto"
    gradient_checkpointing: bool = False
    length_bucketing: bool = True
    """Put examples of like length into one batch, so that less is padding."""
    evaluations_per_epoch: int = Field(default=1, ge=1)
    patience: int | None = Field(default=None, ge=1)
    """Stop when so many evaluations in a row bring nothing better, and go back to the best; left out: never stop."""

    @property
    def asked_micro_batch_size(self) -> int:
        """Examples on the device at once, as long as they fit."""
        return self.micro_batch_size or self.batch_size


class Limit(_Section):
    """At most so many examples, chosen by a hash of their text."""

    train: int | None = Field(default=None, ge=1)
    validation: int | None = Field(default=None, ge=1)
    test: int | None = Field(default=None, ge=1)


class DeviceSection(_Section):
    """Where the run computes."""

    kind: Literal["auto", "cpu", "cuda", "mps", "xpu"] = "auto"
    memory: str | int | None = None
    """The device behaves as if it had no more ("8GiB")."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; results depend on it, so it is recorded."""

    @field_validator("memory")
    @classmethod
    def _is_a_size(cls, value: str | int | None) -> str | int | None:
        if value is not None:
            try:
                parse_bytes(value)
            except InputError as error:
                raise ValueError(str(error)) from None
        return value

    @property
    def memory_bytes(self) -> int | None:
        """The memory limit in bytes."""
        return None if self.memory is None else parse_bytes(self.memory)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _kind_table(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


def _names_or_table(value: Any) -> str:
    return "names" if isinstance(value, str | list | tuple) else "table"


Names = Annotated[list[str], Field(min_length=1), BeforeValidator(_listed)]
TaskTable = TextClassification
if TYPE_CHECKING:
    AnyStrategy = Strategy
else:
    AnyStrategy = Annotated[
        Union[tuple(strategies().values())], Field(discriminator="kind"), BeforeValidator(_kind_table)  # noqa: UP007
    ]


class Recipe(_Section):
    """One recipe: what a user wants compared, trained and measured."""

    backbone: Names
    """A catalogue name, a hub id or a folder; the first of a list that can be had."""
    task: Annotated[Annotated[Names, Tag("names")] | Annotated[TaskTable, Tag("table")], Discriminator(_names_or_table)]
    """Catalogue names, the first that can be had; or a table with the user's own files."""
    quantization: Annotated[Quantization, BeforeValidator(_kind_table)] = Quantization()
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(default=[0], min_length=1)
    strategy: AnyStrategy
    training: Training = Training()
    limit: Limit = Limit()
    device: DeviceSection = DeviceSection()


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe, and what it was read from."""

    recipe: Recipe
    given: dict[str, Any]
    """The file's content and the overrides, as the user gave them."""


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read the recipe in `path`, with `section.key=value` overrides laid over it.

    Raises:
        InputError: the file is missing or no TOML, or the recipe has faults (all of them are told).
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = [
            str(other)
            for folder in (path.parent, Path("recipes"))
            if folder.is_dir()
            for other in folder.glob("*.toml")
        ]
        raise InputError(f"{path}: no such recipe{nearest(str(path), near)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}") from None
    given = {"file": path.name, "content": content, "set": list(overrides)}
    return LoadedRecipe(parse_recipe(_overlaid(content, overrides), str(path)), given)


def parse_recipe(content: dict[str, Any], origin: str = "recipe") -> Recipe:
    """Return the recipe in `content`, its learning rate resolved.

    Raises:
        InputError: the recipe has faults; `origin` says where.
        RefusedError: its keys are right, but the combination can't be.
    """
    faults: list[str] = []
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        recipe = None
        faults += [_explained(fault) for fault in error.errors(include_url=False)]
    refusals = _impossible(
        _valid(AnyStrategy, content.get("strategy")),
        _valid(Annotated[Quantization, BeforeValidator(_kind_table)], content.get("quantization", "none")),
        _valid(Training, content.get("training", {})),
    )
    if recipe is None:
        raise InputError("\n".join(f"{origin}: {fault}" for fault in faults + refusals))
    if refusals:
        raise RefusedError("\n".join(f"{origin}: {refusal}" for refusal in refusals))
    if recipe.training.learning_rate is not None:
        return recipe
    rate = recipe.strategy.default_learning_rate
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"learning_rate": rate})})


def _valid(kind: Any, value: Any) -> Any:
    """Return `value` as the type `kind`, or None if it is not one (that fault is told elsewhere)."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return None


def _impossible(strategy: Strategy | None, quantization: Quantization | None, training: Training | None) -> list[str]:
    """Return why the parts of a recipe, each right in itself, do not go together."""
    reasons = []
    if strategy and quantization and quantization.kind not in strategy.quantizations:
        reasons.append(
            f"quantization: '{quantization.kind}' does not go with strategy '{strategy.kind}': {strategy.quantization_refusal};"
            f" allowed: {', '.join(strategy.quantizations)}"
        )
    if quantization and quantization.double and quantization.kind not in ("nf4", "fp4"):
        reasons.append(
            f"quantization.double: only 4-bit kinds (nf4, fp4) have scales to quantise again, not '{quantization.kind}'"
        )
    if strategy and training and training.gradient_checkpointing and not strategy.supports_gradient_checkpointing:
        reasons.append(f"training.gradient_checkpointing: does not go with strategy '{strategy.kind}'; set it to false")
    if training and training.micro_batch_size and training.micro_batch_size > training.batch_size:
        reasons.append(
            f"training.micro_batch_size: {training.micro_batch_size} is more than batch_size = {training.batch_size}; make it that or less"
        )
    return reasons


def _explained(fault: Any) -> str:
    """Return one of pydantic's faults as a sentence with its key, what was got, and what is allowed."""
    place = tuple(fault["loc"])
    allowed = _keys_at(place[:-1])
    shown = ".".join(str(part) for part in _without_tags(place))
    kind, got = fault["type"], fault["input"]
    if kind == "extra_forbidden":
        return f"{shown}: unknown key{nearest(str(place[-1]), allowed)}; allowed: {', '.join(allowed)}"
    if kind == "missing":
        return f"{shown}: missing; write it{_example(shown)}"
    if kind == "union_tag_invalid":
        names = list(strategies()) if shown.startswith("strategy") else list(TASKS)
        return f"{shown}.kind: got '{fault['ctx']['tag']}'{nearest(fault['ctx']['tag'], names)}; allowed: {', '.join(names)}"
    if kind == "union_tag_not_found":
        return f"{shown}.kind: missing; name one of {', '.join(strategies())}"
    if kind == "literal_error":
        choices = fault["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"{shown}: got {got!r}{nearest(str(got), choices)}; allowed: {', '.join(choices)}"
    message = fault["msg"].removeprefix("Value error, ")
    return (
        f"{shown}: {message}" if kind == "value_error" else f"{shown}: got {got!r}; {message[0].lower()}{message[1:]}"
    )


def _example(key: str) -> str:
    examples = {
        "backbone": 'backbone = "minilm-l6"',
        "task": 'task = "movie-snippets"',
        "strategy": '[strategy] with kind = "lora"',
    }
    return f", such as {examples[key]}" if key in examples else ""


def _without_tags(place: Iterable[Any]) -> list[Any]:
    """Return a fault's place without the names that pydantic gives to a union's branches."""
    parts = list(place)
    if len(parts) > 1 and (parts[0] == "strategy" or (parts[0] == "task" and parts[1] in ("names", "table"))):
        del parts[1]
    return parts


def _keys_at(place: tuple[Any, ...]) -> list[str]:
    """Return the keys that the table at `place` may have."""
    model: type[BaseModel] = Recipe
    for part in place:
        if part in strategies():
            model = strategies()[part]
        elif part == "table":
            model = TaskTable
        elif part in model.model_fields:
            found = _model_in(model.model_fields[part].annotation)
            model = found or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _overlaid(content: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return `content` with `section.key=value` overrides; another strategy kind replaces the whole section."""
    result: dict[str, Any] = _copied(content)
    parsed = [_parsed_override(override) for override in overrides]
    parsed = [
        (["strategy", "kind"], value) if keys == ["strategy"] and isinstance(value, str) else (keys, value)
        for keys, value in parsed
    ]
    kinds = [value for keys, value in parsed if keys == ["strategy", "kind"]]
    kinds += [value.get("kind") for keys, value in parsed if keys == ["strategy"] and isinstance(value, dict)]
    section = _kind_table(result.get("strategy", {}))
    if kinds and (not isinstance(section, dict) or section.get("kind") != kinds[-1]):
        result["strategy"] = {}
        if isinstance(result.get("training"), dict):
            result["training"].pop("learning_rate", None)
    for keys, value in parsed:
        table = result
        for key in keys[:-1]:
            table[key] = _kind_table(table.get(key, {}))
            if not isinstance(table[key], dict):
                raise InputError(f"--set {'.'.join(keys)}: '{key}' is not a table in this recipe")
            table = table[key]
        table[keys[-1]] = value
    return result


def _copied(value: Any) -> Any:
    return {key: _copied(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def _parsed_override(override: str) -> tuple[list[str], Any]:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {override}: write section.key=value, such as --set training.epochs=1")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    return [part.strip() for part in key.split(".")], value
