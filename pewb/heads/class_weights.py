"""What an example of each class counts in the loss, where the classes are not equally frequent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from pewb.errors import InputError, nearest
from pewb.tasks import Examples


def weights_of(
    asked: Literal["balanced"] | Mapping[str, float],
    labels: Sequence[str],
    examples: Examples | None,
    *,
    are_sets: bool = False,
) -> tuple[float, ...]:
    """Return a weight for each class: those that were `asked` for (others 1), or "balanced" ones.

    Balanced is examples / (classes x examples of the class) over the training examples (King and Zeng 2001, as
    scikit-learn has it), so that all classes weigh the same together; where an example may have several classes (`are_sets`) it is
    the examples without the class over those with it. Without examples, in a plan, all weigh the same.

    Raises:
        InputError: a name is no class.
    """
    if asked != "balanced":
        for name in asked:
            if examples is not None and name not in labels:  # a plan may not know the classes' names
                raise InputError(
                    f"training.class_weights: '{name}' is no class of the task{nearest(name, list(labels))};"
                    f" it has {', '.join(labels)}"
                )
        return tuple(asked.get(name, 1.0) for name in labels)
    if examples is None:
        return (1.0,) * len(labels)
    train = examples.train.labels
    if are_sets:
        counts = [sum(row[number] for row in train) for number in range(len(labels))]
        return tuple((len(train) - count) / count if 0 < count < len(train) else 1.0 for count in counts)
    used = Counter(one for row in train for one in (row if isinstance(row, list) else [row]))
    total = sum(used.values())
    return tuple(total / (len(labels) * used[number]) if used[number] else 1.0 for number in range(len(labels)))
