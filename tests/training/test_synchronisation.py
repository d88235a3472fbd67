"""No step waits for the device: a number that is read out of a tensor would make a GPU finish all that it was given."""

import traceback

import pytest
import torch
from accelerate import Accelerator
from torch.utils._python_dispatch import TorchDispatchMode

from pewb import assembly
from pewb.batching import Collated
from pewb.device import Computing
from pewb.heads import head_of
from pewb.prefix.store import PrefixCache
from pewb.recipe import Quantization, Training
from pewb.reporting import Silent
from pewb.strategies.head_only import HeadOnly
from pewb.strategies.lora import Lora
from pewb.strategies.top_layers import TopLayers
from pewb.tasks import CausalLm, Split, TextClassification
from pewb.training.optimizers import make_optimizer
from pewb.training.step import Stepper
from tests.encoding import encode, encode_split
from tests.training.test_language_models import PAIRS
from tests.training.test_parity import CLASSES, CPU, LABELS, TEXTS

WAITS = {
    "_local_scalar_dense",
    "nonzero",
    "is_nonzero",
    "equal",
    "masked_select",
    "unique_consecutive",
    "_unique2",
    "repeat_interleave",
}
"""Operations that give a number, or a shape that depends on numbers, to the host."""
READERS = ("tolist", "numpy", "cpu")
"""Methods that copy to the host without an operation, where the device is the host."""


class Waits(TorchDispatchMode):
    """Lists such operations, but for those on tensors that are on the host anyway."""

    def __init__(self, on_host):
        super().__init__()
        self.on_host = {one.untyped_storage()._cdata for one in on_host}
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        mine = [one for one in args if isinstance(one, torch.Tensor)]
        from_host = bool(mine) and all(one.untyped_storage()._cdata in self.on_host for one in mine)
        if from_host:
            outputs = output if isinstance(output, tuple | list) else [output]
            self.on_host |= {one.untyped_storage()._cdata for one in outputs if isinstance(one, torch.Tensor)}
        elif (function._opname in WAITS or _selects_by_mask(function, args)) and not _is_masks_own():
            self.seen.append(function._opname)
        return output

    def reader(self, name):
        """Return the tensors' method `name`, which is seen."""
        method = getattr(torch.Tensor, name)

        def seen(tensor, *args, **options):
            if tensor.untyped_storage()._cdata not in self.on_host:
                self.seen.append(name)
            return method(tensor, *args, **options)

        return seen


def _selects_by_mask(function, args):
    """Return whether the shape of what is chosen depends on how much of a mask is true."""
    return function._opname == "index" and any(one is not None and one.dtype == torch.bool for one in args[1])


def _is_masks_own():
    """Return whether transformers asks, before a forward begins, whether there is any padding; it can't be kept from it."""
    return any(frame.filename.endswith("transformers/masking_utils.py") for frame in traceback.extract_stack())


@pytest.mark.parametrize(
    ("architecture", "strategy"),
    [
        ("bert", Lora(rank=4)),
        ("bert", TopLayers(num_layers=1)),
        ("bert", HeadOnly()),
        ("llama", Lora(rank=4)),
        ("llama", TopLayers(num_layers=1)),
    ],
)
def test_a_step_waits_for_nothing(architecture, strategy, tiny_backbone, tiny_language_model, tmp_path, monkeypatch):
    training = Training(batch_size=6, max_tokens=16, learning_rate=1e-3)
    family = TextClassification if architecture == "bert" else CausalLm
    folder = tiny_backbone(architecture) if family is TextClassification else tiny_language_model(architecture)
    labels = LABELS if family is TextClassification else []
    computing = Computing(CPU, "fp32", torch.float32)
    made = assembly.load("tiny", folder, labels, strategy, Quantization(), training, computing, 0, family())
    assembly.insert(made, False, 0)
    if family is TextClassification:
        data = encode(made.tokenizer, TEXTS, CLASSES, 16)
    else:
        data = encode_split(CausalLm, made.tokenizer, Split(PAIRS), 16)
    batches = Collated(made.tokenizer, data, CPU)
    accelerator = Accelerator(cpu=True)
    if made.prefix:
        states = PrefixCache(made.prefix, tmp_path, accelerator.autocast, "cpu").states(batches, 4, Silent())
        batches.states = states.rows
        made.prefix.cut()
    inputs, told = batches(range(len(data)))
    given = type("Given", (), {"weight": lambda *_: 6, "__call__": lambda *_: (dict(inputs), told)})()
    optimizer = make_optimizer(made.model, training)
    made.model.train()
    stepper = Stepper(made.model, strategy, given, head_of(family()), optimizer, accelerator, training, len(data))
    waits = Waits([told] if family is CausalLm else [])
    for name in READERS:
        monkeypatch.setattr(torch.Tensor, name, waits.reader(name))
    with waits:
        loss = stepper.step(range(len(data)))
    assert waits.seen == []
    assert torch.isfinite(loss)


@pytest.mark.parametrize(
    "wait",
    [
        lambda one: one.sum().item(),
        lambda one: one.tolist(),
        lambda one: one.numpy(),
        lambda one: one[one > 0],
        lambda one: one.repeat_interleave(one.long()),
        lambda one: one.nonzero(),
    ],
)
def test_waiting_is_seen(wait, monkeypatch):
    waits = Waits([])
    for name in READERS:
        monkeypatch.setattr(torch.Tensor, name, waits.reader(name))
    with waits:
        wait(torch.ones(3) + 1)
    assert waits.seen
