"""Parity with transformers' own Trainer, and the properties of a step."""

from typing import get_args

import pytest
import torch
from accelerate import Accelerator
from torch.optim.optimizer import register_optimizer_step_pre_hook

from pewb import assembly
from pewb.batching import Collated, longest_first, shuffled_batches
from pewb.device import Computing
from pewb.errors import OutOfMemoryError, TrainingError
from pewb.heads import head_of
from pewb.measurement.memory import PhaseMemory
from pewb.recipe import Quantization, Training
from pewb.recipe.sections import Schedule
from pewb.reporting import Silent
from pewb.strategies.full import Full
from pewb.strategies.lora import Lora
from pewb.tasks import Split, TextClassification
from pewb.training.best import BestState
from pewb.training.loop import Trained, train
from pewb.training.optimizers import make_optimizer, make_schedule
from pewb.training.step import Stepper
from tests.conftest import SENTENCES
from tests.encoding import encode
from tests.half import in_fp16
from tests.reference_trainer import tuned

CPU = torch.device("cpu")
LABELS = ["negative", "positive"]
TEXTS = [(text,) for text, _ in SENTENCES]
CLASSES = [LABELS.index(label) for _, label in SENTENCES]


def assembled(folder, strategy, training, limit=None):
    made = assembly.load(
        "tiny", folder, LABELS, strategy, Quantization(), training, Computing(CPU, "fp32", torch.float32), seed=0
    )
    assembly.insert(made, False, 0)
    return made, encode(made.tokenizer, TEXTS, CLASSES, training.max_tokens)


def fit(made, data, training, memory=None, validate=lambda: 0.0, trained=None, accelerator=None):
    trained = trained or Trained()
    memory = memory or PhaseMemory(CPU)
    train(
        made.model,
        made.strategy,
        Collated(made.tokenizer, data, CPU),
        training,
        0,
        accelerator or Accelerator(cpu=True),
        validate,
        memory,
        Silent(),
        trained,
    )
    return trained


def run(folder, strategy, training, memory=None, validate=lambda: 0.0):
    made, data = assembled(folder, strategy, training)
    return made, fit(made, data, training, memory, validate)


def test_trajectory_of_trainer(tiny_backbone, monkeypatch):
    """Whole-set batches make the order of examples irrelevant: every loss must be the Trainer's."""
    folder = tiny_backbone("bert")
    training = Training(
        epochs=8,
        batch_size=12,
        max_tokens=16,
        learning_rate=1e-2,
        schedule="cosine",
        dropout=0.0,
        warmup_ratio=0.25,
        label_smoothing=0.1,
        weight_decay=0.1,
    )
    lora = Lora(rank=4, alpha=8)
    made, data = assembled(folder, lora, training)
    start = {name: one.detach().clone() for name, one in made.model.named_parameters()}
    trained = fit(made, data, training)

    import tests.reference_trainer as reference

    def same_start(model, config):
        from peft import get_peft_model

        for key in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            setattr(model.config, key, 0.0)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        wrapped = get_peft_model(model, config)
        with torch.no_grad():
            for name, one in wrapped.named_parameters():
                one.copy_(start[name])
        return wrapped

    monkeypatch.setattr(reference, "get_peft_model", same_start)
    splits = {"train": Split(TEXTS, CLASSES), "test": Split(TEXTS, CLASSES)}
    rival = tuned(folder, lora, ["query", "value"], ["classifier", "pooler"], training, 0, False, splits)
    ours = [loss for _, loss in trained.loss]
    assert ours == pytest.approx(rival["losses"], rel=1e-3)
    assert ours[-1] < ours[0]


def test_splitting_a_batch_does_not_change_the_gradient(tiny_backbone):
    gradients = []
    for micro_batch_size in (12, 5, 1):
        training = Training(batch_size=12, max_tokens=16, learning_rate=1e-3, dropout=0.0, max_grad_norm=1e9)
        made, data = assembled(tiny_backbone("bert"), Full(), training)
        optimizer = make_optimizer(made.model, training)
        stepper = Stepper(
            made.model,
            made.strategy,
            Collated(made.tokenizer, data, CPU),
            head_of(TextClassification()),
            optimizer,
            Accelerator(cpu=True),
            training,
            micro_batch_size,
        )
        stepper.step(range(12))
        gradients.append({name: one.grad for name, one in made.model.named_parameters()})
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradients[2], gradients[0], rtol=1e-4, atol=1e-6)


def test_same_seed_same_losses(tiny_backbone):
    training = Training(epochs=2, batch_size=4, max_tokens=16, learning_rate=1e-3)
    first, second = (run(tiny_backbone("bert"), Lora(), training)[1].loss for _ in range(2))
    assert first == second


def test_running_out_of_memory_halves_the_micro_batch(tiny_backbone):
    training = Training(epochs=1, batch_size=12, max_tokens=16, learning_rate=1e-3, dropout=0.0)
    free = PhaseMemory(CPU)
    _, unlimited = run(tiny_backbone("bert"), Full(), training, free)
    peak = free.peak.peak_allocated_bytes
    _, limited = run(tiny_backbone("bert"), Full(), training, PhaseMemory(CPU, peak - 1))
    assert unlimited.micro_batch_size == 12
    assert limited.micro_batch_size < 12
    assert [loss for _, loss in limited.loss] == pytest.approx([loss for _, loss in unlimited.loss], rel=1e-4)
    with pytest.raises(OutOfMemoryError, match="one example at a time"):
        run(tiny_backbone("bert"), Full(), training, PhaseMemory(CPU, 1000))


def test_memory_that_runs_out_in_the_optimizer_halves_the_micro_batch_in_fp16_too(tiny_backbone, monkeypatch):
    training = Training(epochs=1, batch_size=12, max_tokens=16, learning_rate=1e-3, dropout=0.0)
    made, data = assembled(tiny_backbone("bert"), Lora(), training)
    accelerator = in_fp16(monkeypatch, init_scale=1024.0)

    def full_once(optimizer, *arguments):
        hook.remove()
        raise torch.OutOfMemoryError("out of memory")

    hook = register_optimizer_step_pre_hook(full_once)
    trained = fit(made, data, training, accelerator=accelerator)
    assert (trained.num_steps, trained.micro_batch_size) == (1, 6)


def test_loss_that_is_no_number_is_told(tiny_backbone):
    training = Training(epochs=5, batch_size=12, max_tokens=16, learning_rate=1e30, dropout=0.0, warmup_ratio=0)
    with pytest.raises(TrainingError, match="learning_rate"):
        run(tiny_backbone("bert"), Full(), training)


def test_early_stopping_restores_the_best_weights(tiny_backbone):
    training = Training(epochs=10, batch_size=12, max_tokens=16, learning_rate=1e-2, patience=2)
    made, data = assembled(tiny_backbone("bert"), Full(), training)
    seen = []
    values = iter([0.1, 0.9, 0.5, 0.5, 1.0])

    def validate():
        seen.append({name: one.detach().clone() for name, one in made.model.named_parameters()})
        return next(values)

    trained = Trained()
    train(
        made.model,
        made.strategy,
        Collated(made.tokenizer, data, CPU),
        training,
        0,
        Accelerator(cpu=True),
        validate,
        PhaseMemory(CPU),
        Silent(),
        trained,
    )
    assert (trained.stopped_at, trained.best_step, len(seen)) == (4, 2, 4)
    torch.testing.assert_close(dict(made.model.named_parameters()), seen[1], rtol=0, atol=0)


def test_nothing_of_training_is_left_when_it_ends(tiny_backbone):
    """Gradients and optimizer state would count in the evaluation's peak."""
    training = Training(epochs=1, batch_size=12, max_tokens=16, learning_rate=1e-3)
    made, data = assembled(tiny_backbone("bert"), Full(), training)
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
        Trained(),
    )
    assert all(one.grad is None for one in made.model.parameters())
    assert not accelerator._optimizers


@pytest.mark.parametrize(
    ("batch_size", "asked", "steps"), [(1, 3, [4, 8, 12]), (2, 3, [2, 4, 6]), (3, 2, [2, 4]), (12, 3, [1])]
)
def test_evaluations_are_spread_over_the_epoch(batch_size, asked, steps, tiny_backbone):
    training = Training(epochs=1, batch_size=batch_size, max_tokens=16, learning_rate=1e-3, evaluations_per_epoch=asked)
    _, trained = run(tiny_backbone("bert"), Lora(), training)
    assert [step for step, _ in trained.validation] == steps


def test_best_state_keeps_only_trained_weights():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[0].requires_grad_(False)
    best = BestState(patience=1)
    best.saw(model, 1.0, 1)
    assert set(best._weights) == {"1.weight", "1.bias"}


def test_best_state_of_a_loss_is_the_smallest():
    model = torch.nn.Linear(1, 1)
    best = BestState(patience=2, greater_is_better=False)
    assert [best.saw(model, value, step) for step, value in enumerate([3.0, 2.0, 2.5, 2.1])] == [False] * 3 + [True]
    assert best.step == 1


def course_of(schedule):
    """Return the rates of ten steps."""
    training = Training(schedule=schedule, warmup_ratio=0.2, learning_rate=1e-3)
    optimizer = make_optimizer(torch.nn.Linear(2, 2), training)
    course = make_schedule(optimizer, training, 10)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        course.step()
    return rates


def test_no_schedule_is_another_by_another_name():
    assert len({tuple(course_of(schedule)) for schedule in get_args(Schedule)}) == len(get_args(Schedule))


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_schedules_warm_up_and_stay_positive(schedule):
    rates = course_of(schedule)
    assert rates[0] == 0
    assert max(rates) == pytest.approx(1e-3)
    assert rates[2] == pytest.approx(1e-3)
    assert all(rate >= 0 for rate in rates)
    assert (rates[-1] == pytest.approx(1e-3)) == (schedule == "constant")


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit", "paged_adamw_8bit", "sgd"])
def test_optimizers_move_the_weights(name, tiny_backbone):
    training = Training(
        epochs=1, max_steps=2, batch_size=6, max_tokens=16, learning_rate=1e-2, optimizer=name, warmup_ratio=0
    )
    made, data = assembled(tiny_backbone("bert"), Full(), training)
    before = made.model.classifier.weight.detach().clone()
    train(
        made.model,
        made.strategy,
        Collated(made.tokenizer, data, CPU),
        training,
        0,
        Accelerator(cpu=True),
        lambda: 0.0,
        PhaseMemory(CPU),
        Silent(),
        Trained(),
    )
    assert not torch.equal(before, made.model.classifier.weight)


@pytest.mark.parametrize("bucketing", [True, False])
def test_batches_hold_every_example_once(bucketing):
    lengths = [5 + (7 * number) % 40 for number in range(101)]
    batches = shuffled_batches(lengths, 8, torch.Generator().manual_seed(0), bucketing)
    assert sorted(index for batch in batches for index in batch) == list(range(101))
    first, *rest = longest_first(batches, lengths, 1)
    padded = [len(batch) * max(lengths[index] for index in batch) for batch in [first, *rest]]
    assert padded[0] == max(padded)
    assert sorted(map(tuple, [first, *rest])) == sorted(map(tuple, batches))
    second, largest, *others = longest_first(batches, lengths, 2)
    assert largest == first, "with two, the largest finds the optimizer's state"
    assert sorted(map(tuple, [second, largest, *others])) == sorted(map(tuple, batches))


def test_bucketing_saves_padding():
    lengths = [5 + (13 * number) % 60 for number in range(640)]

    def padded(bucketing):
        batches = shuffled_batches(lengths, 16, torch.Generator().manual_seed(0), bucketing)
        return sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)

    assert padded(True) < 0.7 * padded(False)


@pytest.mark.parametrize("broken_by", ["an interrupt", "a loss that is no number"])
def test_a_run_that_breaks_off_keeps_every_step_it_took(broken_by, tiny_backbone, monkeypatch):
    """Though their losses were not read yet."""
    monkeypatch.setattr("pewb.training.loop._READ_EVERY_SECONDS", 1e9)
    training = Training(batch_size=2, epochs=3, max_tokens=16, learning_rate=1e-3, evaluations_per_epoch=1)
    made, data = assembled(tiny_backbone("bert"), Lora(rank=2), training)
    real, taken, trained = Stepper.step, [], Trained()

    def step(self, batch):
        if len(taken) == 5 and broken_by == "an interrupt":
            raise KeyboardInterrupt
        loss = real(self, batch)
        taken.append(loss)
        return loss * float("nan") if len(taken) == 6 else loss

    monkeypatch.setattr(Stepper, "step", step)
    with pytest.raises((KeyboardInterrupt, TrainingError)):
        fit(made, data, training, trained=trained)
    assert trained.num_steps == 5
    assert [loss for _, loss in trained.loss] == pytest.approx([float(loss) for loss in taken[:5]], abs=1e-6)
