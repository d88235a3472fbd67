"""Real training steps on small backbones, whose memory is measured in two ways that know nothing of the planner."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, BertConfig, LlamaConfig

from pewb import assembly
from pewb.batching import IGNORED
from pewb.device import choose_precision
from pewb.heads import head_of
from pewb.measurement.memory import LiveTensors, tensors_of
from pewb.planner.simulation import Question
from pewb.planner.target import Target
from pewb.prefix.frozen import Prefix
from pewb.tasks.model_heads import SEQUENCE_CLASSIFICATION
from pewb.training.optimizers import make_optimizer
from pewb.training.step import Stepper
from tests.tiny_backbones import tokenizer_for

CPU = torch.device("cpu")
TARGET = Target("cpu", "this CPU", has_bf16=True)
TOKENS = 96
_SHAPE = {"hidden_size": 192, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 512}
CONFIGURATIONS = {
    "bert": lambda: BertConfig(**_SHAPE, vocab_size=500, max_position_embeddings=128, pad_token_id=0),
    "llama": lambda: LlamaConfig(
        **_SHAPE, num_key_value_heads=2, vocab_size=2000, bos_token_id=None, eos_token_id=4, max_position_embeddings=128
    ),
}


def make_small_backbone(architecture: str, folder: Path) -> Path:
    """Write a small random backbone into `folder`: an encoder, or a language model."""
    torch.manual_seed(0)
    kind = AutoModelForCausalLM if architecture == "llama" else AutoModel
    kind.from_config(CONFIGURATIONS[architecture]()).save_pretrained(folder)
    tokenizer_for(architecture).save_pretrained(folder)
    return folder


def config_of(folder: Path) -> dict:
    return AutoConfig.from_pretrained(folder).to_dict()


@dataclass(frozen=True)
class RealBatches:
    """Random tokens; the last example is shorter, so that there is padding."""

    question: Question
    prefix: Prefix | None = None

    def weight(self, indices: Sequence[int]) -> int:
        return len(indices)

    def __call__(self, indices: Sequence[int]):
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(5, 400, (len(indices), TOKENS), generator=generator)
        mask = torch.ones_like(ids)
        mask[-1, TOKENS // 2 :] = 0
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self.question.config["model_type"] == "bert":
            inputs["token_type_ids"] = torch.zeros_like(ids)
        if self.prefix:
            if self.prefix.is_one_row:
                inputs = {name: one[:, :1].clone() for name, one in inputs.items()}
            shape = (*inputs["input_ids"].shape, self.prefix.hidden_size)
            inputs["prefix_states"] = torch.zeros(shape, dtype=self.prefix.dtype)
        if self.question.task.model_head is SEQUENCE_CLASSIFICATION:
            return inputs, torch.zeros(len(indices), dtype=torch.long)
        labels = ids.clone()
        if self.question.targets:
            for row, index in zip(labels, indices, strict=True):
                row[: TOKENS - self.question.targets[index]] = IGNORED
        return inputs, labels


def measure(question: Question, folder: Path, micro_batch_size: int) -> tuple[int, int]:
    """Return the peak of two training steps in bytes: of live tensors as pewb tracks them, and by `torch.profiler`."""
    return _tracked(question, folder, micro_batch_size), _profiled(question, folder, micro_batch_size)


def train_within(question: Question, folder: Path, micro_batch_size: int, limit_bytes: int) -> None:
    """Take two steps with so much memory, or raise OutOfMemoryError."""
    stepper = stepper_of(question, folder, micro_batch_size)
    with LiveTensors(tensors_of(stepper.model), limit_bytes):
        _train(stepper)


def _tracked(question: Question, folder: Path, micro_batch_size: int) -> int:
    stepper = stepper_of(question, folder, micro_batch_size)
    with _nothing_collected(), LiveTensors(tensors_of(stepper.model)) as mode:
        _train(stepper)
    return mode.peak_bytes


def _profiled(question: Question, folder: Path, micro_batch_size: int) -> int:
    stepper = stepper_of(question, folder, micro_batch_size)
    storages = [one.untyped_storage() for one in tensors_of(stepper.model)]
    live = peak = sum({one._cdata: one.nbytes() for one in storages}.values())
    with _nothing_collected(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        _train(stepper)
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]" and event.device_type() == torch.autograd.DeviceType.CPU:
            live += event.nbytes()
            peak = max(peak, live)
    return peak


def _train(stepper: Stepper) -> None:
    for _ in range(2):
        stepper.step(range(stepper.training.batch_size))


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Collect garbage now and not inside: what earlier models leave would be taken off, or a checkpoint's cycles by chance."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def stepper_of(question: Question, folder: Path, micro_batch_size: int) -> Stepper:
    """Return a real step on the backbone in `folder`, assembled as a run assembles it."""
    training = question.training
    computing = choose_precision(training.precision, CPU)
    assembled = assembly.load(
        "small",
        folder,
        question.labels,
        question.strategy,
        question.quantization,
        training,
        computing,
        seed=0,
        task=question.task,
    )
    accelerator = Accelerator(mixed_precision=computing.autocast, cpu=True)
    assembly.insert(assembled, training.gradient_checkpointing, 0, accelerator.autocast)
    model = assembled.model.train()
    prefix = assembled.prefix if training.keeps_prefix else None
    if prefix:
        prefix.cut()
    question.strategy.begin_training(model, 2)
    return Stepper(
        model,
        question.strategy,
        RealBatches(question, prefix),
        head_of(question.task, question.labels, training),
        accelerator.prepare_optimizer(make_optimizer(model, training)),
        accelerator,
        training,
        micro_batch_size,
    )
