"""Classes: from labels as they are in files to numbers, and what must be known of them before a result is believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from pewb.errors import InputError, nearest
from pewb.tasks.examples import Split


def numbered_classes(
    seen: Mapping[str, Collection[str]], given: Sequence[str] | None, num_training: int, key: str, column: str
) -> tuple[list[str], dict[str, int]]:
    """Return the classes' names, and from a label as it is in the files to its class's number.

    Args:
        seen: the different labels of each split, `train` among them.
        given: the classes' names, if the task says them; in the files they may be numbers, from 0.
        num_training: training examples.
        key: what the recipe calls the labels, for the user.
        column: which column they are in, for the user.

    Raises:
        InputError: the labels are hidden, too many to be classes, or not among those of training.
    """
    for name, labels in seen.items():
        if set(labels) == {"-1"}:
            raise InputError(
                f"task.{name}: every {name} label is -1, so they are hidden (as GLUE's test labels are);"
                " name a file with labels, such as the validation file"
            )
    names = given or sorted(seen["train"], key=_numbers_first)
    if not given and len(names) > max(20, num_training // 4):
        raise InputError(
            f"task.{key}: '{column}' has {len(names)} different values in {num_training} examples;"
            " it does not look like a label: name another column"
        )
    numbers = [str(number) for number in range(len(names))]
    numbered = given and not set(seen["train"]) <= set(names) and set(seen["train"]) <= set(numbers)
    index = {name: number for number, name in enumerate(numbers if numbered else names)}
    for name, labels in seen.items():
        if unknown := sorted(set(labels) - set(index)):
            where = "task.labels" if given else "the training examples"
            raise InputError(
                f"task.{key}: the {name} split has the label '{unknown[0]}', which {where} do not have"
                f"{nearest(unknown[0], list(index))}; they have {', '.join(list(index)[:12])}"
                + ("" if given else "; if it is a class that happens to be rare, name all of them as task.labels")
            )
    return list(names), index


def missing_classes(splits: Mapping[str, Split], names: Sequence[str], used: Mapping[str, Counter[int]]) -> list[str]:
    """Return a warning for each of the training and the test split that has no example of some class; `used` counts them."""
    told = []
    for split, told_as in (("train", "training"), ("test", "test")):
        missing = [name for number, name in enumerate(names) if not used[split][number]]
        if missing:
            listed = ", ".join(missing[:12]) + (f" and {len(missing) - 12} more" if len(missing) > 12 else "")
            told.append(f"the {told_as} split has no example of {listed}")
    return told


def _numbers_first(label: str) -> tuple[bool, int, str]:
    is_number = label.lstrip("-").isdecimal()
    return (not is_number, int(label) if is_number else 0, label)
