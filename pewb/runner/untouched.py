"""What the untouched model makes of the test examples: the same for every strategy, so that it is found out once."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pewb.batching import Collated
from pewb.fingerprint import of_computation, of_weights, surroundings
from pewb.record import Metric

logger = logging.getLogger(__name__)


def untouched_metrics(
    model: Any,
    batches: Collated,
    settings: list[Any],
    device: str,
    folder: Path,
    evaluate: Callable[[], dict[str, Metric]],
) -> tuple[dict[str, Metric], bool]:
    """Return what `evaluate` does, from `folder` if this model was evaluated on these examples before; and whether it was.

    Everything that the result depends on tells one evaluation from another: each weight, the head's included, the
    examples with their labels, the configuration, and besides it what is in `settings` (how it is computed, and what is made
    of it) and the `device`'s kind and name.
    """
    data = batches.data
    features = data.features
    config = {key: value for key, value in model.config.to_dict().items() if "name_or_path" not in key}
    facts = [surroundings(device), settings, batches.tokenizer.padding_side, data.labels, data.split.labels, config]
    place = folder / f"{of_computation(facts, features, features.column_names, of_weights(model.state_dict()))}.json"
    try:
        return {name: Metric(**one) for name, one in json.loads(place.read_text(encoding="utf-8")).items()}, True
    except (OSError, ValueError, TypeError, AttributeError):  # not there, or broken
        found = evaluate()
    _keep({name: one.model_dump() for name, one in found.items()}, place)
    return found, False


def _keep(content: dict[str, Any], place: Path) -> None:
    partial = place.with_name(f"{place.name}.{os.getpid()}.partial")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.replace(place)
    except OSError as error:
        logger.warning("the untouched model's evaluation is not kept: %s", error)
