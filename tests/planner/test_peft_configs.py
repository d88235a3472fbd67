"""Every method of the installed PEFT, by a small configuration, on a small language model: planned, or refused for a reason."""

import pytest
import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING
from pydantic import ValidationError

from pewb.backbone import read_blueprint
from pewb.errors import RefusedError
from pewb.measurement.parameters import count_parameters
from pewb.planner.ledger import Ledger
from pewb.planner.numbers import Numbers
from pewb.planner.simulation import Simulation
from pewb.planner.virtual_device import VirtualDevice
from pewb.strategies.peft_config import Peft
from tests.planner.real_step import TARGET, make_small_backbone, measure, stepper_of
from tests.planner.test_exactness import question_of

TARGETS = {"target_modules": ["q_proj", "v_proj"]}
PLANNED = {
    "ADALORA": TARGETS | {"total_step": 10},
    "ADAMSS": TARGETS,
    "BEFT": TARGETS,
    "BOFT": TARGETS | {"boft_block_size": 4},
    "C3A": TARGETS | {"block_size": 16},
    "CARTRIDGE": {"num_virtual_tokens": 4},
    "CPT": {"cpt_token_ids": [5, 6, 7, 8]},
    "DEFT": TARGETS,
    "DELORA": TARGETS,
    "FOURIERFT": TARGETS | {"n_frequency": 100},
    "FROD": TARGETS,
    "GLORA": TARGETS,
    "GRALORA": TARGETS,
    "HIRA": TARGETS,
    "HRA": TARGETS,
    "IA3": TARGETS | {"feedforward_modules": []},
    "LILY": TARGETS,
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "LOHA": TARGETS,
    "LOKR": TARGETS,
    "LORA": TARGETS,
    "MISS": TARGETS,
    "OFT": TARGETS | {"oft_block_size": 8},
    "OSF": TARGETS,
    "PEANUT": TARGETS,
    "PREFIX_TUNING": {"num_virtual_tokens": 4},
    "PROMPT_TUNING": {"num_virtual_tokens": 4},
    "PSOFT": TARGETS,
    "PVERA": TARGETS,
    "P_TUNING": {"num_virtual_tokens": 4, "encoder_hidden_size": 8},
    "RANDLORA": TARGETS,
    "ROAD": TARGETS | {"group_size": 32},
    "SHADOW": {},
    "SHIRA": TARGETS,
    "SUPERTUNING": TARGETS,
    "TINYLORA": TARGETS,
    "UNILORA": TARGETS,
    "VBLORA": TARGETS | {"num_vectors": 8, "vector_length": 32},
    "VERA": TARGETS,
    "WAVEFT": TARGETS | {"n_frequency": 100},
}
REFUSED = {
    "ADAPTION_PROMPT": "no modules_to_save",
    "MULTITASK_PROMPT_TUNING": "reads the labels of a language model",
    "POLY": "asks of which task each example is",
    "TRAINABLE_TOKENS": "no modules_to_save",
    "XLORA": "no modules_to_save",
}
ASK_FOR_NUMBERS = {"ADAMSS", "FROD", "PSOFT", "SHIRA", "UNILORA", "WAVEFT"}
"""Methods whose initialisation or forward needs numbers, or (PSOFT) takes a part of what a device lays out in its own way."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_small_backbone("llama", tmp_path_factory.mktemp("llama"))


def test_every_method_of_peft_is_accounted_for():
    assert set(PLANNED) | set(REFUSED) == {kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING}


@pytest.mark.parametrize(
    "peft_type", [pytest.param(one, marks=[] if one in ASK_FOR_NUMBERS else pytest.mark.slow) for one in PLANNED]
)
def test_counts_are_equal_and_the_peak_is_within_a_percent(folder, peft_type):
    question = question_of(folder, "llama", Peft(config={"peft_type": peft_type, **PLANNED[peft_type]}))
    virtual = Simulation(question, TARGET)
    phase, _ = virtual.train(8)
    parameters = virtual.parameters
    model = stepper_of(question, folder, 8).model
    assert parameters == count_parameters(model, read_blueprint(folder, question.labels, None, question.task).anatomy)
    assert [phase.allocated_bytes] * 2 == pytest.approx(measure(question, folder, 8), rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "precision"),
    [
        ({"peft_type": "ADAMSS", "subspace_rank": 4, "use_dynamic_rank": True}, "bf16"),
        ({"peft_type": "FROD", "sparse_rate": 0.1}, "fp32"),
        ({"peft_type": "SHIRA", "r": 8}, "bf16-true"),
        ({"peft_type": "WAVEFT", "n_frequency": 100, "use_idwt": False}, "fp32"),
    ],
)
def test_other_settings(folder, config, precision):
    """AdaMSS has as many ranks as the weights' singular values say, so that drawn ones give a few more or less."""
    question = question_of(folder, "llama", Peft(config=TARGETS | config), precision=precision)
    virtual = Simulation(question, TARGET)
    phase, _ = virtual.train(8)
    assert bool(virtual.doubts) == (config["peft_type"] == "ADAMSS")
    assert [phase.allocated_bytes] * 2 == pytest.approx(measure(question, folder, 8), rel=0.01)


@pytest.mark.parametrize("peft_type", REFUSED)
def test_refusals_say_why(folder, peft_type):
    settings = {"num_virtual_tokens": 4, "num_tasks": 1} if peft_type == "MULTITASK_PROMPT_TUNING" else {}
    with pytest.raises((ValidationError, RefusedError), match=REFUSED[peft_type]):
        Simulation(question_of(folder, "llama", Peft(config={"peft_type": peft_type, **settings})), TARGET)


@pytest.fixture
def device():
    device = VirtualDevice("cpu")
    with device.active(), Ledger([], 1, device.numbers), device.numbers.recorded():
        yield device


def test_what_is_made_of_nothing_has_its_numbers(device):
    places = torch.randperm(40)[:7].to("meta")
    mask = torch.zeros(8, 5, dtype=torch.bool).view(-1)
    mask.scatter_(0, places, torch.ones(7, dtype=torch.bool))
    found = mask.view(8, 5).nonzero()
    assert found.is_meta
    assert found.shape == (7, 2)
    assert torch.zeros(8, 5)[mask.view(8, 5)].shape == (7,)
    assert sorted(places.tolist()) == sorted((found[:, 0] * 5 + found[:, 1]).tolist())
    assert torch.tensor([2, 3, 3]).to("meta").bincount(minlength=3).tolist() == [0, 0, 1, 2]
    assert not device.numbers.is_drawn


def test_a_later_change_counts(device):
    numbers = torch.arange(4)
    row = numbers[1:]
    numbers.mul_(10)
    assert row.tolist() == [10, 20, 30]
    row.zero_()
    assert numbers.sum().item() == 0


def test_other_numbers_stand_for_those_of_weights():
    device = VirtualDevice("cpu")
    with device.active(), Ledger([], 1, device.numbers):
        weight = torch.ones(6, 3)
        with device.numbers.recorded():
            norms = (weight * 2).norm(dim=0)
            assert norms[norms > 1e-3].shape == (3,)
            assert not (norms > 1e-3).all()
            assert not device.numbers.is_drawn
            drawn = (weight * 2).cpu()
            assert drawn.numpy().std() > 0
            assert drawn.sub(1).tolist() == (drawn.numpy() - 1).tolist()
            assert device.numbers.is_drawn


def test_the_record_keeps_nothing_alive():
    numbers = Numbers()
    device = VirtualDevice("cpu")
    ledger = Ledger([], 1, numbers)
    with device.active(), ledger, numbers.recorded():
        for _ in range(3):
            torch.zeros(1000).mul_(2)
        assert ledger.live_bytes == 0
