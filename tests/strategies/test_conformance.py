"""What every strategy must do, on every architecture and quantization it claims."""

import pytest
import torch
from accelerate import Accelerator

from pewb import assembly
from pewb.batching import collate, encode
from pewb.device import Computing
from pewb.errors import RefusedError
from pewb.measurement.memory import PhaseMemory
from pewb.measurement.parameters import count_parameters, head_parameters
from pewb.recipe import Quantization, Training
from pewb.reporting import Silent
from pewb.strategies import strategies
from pewb.training.loop import Trained, train
from tests.conftest import SENTENCES
from tests.tiny_backbones import CONFIGURATIONS

LABELS = ["negative", "positive"]
REFUSED = {("deberta-v2", "prefix_tuning"), ("t5", "prefix_tuning"), ("t5", "prompt_tuning")}
"""Whatever is refused is listed here, and shown to fail in PEFT or transformers themselves."""
SETTINGS = {
    "bottleneck_adapter": {"bottleneck": 8},
    "prefix_tuning": {"num_virtual_tokens": 4},
    "prompt_tuning": {"num_virtual_tokens": 4},
    "top_layers": {"num_layers": 1},
}
RATES = {"full": 3e-3, "top_layers": 3e-3, "head_only": 3e-2, "lora": 1e-2, "bottleneck_adapter": 3e-3}


def make(strategy: str) -> object:
    return strategies()[strategy](**SETTINGS.get(strategy, {}))


def is_refused(strategy: str, architecture: str) -> bool:
    return (architecture, strategy) in REFUSED


def load(folder, strategy: str, quantization: str = "none", **training) -> assembly.Assembly:
    section = Training(max_tokens=16, dropout=0.0, learning_rate=RATES.get(strategy, 3e-2), **training)
    computing = Computing(torch.device("cpu"), "fp32", torch.float32)
    return assembly.load(
        "tiny", folder, LABELS, make(strategy), Quantization(kind=quantization), section, computing, seed=0
    )


def encoded(assembled: assembly.Assembly):
    texts = [(text,) for text, _ in SENTENCES]
    return encode(assembled.tokenizer, texts, [LABELS.index(label) for _, label in SENTENCES], 16)


def logits(assembled: assembly.Assembly) -> torch.Tensor:
    data = encoded(assembled)
    inputs, _ = collate(assembled.tokenizer, data, range(len(data)), torch.device("cpu"))
    assembled.model.eval()
    with torch.no_grad():
        return assembled.model(**inputs).logits.float()


def one_by_one(assembled: assembly.Assembly) -> torch.Tensor:
    """Return the logits of batches of one, in which there is no padding."""
    data = encoded(assembled)
    rows = []
    assembled.model.eval()
    with torch.no_grad():
        for index in range(len(data)):
            inputs, _ = collate(assembled.tokenizer, data, [index], torch.device("cpu"))
            rows.append(assembled.model(**inputs).logits.float())
    return torch.cat(rows)


def fit(assembled: assembly.Assembly, strategy: str, epochs: int = 12) -> Trained:
    section = Training(
        epochs=epochs,
        batch_size=6,
        max_tokens=16,
        learning_rate=RATES.get(strategy, 3e-2),
        schedule="constant",
        warmup_ratio=0,
    )
    trained = Trained()
    train(
        assembled.model,
        assembled.tokenizer,
        encoded(assembled),
        section,
        0,
        Accelerator(cpu=True),
        lambda: logits(assembled).mean().item(),  # an evaluation in the middle of training, after every epoch
        PhaseMemory(torch.device("cpu")),
        Silent(),
        trained,
    )
    return trained


FAST = [("bert", strategy, kind) for strategy in strategies() for kind in ("none", "int8", "nf4")]
FAST += [
    (architecture, strategy, "none")
    for architecture in CONFIGURATIONS
    for strategy in strategies()
    if architecture != "bert"
]
SLOW = [
    (architecture, strategy, kind)
    for architecture in CONFIGURATIONS
    for strategy in strategies()
    for kind in ("int8", "nf4", "fp4")
    if (architecture, strategy, kind) not in FAST
]
COMBINATIONS = [*FAST, *(pytest.param(*combination, marks=pytest.mark.slow) for combination in SLOW)]


@pytest.mark.parametrize(("architecture", "strategy", "quantization"), COMBINATIONS)
def test_conformance(architecture, strategy, quantization, tiny_backbone, tmp_path):
    folder = tiny_backbone(architecture)
    kind = strategies()[strategy]
    if quantization not in kind.quantizations:
        assert kind.quantization_refusal
        return
    if is_refused(strategy, architecture):
        with pytest.raises(RefusedError, match="does not fit"):
            load(folder, strategy, quantization)
        return
    assembled = load(folder, strategy, quantization)
    untouched = logits(assembled)
    assembly.insert(assembled, False, 0)
    started = logits(assembled)
    if kind.starts_as_backbone:
        assert torch.equal(started, untouched)
    if quantization == "none":
        torch.testing.assert_close(
            started, one_by_one(assembled), rtol=1e-4, atol=1e-5, msg="padding changes the logits"
        )

    before = {name: tensor.detach().clone() for name, tensor in assembled.model.named_parameters()}
    trainable = {name for name, tensor in assembled.model.named_parameters() if tensor.requires_grad}
    trained = fit(assembled, strategy)
    after = dict(assembled.model.named_parameters())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == trainable, f"frozen but moved: {moved - trainable}; trainable but still: {trainable - moved}"
    assert {id(tensor) for tensor in head_parameters(assembled.model, assembled.anatomy)} <= {
        id(after[name]) for name in trainable
    }

    losses = [loss for _, loss in trained.loss]
    assert sum(losses[-4:]) < sum(losses[:4])

    assembled.strategy.save(assembled.model, tmp_path)
    fresh = load(folder, strategy, quantization)
    fresh.model = assembled.strategy.load(fresh.model, fresh.anatomy, tmp_path)
    torch.testing.assert_close(logits(fresh), logits(assembled), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("architecture", "strategy"), sorted(REFUSED))
def test_refusals_are_true(architecture, strategy, tiny_backbone):
    """Plain PEFT, on the same model, raises."""
    from peft import get_peft_model

    assembled = load(tiny_backbone(architecture), "lora")
    assembled.strategy = make(strategy)
    with pytest.raises((ValueError, NotImplementedError, RuntimeError)):
        assembled.model = get_peft_model(assembled.model, assembled.strategy.peft_config(assembled.anatomy))
        logits(assembled)


@pytest.mark.parametrize("strategy", strategies())
@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_train_evaluate_train_keeps_every_gradient(strategy, quantization, tiny_backbone):
    if quantization not in strategies()[strategy].quantizations:
        return
    assembled = load(tiny_backbone("bert"), strategy, quantization)
    assembly.insert(assembled, False, 0)
    data = encoded(assembled)
    inputs, labels = collate(assembled.tokenizer, data, range(len(data)), torch.device("cpu"))
    optimizer = torch.optim.AdamW([one for one in assembled.model.parameters() if one.requires_grad], 1e-3)
    for _ in range(3):
        assembled.model.train()
        torch.nn.functional.cross_entropy(assembled.model(**inputs).logits, labels).backward()
        without = [name for name, one in assembled.model.named_parameters() if one.requires_grad and one.grad is None]
        assert not without
        optimizer.step()
        optimizer.zero_grad()
        logits(assembled)


@pytest.mark.parametrize(
    "strategy", [name for name, kind in strategies().items() if kind.supports_gradient_checkpointing]
)
def test_gradient_checkpointing_gives_the_same_gradients(strategy, tiny_backbone):
    gradients = []
    for checkpointing in (False, True):
        assembled = load(tiny_backbone("llama"), strategy)
        assembly.insert(assembled, checkpointing, 0)
        data = encoded(assembled)
        inputs, labels = collate(assembled.tokenizer, data, range(len(data)), torch.device("cpu"))
        assembled.model.train()
        torch.nn.functional.cross_entropy(assembled.model(**inputs).logits, labels).backward()
        gradients.append({name: one.grad for name, one in assembled.model.named_parameters() if one.requires_grad})
    plain, checkpointed = gradients
    assert all(gradient is not None for gradient in checkpointed.values())
    torch.testing.assert_close(checkpointed, plain)


@pytest.mark.parametrize("strategy", strategies())
def test_counts_are_the_model_itself(strategy, tiny_backbone):
    assembled = load(tiny_backbone("bert"), strategy)
    backbone = sum(one.numel() for one in assembled.model.parameters())
    assembly.insert(assembled, False, 0)
    counted = count_parameters(assembled.model, assembled.anatomy)
    inserted = sum(
        one.numel()
        for name, one in assembled.model.named_parameters()
        if any(part in name for part in ("lora_", "prompt_encoder", "bottleneck_adapter"))
    )
    assert counted.total == backbone + inserted
    assert counted.head == 32 * 32 + 32 + 32 * 2 + 2
    assert counted.trainable == sum(one.numel() for one in assembled.model.parameters() if one.requires_grad)


@pytest.mark.parametrize("strategy", strategies())
def test_default_learning_rate_names_its_source(strategy):
    kind = strategies()[strategy]
    assert 1e-6 < kind.default_learning_rate < 1
    assert any(character.isdigit() for character in kind.learning_rate_source)
    assert "arXiv" in kind.paper
