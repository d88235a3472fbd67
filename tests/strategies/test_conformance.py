"""What every strategy must do, on every architecture and quantization: it works, or its refusal is shown to be true.

The cells are those of `pewb list strategies --matrix`: a strategy is tested from the moment it is listed. The short form
trains each method on BERT, unquantised, in int8 and in nf4, and on one other architecture, in turn; the whole is slow.
"""

import math

import pytest
import torch
from accelerate import Accelerator

from pewb import assembly
from pewb.batching import Collated
from pewb.device import Computing
from pewb.errors import RefusedError
from pewb.listings import FAMILIES, STORAGES, Combination, Method, listing, matrix, methods
from pewb.measurement.memory import PhaseMemory
from pewb.measurement.parameters import count_parameters, head_parameters
from pewb.recipe import Quantization, Training, parse_recipe
from pewb.reporting import Silent
from pewb.strategies import strategies
from pewb.training.loop import Trained, train
from tests.conftest import SENTENCES
from tests.encoding import encode
from tests.tiny_backbones import CONFIGURATIONS

LABELS = ["negative", "positive"]
SETTINGS = {
    "bottleneck_adapter": {"bottleneck": 8},
    "mam": {"num_virtual_tokens": 4, "bottleneck": 8},
    "p_tuning": {"num_virtual_tokens": 4},
    "prefix_tuning": {"num_virtual_tokens": 4},
    "prompt_tuning": {"num_virtual_tokens": 4},
    "top_layers": {"num_layers": 1},
}
"""What the tiny backbones need to be other than by default."""
ROUNDED_AGAIN = {"lora olora"}
"""Methods that change quantised weights, which are then rounded once more: they start as the backbone but for that."""
RATES = {
    "bitfit": 1e-2,
    "bottleneck_adapter": 3e-3,
    "full": 3e-3,
    "layer_norm": 1e-2,
    "lora": 1e-2,
    "mam": 3e-3,
    "peft": 1e-2,
    "top_layers": 3e-3,
}
"""Rates at which the tiny backbones learn; 3e-2 for the others."""
MATRIX = matrix("cpu")
WORKING = [one for one in MATRIX if one.refusal is None]
REFUSED = [one for one in MATRIX if one.refusal is not None]
METHODS = methods()
ON_BERT = [one.method for one in WORKING if (one.architecture, one.quantization) == ("bert", "none")]
"""All but those that no test on a CPU can train (LoftQ), whose refusals are tested."""
FP4 = [
    Combination(one.method, one.architecture, "fp4", None)
    for one in WORKING
    if (one.architecture, one.quantization) == ("bert", "nf4")
]


def name_of(one) -> str:
    if isinstance(one, Method):
        return str(one).replace(" ", "_")
    return f"{name_of(one.method)}-{one.architecture}-{one.quantization}"


def visited(method: Method) -> str:
    """Return the architecture beside BERT on which the short form trains `method`."""
    others = [one.architecture for one in WORKING if one.method == method and one.quantization == "none"]
    others = [family for family in others if family != "bert"]
    return others[METHODS.index(method) % len(others)] if others else ""


def is_short(one: Combination) -> bool:
    return one.architecture == "bert" or (one.quantization == "none" and one.architecture == visited(one.method))


def marked(combinations, is_short):
    return [pytest.param(one, id=name_of(one), marks=[] if is_short(one) else pytest.mark.slow) for one in combinations]


def make(method: Method):
    return strategies()[method.strategy](**SETTINGS.get(method.strategy, {}) | dict(method.settings))


def method_called(strategy: str) -> Method:
    return next(method for method in METHODS if method.strategy == strategy)


def rate(method: Method) -> float:
    return RATES.get(str(method), RATES.get(method.strategy, 3e-2))


FP32 = Computing(torch.device("cpu"), "fp32", torch.float32)
BF16 = Computing(torch.device("cpu"), "bf16", torch.bfloat16)


def load(folder, method: Method, quantization: str = "none", computing: Computing = FP32) -> assembly.Assembly:
    section = Training(max_tokens=16, dropout=0.0, learning_rate=rate(method))
    return assembly.load(
        "tiny", folder, LABELS, make(method), Quantization(kind=quantization), section, computing, seed=0
    )


def check_recipe(one: Combination) -> None:
    strategy = {"kind": one.method.strategy} | SETTINGS.get(one.method.strategy, {}) | dict(one.method.settings)
    parse_recipe({"backbone": "b", "task": "t", "strategy": strategy, "quantization": one.quantization})


ENCODED = {}
"""The sentences in tokens, for each architecture: strategies differ in where they pad, which comes later."""


def encoded(assembled: assembly.Assembly):
    architecture = assembled.anatomy.model_type
    if architecture not in ENCODED:
        labels = [LABELS.index(label) for _, label in SENTENCES]
        ENCODED[architecture] = encode(assembled.tokenizer, [(text,) for text, _ in SENTENCES], labels, 16)
    return ENCODED[architecture]


def batch(assembled: assembly.Assembly):
    data = encoded(assembled)
    return Collated(assembled.tokenizer, data, torch.device("cpu"))(range(len(data)))


def logits(assembled: assembly.Assembly) -> torch.Tensor:
    inputs, _ = batch(assembled)
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
            inputs, _ = Collated(assembled.tokenizer, data, torch.device("cpu"))([index])
            rows.append(assembled.model(**inputs).logits.float())
    return torch.cat(rows)


def backward(model, inputs, labels) -> None:
    model.train()
    torch.nn.functional.cross_entropy(model(**inputs).logits.float(), labels).backward()


def without_gradient(model) -> list[str]:
    return [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]


def fit(assembled: assembly.Assembly, method: Method, epochs: int = 8, computing: Computing = FP32) -> Trained:
    accelerator = Accelerator(mixed_precision=computing.autocast, cpu=True)

    def validate() -> float:
        with accelerator.autocast():
            return logits(assembled).mean().item()

    section = Training(
        epochs=epochs,
        batch_size=6,
        max_tokens=16,
        learning_rate=rate(method),
        schedule="constant",
        warmup_ratio=0,
        weight_decay=0,  # it would move even what no gradient reaches
    )
    trained = Trained()
    train(
        assembled.model,
        assembled.strategy,
        Collated(assembled.tokenizer, encoded(assembled), torch.device("cpu")),
        section,
        0,
        accelerator,
        validate,  # an evaluation in the middle of training, after every epoch
        PhaseMemory(torch.device("cpu")),
        Silent(),
        trained,
    )
    return trained


def allowed_rounding(one: Combination, folder, untouched: torch.Tensor) -> float:
    """Return how far a model may start from its backbone: a second rounding may do about as much as the first has done."""
    if str(one.method) not in ROUNDED_AGAIN or one.quantization == "none":
        return 2e-6
    first = (logits(load(folder, method_called("head_only"))) - untouched).abs().max().item()
    return 2 * first


@pytest.mark.parametrize("one", [*marked(WORKING, is_short), *marked(FP4, lambda _: False)])
def test_conformance(one, tiny_backbone, tmp_path):
    check_recipe(one)
    folder = tiny_backbone(one.architecture)
    assembled = load(folder, one.method, one.quantization)
    untouched = logits(assembled)
    assembly.insert(assembled, False, 0)
    started = logits(assembled)
    if assembled.strategy.starts_as_backbone:
        torch.testing.assert_close(started, untouched, rtol=0, atol=allowed_rounding(one, folder, untouched))
    if one.quantization == "none":
        torch.testing.assert_close(
            started, one_by_one(assembled), rtol=1e-4, atol=1e-5, msg="padding changes the logits"
        )

    before = {name: tensor.detach().clone() for name, tensor in assembled.model.named_parameters()}
    trainable = {name for name, tensor in assembled.model.named_parameters() if tensor.requires_grad}
    trained = fit(assembled, one.method)
    after = dict(assembled.model.named_parameters())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == trainable, f"frozen but moved: {moved - trainable}; trainable but still: {trainable - moved}"
    assert {id(tensor) for tensor in head_parameters(assembled.model, assembled.anatomy)} <= {
        id(after[name]) for name in trainable
    }

    losses = [loss for _, loss in trained.loss]
    assert sum(losses[-4:]) < sum(losses[:4])

    assembled.strategy.save(assembled.model, tmp_path)
    fresh = load(folder, one.method, one.quantization)
    fresh.model = assembled.strategy.load(fresh.model, fresh.anatomy, tmp_path)
    torch.testing.assert_close(logits(fresh), logits(assembled), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("one", marked(WORKING, lambda one: (one.architecture, one.quantization) == ("bert", "int8")))
def test_bf16_trains_what_fp32_trains(one, tiny_backbone):
    """Frozen weights are stored in bf16 then, and layers hand on what the next one must take."""
    assembled = load(tiny_backbone(one.architecture), one.method, one.quantization, BF16)
    assembly.insert(assembled, False, 0, Accelerator(mixed_precision="bf16", cpu=True).autocast)
    before = {name: tensor.detach().clone() for name, tensor in assembled.model.named_parameters()}
    trained = fit(assembled, one.method, epochs=2, computing=BF16)
    assert all(math.isfinite(loss) for _, loss in trained.loss)
    for name, tensor in assembled.model.named_parameters():
        assert not tensor.requires_grad or tensor.dtype == torch.float32, name
        assert torch.equal(tensor, before[name]) != tensor.requires_grad, name


def quantized_weights_take_no_gradient(assembled: assembly.Assembly) -> None:
    """Torch refuses: the codes of a quantised layer are integers."""
    with pytest.raises(RuntimeError, match="floating point"):
        assembled.model.requires_grad_(True)


def there_is_no_bias(assembled: assembly.Assembly) -> None:
    """The backbone has no parameter of that name, and torch's optimizer refuses to train nothing."""
    backbone = assembled.model.get_submodule(assembled.anatomy.base)
    biases = [one for name, one in backbone.named_parameters() if name.split(".")[-1] == "bias"]
    assert biases == []
    with pytest.raises(ValueError, match="empty parameter list"):
        torch.optim.AdamW(biases)


def peft_raises(exception, words):
    """Return a proof that PEFT itself raises on the same model: on inserting the adapter, or in one of two steps."""

    def proof(assembled: assembly.Assembly) -> None:
        from peft import get_peft_model

        inputs, labels = batch(assembled)
        strategy = getattr(assembled.strategy, "prefix", assembled.strategy)
        with pytest.raises(exception, match=words):
            model = get_peft_model(assembled.model, strategy.peft_config(assembled.anatomy))
            for _ in range(2):
                backward(model, inputs, labels)

    return proof


PROOFS = {
    "quantised weights have no gradients": quantized_weights_take_no_gradient,
    "none of its layers has a bias": there_is_no_bias,
    "the architecture takes none": peft_raises(ValueError, "does not support past key values"),
    "no prefix for the classification head": peft_raises(RuntimeError, "size of tensor"),
    "does not take embeddings": peft_raises(NotImplementedError, "input embeddings is currently not supported"),
    "PEFT has no such layer for transformers' Conv1D": peft_raises(TypeError, "Conv1D.* (not|is not) supported"),
    "OLoRA takes transformers' Conv1D for a linear": peft_raises(RuntimeError, "shapes cannot be multiplied"),
    "a 4-bit layer's shape from its packed codes": peft_raises(RuntimeError, r"1x\d+\)|shape '\[\d+, 1\]'"),
    "the principal part out of quantised weights": peft_raises(TypeError, "initialize PiSSA under float32"),
    "loses their scales": peft_raises(AttributeError, "'NoneType' object has no attribute"),
    "LoftQ": peft_raises((AssertionError, RuntimeError), "CUDA|NVIDIA"),
}
"""Who shows that a refusal is true: for words of its reason, the library that raises. A new reason needs a new proof."""


@pytest.mark.parametrize("one", marked(REFUSED, lambda one: one.quantization == "none" or one.architecture == "bert"))
def test_refusals_are_true(one, tiny_backbone):
    if "LoftQ" in one.refusal and torch.cuda.is_available():
        pytest.skip("it is refused on a CPU, and this is a GPU")
    folder = tiny_backbone(one.architecture)
    with pytest.raises(RefusedError):
        check_recipe(one)
        load(folder, one.method, one.quantization)
    assembled = load(folder, method_called("head_only"), one.quantization)
    assembled.strategy = make(one.method)
    [proof] = [proof for words, proof in PROOFS.items() if words in one.refusal]
    proof(assembled)


def test_every_cell_of_the_matrix_is_trained_or_proven():
    cells = {(name, family, storage) for name in map(str, METHODS) for family in FAMILIES for storage in STORAGES}
    trained, proven = (
        {(str(one.method), one.architecture, one.quantization) for one in part} for part in (WORKING, REFUSED)
    )
    assert trained | proven == cells
    assert len(trained) + len(proven) == len(MATRIX) == len(cells)
    assert set(FAMILIES) == set(CONFIGURATIONS)
    assert {method.strategy for method in METHODS} == set(strategies())
    assert all(one.refusal for one in REFUSED)


@pytest.mark.parametrize(
    "one",
    marked(
        [one for one in WORKING if one.architecture == "bert" and one.quantization != "none"],
        lambda one: one.method.strategy in ("lora", "bitfit"),
    ),
)
def test_train_evaluate_train_keeps_every_gradient(one, tiny_backbone):
    assembled = load(tiny_backbone("bert"), one.method, one.quantization)
    assembly.insert(assembled, False, 0)
    inputs, labels = batch(assembled)
    optimizer = torch.optim.AdamW([one for one in assembled.model.parameters() if one.requires_grad], 1e-3)
    for _ in range(3):
        backward(assembled.model, inputs, labels)
        assert not without_gradient(assembled.model)
        optimizer.step()
        optimizer.zero_grad()
        logits(assembled)


@pytest.mark.parametrize("method", ON_BERT, ids=name_of)
def test_gradient_checkpointing_gives_the_same_gradients(method, tiny_backbone):
    if not make(method).supports_gradient_checkpointing:
        assert_checkpointing_is_refused(method, tiny_backbone("bert"))
        return
    works = [one.architecture for one in WORKING if one.method == method and one.quantization == "none"]
    folder = tiny_backbone("llama" if "llama" in works else "gpt2")
    gradients = []
    for checkpointing in (False, True):
        assembled = load(folder, method)
        assembly.insert(assembled, checkpointing, 0)
        backward(assembled.model, *batch(assembled))
        assert not without_gradient(assembled.model)
        gradients.append({name: one.grad for name, one in assembled.model.named_parameters() if one.requires_grad})
    plain, checkpointed = gradients
    torch.testing.assert_close(checkpointed, plain)


def assert_checkpointing_is_refused(method: Method, folder) -> None:
    """The recipe is refused; and truly so: with checkpointing PEFT raises, or the prefix gets no gradient."""
    from peft import get_peft_model

    strategy = make(method)
    with pytest.raises(RefusedError, match="gradient_checkpointing"):
        parse_recipe(
            {"backbone": "b", "task": "t", "strategy": strategy.model_dump(), "training": {"gradient_checkpointing": 1}}
        )
    assembled = load(folder, method_called("head_only"))
    assembled.model.gradient_checkpointing_enable()
    config = getattr(strategy, "prefix", strategy).peft_config(assembled.anatomy)
    with pytest.raises(ValueError, match="gradient checkpointing"):
        get_peft_model(assembled.model, config)


@pytest.mark.parametrize("method", ON_BERT, ids=name_of)
def test_counts_are_the_model_itself(method, tiny_backbone):
    assembled = load(tiny_backbone("bert"), method)
    known = {id(one): one.numel() for one in assembled.model.parameters()}
    head = 32 * 32 + 32 + 32 * 2 + 2
    assembly.insert(assembled, False, 0)
    counted = count_parameters(assembled.model, assembled.anatomy)
    new = sum(one.numel() for one in assembled.model.parameters() if id(one) not in known)
    has_copied_head = any(".modules_to_save." in name for name, _ in assembled.model.named_parameters())
    assert counted.total == sum(known.values()) + new - (head if has_copied_head else 0)
    assert counted.head == head
    assert counted.trainable == sum(one.numel() for one in assembled.model.parameters() if one.requires_grad)


@pytest.mark.parametrize("strategy", strategies())
def test_facts_are_told(strategy):
    kind = strategies()[strategy]
    assert kind.trains
    assert kind.equation
    assert "\n" not in kind.equation
    assert "arXiv" in kind.paper
    assert 1e-6 < kind.default_learning_rate < 1
    assert any(character.isdigit() for character in kind.learning_rate_source)
    assert ("measured" in kind.learning_rate_source) <= ("validation" in kind.learning_rate_source), "on which split?"
    [row] = [row for row in listing("strategies") if row["name"] == strategy]
    assert bool(row["refuses"]) >= any(one.method.strategy == strategy for one in REFUSED)
    assert bool(kind.quantization_refusal) == (set(STORAGES) - set(kind.quantizations) != set())
