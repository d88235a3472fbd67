"""The untouched model is evaluated once, and anew as soon as anything differs that the result depends on."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from pewb import assembly
from pewb.batching import Collated
from pewb.device import Computing
from pewb.prediction import predict
from pewb.recipe import Quantization, Training
from pewb.reporting import Silent
from pewb.runner.untouched import untouched_metrics
from pewb.strategies.bitfit import BitFit
from pewb.strategies.lora import Lora
from tests.encoding import encode
from tests.training.test_parity import CLASSES, CPU, LABELS, TEXTS

FP32 = ["fp32", "no", "none", 4]


class Place:
    """A folder of evaluations, and how often one was made for it."""

    def __init__(self, folder):
        self.folder, self.made = folder, 0

    def metrics(self, made, batches, computing=FP32, device="cpu"):
        def evaluate():
            self.made += 1
            return predict(made.model, batches, 4, nullcontext, Silent(), "testing").metrics()

        return untouched_metrics(made.model, batches, computing, device, self.folder, evaluate)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "untouched")


def loaded(tiny_backbone, strategy, seed=0, max_tokens=16):
    computing = Computing(CPU, "fp32", torch.float32)
    training = Training(max_tokens=max_tokens)
    made = assembly.load("tiny", tiny_backbone("bert"), LABELS, strategy, Quantization(), training, computing, seed)
    return made, Collated(made.tokenizer, encode(made.tokenizer, TEXTS, CLASSES, max_tokens), CPU)


def test_another_strategy_finds_the_same_metrics(tiny_backbone, place):
    first = place.metrics(*loaded(tiny_backbone, Lora()))
    second = place.metrics(*loaded(tiny_backbone, BitFit()))
    assert first[1] is False and second[1] is True and place.made == 1
    assert first[0] == second[0] and "accuracy" in first[0]


def test_what_it_depends_on_makes_it_anew(tiny_backbone, place):
    made, batches = loaded(tiny_backbone, Lora())
    place.metrics(made, batches)
    place.metrics(*loaded(tiny_backbone, Lora(), seed=1))
    place.metrics(*loaded(tiny_backbone, Lora(), max_tokens=8))
    place.metrics(made, batches, ["bf16", "bf16", "none", 4])
    place.metrics(made, batches, device="cuda H100")
    place.metrics(made, replace(batches, data=replace(batches.data, labels=[1 - one for one in CLASSES])))
    with torch.no_grad():
        next(made.model.parameters())[3, 1] += 1e-3
    place.metrics(made, batches)
    assert place.made == 7


def test_a_broken_or_unwritable_place_only_costs_time(tiny_backbone, place):
    made, batches = loaded(tiny_backbone, Lora())
    expected, _ = place.metrics(made, batches)
    (file,) = place.folder.glob("*.json")
    for content in ("", "[]", '{"accuracy": {"value": 1}}', '{"accuracy": 3}'):
        file.write_text(content, encoding="utf-8")
        assert place.metrics(made, batches) == (expected, False)
    assert place.metrics(made, batches) == (expected, True)
    blocked = Place(file)
    assert blocked.metrics(made, batches) == (expected, False)
