"""Language models: the losses are transformers' own, whatever the micro-batch, and every strategy trains or says why not."""

import copy
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from pewb import assembly
from pewb.batching import IGNORED, Collated
from pewb.device import Computing
from pewb.errors import RefusedError
from pewb.heads import head_of
from pewb.heads.causal_lm import NextTokens
from pewb.heads.seq2seq import TargetTokens
from pewb.listings import methods
from pewb.measurement.memory import PhaseMemory
from pewb.prediction import predict
from pewb.recipe import Quantization, Training
from pewb.reporting import Silent
from pewb.strategies import strategies
from pewb.strategies.full import Full
from pewb.strategies.head_only import HeadOnly
from pewb.strategies.lora import Lora
from pewb.strategies.peft_config import Peft
from pewb.strategies.prefix_tuning import PrefixTuning
from pewb.tasks import CausalLm, Seq2Seq, Split
from pewb.training.loop import Trained, train
from pewb.training.optimizers import make_optimizer
from pewb.training.step import Stepper
from tests.encoding import encode_split
from tests.strategies.test_conformance import name_of
from tests.tiny_backbones import VOCABULARY

CPU = torch.device("cpu")
FAMILY = {"llama": CausalLm, "gpt2": CausalLm, "t5": Seq2Seq}
PAIRS = [
    ("a good film", "it was great"),
    ("the plot was bad", "dull story and it was very bad"),
    ("great cast", "good"),
    ("the story is dull and the cast is bad", "bad film"),
]
RATES = dict.fromkeys(("full", "top_layers", "mam", "bottleneck_adapter"), 3e-3)
SMALL = {name: {"num_virtual_tokens": 4} for name in ("prompt_tuning", "p_tuning", "prefix_tuning", "mam")}
SMALL["top_layers"] = {"num_layers": 1}
PLAIN = {"max_tokens": 16, "dropout": 0.0, "schedule": "constant", "warmup_ratio": 0, "weight_decay": 0}
END = 4


def load(folder, strategy, architecture, training, quantization="none"):
    computing = Computing(CPU, "fp32", torch.float32)
    section = Quantization(kind=quantization)
    made = assembly.load("tiny", folder, [], strategy, section, training, computing, 0, FAMILY[architecture]())
    return made, encode_split(FAMILY[architecture], made.tokenizer, Split(PAIRS), training.max_tokens)


def fit(made, data, training, family):
    trained = Trained()
    accelerator = Accelerator(cpu=True)
    train(
        made.model,
        made.strategy,
        Collated(made.tokenizer, data, CPU),
        training,
        0,
        accelerator,
        lambda: 0.0,
        PhaseMemory(CPU),
        Silent(),
        trained,
        head_of(family()),
    )
    return [loss for _, loss in trained.loss]


def tokens(text: str) -> list[int]:
    return [VOCABULARY[word] for word in text.split()]


def padded(rows: list[list[int]], value: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def by_hand(architecture: str, has_prompt: bool = True) -> dict[str, torch.Tensor]:
    """Return the batch of all pairs, as transformers' models take it."""
    prompts = [tokens(prompt) if has_prompt else [] for prompt, _ in PAIRS]
    answers = [[*tokens(answer), END] for _, answer in PAIRS]
    if architecture == "t5":
        sources = [[*prompt, END] for prompt in prompts]
        mask = padded([[1] * len(row) for row in sources], 0)
        return {"input_ids": padded(sources, 0), "attention_mask": mask, "labels": padded(answers, IGNORED)}
    rows = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    labels = [[IGNORED] * len(prompt) + answer for prompt, answer in zip(prompts, answers, strict=True)]
    mask = padded([[1] * len(row) for row in rows], 0)
    return {"input_ids": padded(rows, END), "attention_mask": mask, "labels": padded(labels, IGNORED)}


def reference(folder, architecture):
    if architecture == "t5":  # its attention reads the probability from the configuration
        return AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32, dropout_rate=0.0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize(
    ("architecture", "has_prompt"), [("llama", True), ("llama", False), ("gpt2", True), ("t5", True)]
)
def test_trajectory_of_transformers_own_loss(architecture, has_prompt, tiny_language_model):
    folder = tiny_language_model(architecture)
    training = Training(epochs=5, batch_size=4, learning_rate=1e-3, max_grad_norm=1e9, **PLAIN)
    made, data = load(folder, Full(), architecture, training)
    if not has_prompt:
        split = Split([pair[1:] for pair in PAIRS])
        data = encode_split(CausalLm, made.tokenizer, split, training.max_tokens)
    assembly.insert(made, False, 0)
    ours = fit(made, data, training, FAMILY[architecture])

    model = reference(folder, architecture).train()
    batch = by_hand(architecture, has_prompt)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0)
    theirs = []
    for _ in ours:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        theirs.append(loss.item())
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert ours[-1] < ours[0]


@pytest.mark.parametrize("architecture", FAMILY)
def test_splitting_a_batch_does_not_change_the_gradient(architecture, tiny_language_model):
    """Examples have different numbers of targets, so a mean of micro-batch means would be another gradient."""
    gradients, losses = [], []
    for micro_batch_size in (4, 3, 1):
        training = Training(batch_size=4, learning_rate=1e-3, max_grad_norm=1e9, **PLAIN)
        made, data = load(tiny_language_model(architecture), Full(), architecture, training)
        assembly.insert(made, False, 0)
        stepper = Stepper(
            made.model,
            made.strategy,
            Collated(made.tokenizer, data, CPU),
            head_of(FAMILY[architecture]()),
            make_optimizer(made.model, training),
            Accelerator(cpu=True),
            training,
            micro_batch_size,
        )
        losses.append(float(stepper.step(range(4))))
        gradients.append({name: one.grad for name, one in made.model.named_parameters()})
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradients[2], gradients[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("architecture", FAMILY)
def test_evaluation_is_transformers_own_loss_of_each_example(architecture, tiny_language_model):
    folder = tiny_language_model(architecture)
    made, data = load(folder, Full(), architecture, Training(learning_rate=1e-3, **PLAIN))
    family = FAMILY[architecture]
    found = predict(
        made.model, Collated(made.tokenizer, data, CPU), 3, torch.no_grad, Silent(), "testing", head=head_of(family())
    )
    model = reference(folder, architecture).eval()
    batch = by_hand(architecture)
    means = []
    for place in range(len(PAIRS)):
        with torch.no_grad():
            means.append(model(**{name: tensor[place : place + 1] for name, tensor in batch.items()}).loss.item())
    counts = (batch["labels"] != IGNORED).sum(1).tolist()
    assert found.num_tokens == counts
    assert found.losses.tolist() == pytest.approx([mean * count for mean, count in zip(means, counts, strict=True)])
    whole = model(**batch).loss.item()
    metrics = found.metrics()
    assert metrics["loss"].value == pytest.approx(whole, rel=1e-5)
    assert metrics["perplexity"].value == pytest.approx(torch.tensor(whole).exp().item(), rel=1e-5)
    assert metrics["loss"].low < metrics["loss"].value < metrics["loss"].high
    assert found.confusion() is None


class Says(torch.nn.Module):
    """A model whose head reads the given states."""

    def __init__(self, states):
        super().__init__()
        self.states = states
        self.head = torch.nn.Linear(states.shape[-1], 5, bias=False)

    def get_output_embeddings(self):
        return self.head

    def prepare_decoder_input_ids_from_labels(self, labels):
        return labels

    def forward(self, **_inputs):
        return SimpleNamespace(logits=self.head(self.states))


def test_label_smoothing_is_over_the_targets_alone():
    model, labels = Says(torch.randn(2, 3, 4)), torch.tensor([[1, 2, IGNORED], [IGNORED, 0, 4]])
    inputs = {"input_ids": labels}
    smoothed = TargetTokens(Seq2Seq(), label_smoothing=0.1).losses(model, inputs, labels)
    kept, logits = labels != IGNORED, model().logits
    assert smoothed.item() == pytest.approx(
        torch.nn.functional.cross_entropy(logits[kept], labels[kept], reduction="sum", label_smoothing=0.1).item()
    )
    each = TargetTokens(Seq2Seq()).losses(model, inputs, labels, "none")
    assert each.shape == (2,)
    assert each.sum().item() == pytest.approx(TargetTokens(Seq2Seq()).losses(model, inputs, labels).item())


def test_virtual_tokens_before_the_text_are_not_judged():
    states, labels = torch.randn(2, 4, 4), torch.tensor([[IGNORED, 2, 3, 1], [IGNORED, IGNORED, 4, IGNORED]])
    model = Says(states)
    alone = NextTokens(CausalLm()).losses(model, {}, labels)
    model.states = torch.cat([torch.randn(2, 3, 4), states], dim=1)
    assert NextTokens(CausalLm()).losses(model, {}, labels) == alone


def test_a_batch_without_targets_costs_nothing():
    model, labels = Says(torch.randn(2, 3, 4, requires_grad=True)), torch.full((2, 3), IGNORED)
    loss = NextTokens(CausalLm()).losses(model, {}, labels)
    loss.backward()
    assert loss.item() == 0
    assert not model.head.weight.grad.any()
    assert NextTokens(CausalLm()).losses(model, {}, labels, "none").tolist() == [0, 0]


METHODS = methods()
ARCHITECTURES = list(FAMILY)


@pytest.mark.parametrize(
    ("architecture", "method"),
    [
        pytest.param(
            architecture,
            method,
            id=f"{architecture}-{name_of(method)}",
            marks=[] if ARCHITECTURES[place % len(ARCHITECTURES)] == architecture else pytest.mark.slow,
        )
        for place, method in enumerate(METHODS)
        for architecture in ARCHITECTURES
    ],
)
def test_every_strategy_trains_or_says_why_not(architecture, method, tiny_language_model, tmp_path):
    folder = tiny_language_model(architecture)
    strategy = strategies()[method.strategy](**SMALL.get(method.strategy, {}) | dict(method.settings))
    training = Training(epochs=8, batch_size=4, learning_rate=RATES.get(method.strategy, 3e-2), **PLAIN)
    try:
        made, data = load(folder, strategy, architecture, training)
    except RefusedError as error:
        assert "does not fit" in str(error) or "does not go with" in str(error)
        return
    family = FAMILY[architecture]
    untouched = losses_of(made, data, family)
    assembly.insert(made, False, 0)
    if strategy.starts_as_backbone:
        torch.testing.assert_close(losses_of(made, data, family), untouched, rtol=1e-5, atol=1e-5)
    before = {name: one.detach().clone() for name, one in made.model.named_parameters()}
    trainable = {name for name, one in made.model.named_parameters() if one.requires_grad}
    losses = fit(made, data, training, family)
    moved = {name for name, one in made.model.named_parameters() if not torch.equal(one, before[name])}
    assert moved == trainable
    assert losses[-1] < losses[0]
    assert is_tied(made.model) == (architecture != "llama")

    strategy.save(made.model, tmp_path)
    fresh, _ = load(folder, strategy, architecture, training)
    fresh.model = strategy.load(fresh.model, fresh.anatomy, tmp_path)
    torch.testing.assert_close(losses_of(fresh, data, family), losses_of(made, data, family), rtol=1e-5, atol=1e-5)


def losses_of(made, data, family) -> torch.Tensor:
    return predict(
        made.model, Collated(made.tokenizer, data, CPU), 4, torch.no_grad, Silent(), "testing", head=head_of(family())
    ).losses


def is_tied(model) -> bool:
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    return plain.get_output_embeddings().weight is plain.get_input_embeddings().weight


def test_a_head_that_was_never_new_is_no_head(tiny_language_model):
    training = Training(learning_rate=1e-3, **PLAIN)
    made, _ = load(tiny_language_model("llama"), Lora(), "llama", training)
    assert (made.anatomy.head, made.anatomy.output, made.anatomy.peft_task_type) == ((), ("lm_head",), "CAUSAL_LM")
    assembly.insert(made, False, 0)
    assert not made.model.get_output_embeddings().weight.requires_grad
    assert made.model.peft_config["default"].task_type == "CAUSAL_LM"
    with pytest.raises(RefusedError, match="has no new head, so nothing would be trained"):
        load(tiny_language_model("llama"), HeadOnly(), "llama", training)


def test_half_of_a_prefix_of_an_encoder_decoder_would_be_thrown_away(tiny_language_model):
    """The refusal is true: PEFT itself gives no gradient to one half."""
    from peft import PrefixTuningConfig, get_peft_model

    with pytest.raises(RefusedError, match="throws that half away"):
        load(tiny_language_model("t5"), PrefixTuning(), "t5", Training(learning_rate=1e-3, **PLAIN))
    model = reference(tiny_language_model("t5"), "t5")
    model = get_peft_model(model, PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=4))
    model(**by_hand("t5")).loss.backward()
    [prefix] = [one for one in model.parameters() if one.requires_grad]
    assert (prefix.grad != 0).float().mean() == 0.5


def test_prompts_that_peft_makes_of_labels_are_refused(tiny_language_model):
    strategy = Peft(config={"peft_type": "MULTITASK_PROMPT_TUNING", "num_virtual_tokens": 4, "num_tasks": 1})
    with pytest.raises(RefusedError, match="reads the labels of a language model"):
        load(tiny_language_model("t5"), strategy, "t5", Training(learning_rate=1e-3, **PLAIN))


@pytest.mark.parametrize("kind", ["int8", "nf4"])
@pytest.mark.parametrize("architecture", FAMILY)
def test_what_predicts_tokens_is_never_quantised(kind, architecture, tiny_language_model):
    training = Training(epochs=2, batch_size=4, learning_rate=1e-2, **PLAIN)
    made, data = load(tiny_language_model(architecture), Lora(rank=4), architecture, training, kind)
    assembly.insert(made, False, 0)
    plain = made.model.get_base_model()
    assert type(plain.get_output_embeddings()) is torch.nn.Linear
    assert type(plain.get_input_embeddings()) is torch.nn.Embedding
    assert is_tied(made.model) == (architecture != "llama")
    assert any(not one.is_floating_point() for one in plain.parameters()), "nothing is quantised"
    losses = fit(made, data, training, FAMILY[architecture])
    assert losses[-1] < losses[0]


def test_virtual_batches_go_through_the_same_step(tiny_language_model):
    """No tokenizer, no data: only something that gives inputs and labels, and their weight."""
    training = Training(batch_size=2, learning_rate=1e-3, max_grad_norm=1e9, **PLAIN)
    made, _ = load(tiny_language_model("t5"), Lora(), "t5", training)
    assembly.insert(made, False, 0)
    before = copy.deepcopy(made.model.state_dict())

    class Virtual:
        def weight(self, indices):
            return 8 * len(indices)

        def __call__(self, indices):
            ids = torch.full((len(indices), 8), 5)
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, ids

    optimizer = make_optimizer(made.model, training)
    stepper = Stepper(
        made.model, made.strategy, Virtual(), head_of(Seq2Seq()), optimizer, Accelerator(cpu=True), training, 1
    )
    assert stepper.step([0, 1]) > 0
    assert any(not torch.equal(one, before[name]) for name, one in made.model.state_dict().items())
