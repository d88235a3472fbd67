"""One golden trajectory: it changes only together with `NUMERICS_VERSION`."""

import pytest

from pewb.recipe import Training
from pewb.record import NUMERICS_VERSION
from pewb.strategies.lora import Lora
from tests.training.test_parity import run

GOLDEN = {4: [0.69113, 0.694511, 0.699519, 0.702504, 0.705106, 0.688864]}


def test_golden_losses_of_text_classification(tiny_backbone):
    training = Training(epochs=3, batch_size=6, max_tokens=16, learning_rate=1e-2, schedule="cosine")
    _, trained = run(tiny_backbone("bert"), Lora(rank=4), training)
    assert [loss for _, loss in trained.loss] == pytest.approx(GOLDEN[NUMERICS_VERSION], rel=1e-3)
