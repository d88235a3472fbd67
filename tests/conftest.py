import os

for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: a second thread only waits

import signal  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402

signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a shell's background ignores it, and so would what tests interrupt

SENTENCES = [
    ("a good film", "positive"),
    ("the plot was good and it was great", "positive"),
    ("great cast", "positive"),
    ("it is very good", "positive"),
    ("the story is great and the cast is good", "positive"),
    ("good story", "positive"),
    ("a bad film", "negative"),
    ("the plot was dull and it was bad", "negative"),
    ("dull cast", "negative"),
    ("it is very bad", "negative"),
    ("the story is dull and the cast is bad", "negative"),
    ("bad story", "negative"),
]


@pytest.fixture(autouse=True)
def a_precision_of_its_own():
    """Let every test choose its precision: accelerate keeps one for the whole process."""
    yield
    if state := sys.modules.get("accelerate.state"):
        state.AcceleratorState._reset_state(True)


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory):
    """Return a function from an architecture's name to a folder with a tiny backbone of it, built once."""
    from tests.tiny_backbones import make_backbone

    made: dict[str, Path] = {}

    def build(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = make_backbone(architecture, tmp_path_factory.mktemp(architecture))
        return made[architecture]

    return build


@pytest.fixture(scope="session")
def tiny_language_model(tmp_path_factory):
    """Return a function from an architecture's name to a folder with a tiny language model of it, built once."""
    from tests.tiny_backbones import make_language_model

    made: dict[str, Path] = {}

    def build(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = make_language_model(architecture, tmp_path_factory.mktemp(f"{architecture}-lm"))
        return made[architecture]

    return build


@pytest.fixture
def sentence_files(tmp_path):
    """Return a folder with train.csv, validation.csv and test.csv of sentences whose class a word decides."""
    import csv

    for name, repeats in (("train", 4), ("validation", 1), ("test", 2)):
        with (tmp_path / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["sentence", "label"])
            writer.writerows(SENTENCES * repeats)
    return tmp_path
