"""What a record says was planned of its memory is what was measured, whatever the lengths and the targets.

The tensors are tiny, so that a mask, which a batch without padding does without, is some percents.
"""

import csv
import json

import pytest

from tests.runner.test_language_models import FILES, TASKS
from tests.tiny_backbones import WORDS


def write_pairs(folder, rows):
    for name in FILES.values():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def offs(record):
    """Return for each phase what was planned over what was measured."""
    return {
        phase: record["memory_predicted"][phase]["peak_allocated_bytes"]
        / record["memory"][phase]["peak_allocated_bytes"]
        for phase in ("train", "evaluation")
    }


@pytest.mark.parametrize(("question", "answer"), [(1, 50), (50, 1)])
def test_an_encoder_decoder_whose_targets_are_longer_or_shorter(
    question, answer, do_job, sentence_files, tiny_language_model
):
    rows = [
        {"question": " ".join([word] * (question + place % 2)), "answer": " ".join([word] * answer)}
        for place, word in enumerate(WORDS)
    ]
    write_pairs(sentence_files, rows)
    training = {"batch_size": 8, "max_tokens": 60}
    record = do_job("t5", backbone=str(tiny_language_model("t5")), task=TASKS["t5"], training=training).record
    assert offs(record)["train"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("micro_batch_size", [16, 4])
def test_a_language_model_most_of_whose_targets_are_short(
    micro_batch_size, do_job, sentence_files, tiny_language_model
):
    rows = []
    for number in range(32):
        targets = 2 if number % 8 else 40
        rows.append({"question": " ".join(["the"] * (50 - targets - number % 3)), "answer": " ".join(["is"] * targets)})
    write_pairs(sentence_files, rows)
    training = {"batch_size": 16, "micro_batch_size": micro_batch_size, "max_tokens": 60}
    folder = str(tiny_language_model("llama"))
    record = do_job("llama", backbone=folder, task=TASKS["llama"], training=training).record
    assert offs(record)["train"] == pytest.approx(1, abs=0.1)


def test_the_evaluation_of_frozen_layers_is_that_of_the_longest_split(do_job, sentence_files):
    for name, length in (("train", 28), ("validation", 3), ("test", 3)):
        with (sentence_files / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            rows = [
                [" ".join([word] * (length + odd)), label]
                for word, label in (("good", "positive"), ("bad", "negative"))
                for odd in (0, 1)
            ]
            csv.writer(file).writerows([["sentence", "label"], *rows * 32])
    record = do_job(
        "bert", strategy={"kind": "top_layers", "num_layers": 1}, training={"max_tokens": 32, "batch_size": 8}
    ).record
    assert record["prefix_cache"]
    assert offs(record)["evaluation"] == pytest.approx(1, abs=0.1)
