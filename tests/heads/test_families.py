"""Every form of task trains through every strategy that suits it, or says why not, and what is saved says the same again."""

import pytest
import torch
from accelerate import Accelerator

from pewb import assembly
from pewb.batching import Collated
from pewb.device import Computing
from pewb.errors import RefusedError
from pewb.heads import HEADS, head_of
from pewb.listings import methods
from pewb.measurement.memory import PhaseMemory
from pewb.planner.simulation import Question, Simulation
from pewb.planner.target import Target
from pewb.prediction import predict
from pewb.recipe import Quantization, Training
from pewb.reporting import Silent
from pewb.strategies import strategies
from pewb.strategies.lora import Lora
from pewb.tasks import Examples
from pewb.training.loop import Trained, train
from tests.heads.families import ARCHITECTURES, CHAT_TEMPLATE, FAMILIES, OF_TEXTS
from tests.strategies.test_conformance import name_of

CPU = torch.device("cpu")
METHODS = methods()
RATES = dict.fromkeys(("full", "top_layers", "mam", "bottleneck_adapter"), 3e-3)
SMALL = {name: {"num_virtual_tokens": 4} for name in ("prompt_tuning", "p_tuning", "prefix_tuning", "mam")}
SMALL["top_layers"] = {"num_layers": 1}
TOKENS = 24
PAIRS = [(form, architecture) for form in HEADS for architecture in ARCHITECTURES.get(form, OF_TEXTS)]
NEW = ("multi_label", "text_regression", "token_classification", "extractive_qa", "multiple_choice", "chat")
"""Forms that no other test takes through all strategies."""


def folder_of(form, architecture, tiny_backbone, tiny_language_model):
    task, _, _ = FAMILIES[form]
    return tiny_backbone(architecture) if task.model_head.is_new else tiny_language_model(architecture)


class Made:
    """A form of task on a tiny backbone, assembled."""

    def __init__(self, form, folder, strategy, training):
        self.task, self.names, self.split = FAMILIES[form]
        examples = Examples(self.names, self.split, self.split, self.split, [])
        computing = Computing(CPU, "fp32", torch.float32)
        self.assembled = assembly.load(
            "tiny", folder, self.names, strategy, Quantization(), training, computing, 0, self.task
        )
        tokenizer = self.assembled.tokenizer
        tokenizer.chat_template = CHAT_TEMPLATE
        self.head = head_of(self.task, self.names, training, examples)
        self.learned, self.judged = (
            Collated(tokenizer, encode(tokenizer, self.split, TOKENS), CPU)
            for encode in (self.head.encode_training, self.head.encode)
        )

    def predicted(self):
        return predict(self.assembled.model, self.judged, 4, torch.no_grad, Silent(), "testing", head=self.head)

    def outputs(self):
        model = self.assembled.model
        model.eval()
        with torch.no_grad():
            return self.head.outputs(model, *self.judged(range(len(self.judged.data))))

    def fit(self, training):
        told = Trained()
        train(
            self.assembled.model,
            self.assembled.strategy,
            self.learned,
            training,
            0,
            Accelerator(cpu=True),
            lambda: 0.0,
            PhaseMemory(CPU),
            Silent(),
            told,
            self.head,
        )
        return [loss for _, loss in told.loss]


def training_of(rate, epochs=8, **keys):
    return Training(
        epochs=epochs,
        batch_size=6,
        learning_rate=rate,
        max_tokens=TOKENS,
        dropout=0.0,
        schedule="constant",
        warmup_ratio=0,
        weight_decay=0,
        **keys,
    )


@pytest.mark.parametrize(
    ("form", "method"),
    [
        pytest.param(
            form, method, id=f"{form}-{name_of(method)}", marks=[] if place % len(NEW) == number else pytest.mark.slow
        )
        for place, method in enumerate(METHODS)
        for number, form in enumerate(NEW)
    ],
)
def test_every_strategy_trains_or_says_why_not(form, method, tiny_backbone, tiny_language_model, tmp_path):
    architecture = ARCHITECTURES.get(form, OF_TEXTS)[0]
    folder = folder_of(form, architecture, tiny_backbone, tiny_language_model)
    strategy = strategies()[method.strategy](**SMALL.get(method.strategy, {}) | dict(method.settings))
    rate = 3e-3 if form == "text_regression" else RATES.get(method.strategy, 3e-2)
    training = training_of(rate, epochs=24)
    try:
        made = Made(form, folder, strategy, training)
    except RefusedError as error:
        assert "does not fit" in str(error) or "does not go with" in str(error)
        return
    untouched = made.outputs()
    assembly.insert(made.assembled, False, 0)
    if strategy.starts_as_backbone:
        torch.testing.assert_close(made.outputs(), untouched, rtol=1e-5, atol=1e-5)
    before = {name: one.detach().clone() for name, one in made.assembled.model.named_parameters()}
    trainable = {name for name, one in made.assembled.model.named_parameters() if one.requires_grad}
    losses = made.fit(training)
    moved = {name for name, one in made.assembled.model.named_parameters() if not torch.equal(one, before[name])}
    assert moved == trainable
    assert losses[-1] < losses[0]

    strategy.save(made.assembled.model, tmp_path)
    fresh = Made(form, folder, strategy, training)
    fresh.assembled.model = strategy.load(fresh.assembled.model, fresh.assembled.anatomy, tmp_path)
    torch.testing.assert_close(fresh.outputs(), made.outputs(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("form", "architecture"), PAIRS)
def test_it_is_learned_by_heart(form, architecture, tiny_backbone, tiny_language_model):
    training = training_of(1e-2, epochs=60)
    made = Made(
        form, folder_of(form, architecture, tiny_backbone, tiny_language_model), strategies()["full"](), training
    )
    metric = made.task.main_metric
    untouched = made.predicted().metrics()[metric].value
    assembly.insert(made.assembled, False, 0)
    made.fit(training)
    predicted = made.predicted()
    reached = predicted.metrics()[metric].value
    if metric == "loss":
        assert reached < 0.1 < untouched
    else:
        assert reached > 0.95
        assert reached >= untouched
    assert len(predicted.table().rows) == len(made.split)
    assert {len(row) for row in predicted.table().rows} == {len(predicted.table().columns)}


@pytest.mark.parametrize(("form", "architecture"), PAIRS)
def test_a_row_costs_the_same_in_every_batch(form, architecture, tiny_backbone, tiny_language_model):
    made = Made(form, folder_of(form, architecture, tiny_backbone, tiny_language_model), Lora(), training_of(1e-3))
    count = len(made.judged.data)
    made.assembled.model.eval()
    with torch.no_grad():
        together = made.head.losses(made.assembled.model, *made.judged(range(count)), "none")
        alone = [made.head.losses(made.assembled.model, *made.judged([row])) for row in range(count)]
        summed = made.head.losses(made.assembled.model, *made.judged(range(count)))
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(summed, together.sum(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("form", "architecture"), PAIRS)
def test_it_can_be_planned(form, architecture, tiny_backbone, tiny_language_model):
    import json

    folder = folder_of(form, architecture, tiny_backbone, tiny_language_model)
    task, names, _ = FAMILIES[form]
    config = json.loads((folder / "config.json").read_text())
    question = Question("tiny", config, task, names, Lora(), Quantization(), training_of(1e-3))
    simulation = Simulation(question, Target("cpu", "cpu", has_bf16=False))
    assert simulation.train(4)[0].allocated_bytes > 0
    assert simulation.evaluate(4).allocated_bytes > 0
