"""The rival: transformers' Trainer and PEFT at their best settings, on what a pewb record was trained on.

    python -m tests.reference_trainer results/RECORD.json

Same backbone files, examples, LoRA, head, schedule, precision (bf16 autocast) and grouping by length; prints both accuracies.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from pewb.assets import fetch, tasks
from pewb.recipe import Recipe, Training
from pewb.record import Metric, Record, read_record
from pewb.strategies.lora import Lora
from pewb.tasks import decode_task, read_examples


def lora_config(lora: Lora, target_modules: list[str], head: list[str]) -> LoraConfig:
    """Return PEFT's configuration, written by hand rather than by pewb."""
    return LoraConfig(
        task_type="SEQ_CLS",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target_modules,
        modules_to_save=head,
    )


def arguments_for(training: Training, bf16: bool, folder: str, seed: int) -> TrainingArguments:
    """Return the Trainer's arguments that mean what the recipe's section means."""
    return TrainingArguments(
        output_dir=folder,
        num_train_epochs=training.epochs,
        max_steps=training.max_steps or -1,
        per_device_train_batch_size=training.batch_size,
        per_device_eval_batch_size=64,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.schedule,
        warmup_steps=training.warmup_ratio,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        label_smoothing_factor=training.label_smoothing,
        bf16=bf16,
        train_sampling_strategy="group_by_length" if training.length_bucketing else "random",
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
        save_strategy="no",
        logging_strategy="steps",
        logging_steps=1,
        disable_tqdm=True,
        seed=seed,
    )


def tuned(
    folder: Path,
    lora: Lora,
    targets: list[str],
    head: list[str],
    training: Training,
    seed: int,
    bf16: bool,
    splits: dict[str, Any],
) -> dict[str, Any]:
    """Train with Trainer + PEFT; return the test accuracy, the loss of every step and the seconds of training."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    labels = sorted(set(splits["train"].labels))

    def rows(split: Any) -> list[dict[str, Any]]:
        return [
            tokenizer(*texts, truncation=True, max_length=training.max_tokens) | {"labels": label}
            for texts, label in zip(split.texts, split.labels, strict=True)
        ]

    set_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(labels), dtype=torch.float32)
    model = get_peft_model(model, lora_config(lora, targets, head))
    with tempfile.TemporaryDirectory() as output:
        trainer = Trainer(
            model,
            arguments_for(training, bf16, output, seed),
            train_dataset=rows(splits["train"]),
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        trainer.remove_callback(PrinterCallback)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
        told = trainer.predict(rows(splits["test"]))
    right = told.predictions.argmax(-1) == told.label_ids  # grouped by length, they come in an order of their own
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"accuracy": float(right.mean()), "losses": losses, "seconds": seconds}


def compare(record: Record) -> tuple[Metric, dict[str, Any]]:
    """Train the rival as `record`'s run was trained, print both accuracies, and return them."""
    recipe = Recipe.model_validate(record.recipe_resolved)
    backbone, task = fetch("backbone", record.backbone), fetch("task", record.task)
    spec = decode_task(tasks()[record.task].spec)
    examples = read_examples(spec, task.folder, recipe.limit.model_dump())
    rival = tuned(
        backbone.folder,
        recipe.strategy,
        ["query", "value"],
        ["classifier", "pooler"],
        recipe.training,
        record.seed,
        record.precision == "bf16",
        {"train": examples.train, "test": examples.test},
    )
    ours, seconds = record.metrics["accuracy"], record.time.train_seconds
    where = "within" if ours.low <= rival["accuracy"] <= ours.high else "OUTSIDE"
    print(f"pewb            {ours.value:.4f} [{ours.low:.4f}, {ours.high:.4f}], {seconds:.0f} s of training")
    print(f"Trainer + PEFT  {rival['accuracy']:.4f} ({where} pewb's interval), {rival['seconds']:.0f} s of training")
    return ours, rival


def main() -> None:
    """Compare with the record named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("record", type=Path)
    compare(read_record(parser.parse_args().record))


if __name__ == "__main__":
    main()
