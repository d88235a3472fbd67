import json

import pytest

from pewb.tasks import TextClassification, read_examples

ROWS = [(f"a {'good' if number % 2 else 'bad'} film number {number}", str(number % 2)) for number in range(40)]


def csv_of(rows, header=("text", "label")) -> str:
    lines = [header, *rows] if header else rows
    return "".join(",".join('"{}"'.format(str(value).replace('"', '""')) for value in row) + "\n" for row in lines)


def jsonl_of(rows) -> str:
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)


@pytest.fixture
def write(tmp_path):
    """Write named files: text (as UTF-8) or bytes."""

    def to_files(**files):
        for name, content in files.items():
            path = tmp_path / name.replace("__", ".")
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return to_files


@pytest.fixture
def read(tmp_path):
    """Read examples with a task's keys; `train.csv`, `validation.csv` and `test.csv` unless others are named."""

    def from_files(limits=None, **keys):
        if "data" not in keys:
            keys = {"train": "train.csv", "validation": "validation.csv", "test": "test.csv"} | keys
        return read_examples(TextClassification(**keys), tmp_path, limits or {})

    return from_files


@pytest.fixture
def three_files(write):
    """Write train.csv, validation.csv and test.csv, each with these rows unless others are given."""

    def to_files(rows=ROWS[:8], **others):
        return write(**{f"{name}__csv": csv_of(others.get(name, rows)) for name in ("train", "validation", "test")})

    return to_files
