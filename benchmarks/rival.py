"""What a user would write instead of a recipe: transformers' Trainer with PEFT, at its best settings.

    python -m benchmarks.rival JOB.json

The job, as `pewb run` makes it for its own processes, says backbone, data, strategy and training. The settings are those
that make Trainer fastest here: bfloat16, batches of like length, padding to the longest of a batch, no logging, no memory
statistics, no checkpoints; the caller tries both attentions. It prints, as JSON, how many examples a second the training
loop took, its seconds, those of everything from the imports on, the accuracy on the test split, and the peak of the resident set.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()


def main() -> None:
    """Train as the job says, and print what it took."""
    import numpy as np
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    from pewb.runner.job import TrainingJob
    from pewb.tasks import read_examples

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job")
    parser.add_argument("--attention", default="eager", choices=["eager", "sdpa"])
    arguments = parser.parse_args()
    job = TrainingJob.model_validate_json(Path(arguments.job).read_text(encoding="utf-8"))
    recipe, training = job.recipe, job.recipe.training
    examples = read_examples(job.task, job.task_folder, recipe.limit.model_dump())
    set_seed(job.seed)
    tokenizer = AutoTokenizer.from_pretrained(job.backbone_folder)
    dropout = (
        {}
        if training.dropout is None
        else {
            "hidden_dropout_prob": training.dropout,
            "attention_probs_dropout_prob": training.dropout,
            "classifier_dropout": training.dropout,
        }
    )
    model = AutoModelForSequenceClassification.from_pretrained(
        job.backbone_folder,
        num_labels=len(examples.labels),
        attn_implementation=arguments.attention,
        dtype=torch.float32,
        **dropout,
    )
    model = applied(model, recipe.strategy)

    def tokenised(split: object) -> Dataset:
        texts = [one[0] for one in split.texts]  # type: ignore[attr-defined]
        columns = tokenizer(texts, truncation=True, max_length=training.max_tokens)
        return Dataset.from_dict(
            {**columns, "labels": split.labels, "length": [len(ids) for ids in columns["input_ids"]]}
        )  # type: ignore[attr-defined]

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            TrainingArguments(
                folder,
                per_device_train_batch_size=training.batch_size,
                per_device_eval_batch_size=64,
                num_train_epochs=training.epochs,
                max_steps=training.max_steps or -1,
                learning_rate=training.learning_rate,
                weight_decay=training.weight_decay,
                lr_scheduler_type=training.schedule,
                warmup_steps=training.warmup_ratio,
                bf16=True,
                bf16_full_eval=True,
                train_sampling_strategy="group_by_length",
                use_cpu=not torch.cuda.is_available(),
                report_to="none",
                logging_strategy="no",
                save_strategy="no",
                disable_tqdm=True,
                seed=job.seed,
            ),
            train_dataset=tokenised(examples.train),
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        started = time.perf_counter()
        result = trainer.train()
        seconds = time.perf_counter() - started
        num_samples = result.global_step * training.batch_size
        answer = trainer.predict(tokenised(examples.test))  # in the order of length, as its labels are
    accuracy = float((np.asarray(answer.predictions).argmax(-1) == np.asarray(answer.label_ids)).mean())
    told = {
        "samples_per_second": num_samples / seconds,
        "train_seconds": seconds,
        "total_seconds": time.perf_counter() - STARTED,
        "accuracy": accuracy,
        "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "trainable": sum(one.numel() for one in model.parameters() if one.requires_grad),
    }
    print(json.dumps(told))


def applied(model: Any, strategy: Any) -> Any:
    """Return the model as a user would prepare it for the strategy: with PEFT, or frozen by name."""
    from pewb.anatomy import anatomy_of
    from pewb.strategies.peft_engine import PeftStrategy

    kind = strategy.kind
    named = list(model.named_parameters())
    if isinstance(strategy, PeftStrategy):
        from peft import get_peft_model

        anatomy = anatomy_of(model.config, [name for name, _ in named], model.base_model_prefix)
        return get_peft_model(model, strategy.peft_config(anatomy))  # the configuration that a user would write
    if kind == "full":
        return model
    layers = max(int(name.split(".layer.")[1].split(".")[0]) for name, _ in named if ".layer." in name) + 1
    for name, parameter in named:
        head = name.startswith("classifier") or ".pooler." in name
        chosen = {
            "bitfit": name.endswith(".bias"),
            "layer_norm": ".LayerNorm." in name,
            "head_only": False,
            "top_layers": any(
                f".layer.{layers - 1 - place}." in name for place in range(getattr(strategy, "num_layers", 0))
            ),
        }[kind]
        parameter.requires_grad_(head or chosen)
    return model


if __name__ == "__main__":
    main()
