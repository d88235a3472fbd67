"""What a user would write instead to fine-tune a language model on completions: Trainer with PEFT, at its best settings.

    python -m benchmarks.rival_language_model JOB.json [--attention KIND] [--weights TYPE]

As `rival.py`: bfloat16, batches of like length, padding to the longest of a batch, no logging, no checkpoints. The loss is on the
completions alone, as pewb's is. Besides, it prints real (unpadded) tokens a second.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Train as the job says, and print what it took."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    from pewb.runner.job import TrainingJob
    from pewb.tasks import read_examples

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job")
    parser.add_argument("--attention", default="sdpa", choices=["eager", "sdpa"])
    parser.add_argument("--weights", default="bfloat16", choices=["bfloat16", "float32"])
    arguments = parser.parse_args()
    job = TrainingJob.model_validate_json(Path(arguments.job).read_text(encoding="utf-8"))
    recipe, training = job.recipe, job.recipe.training
    examples = read_examples(job.task, job.task_folder, recipe.limit.model_dump())
    set_seed(job.seed)
    tokenizer = AutoTokenizer.from_pretrained(job.backbone_folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(
        job.backbone_folder,
        attn_implementation=arguments.attention,
        dtype=getattr(torch, arguments.weights),
    )
    model.config.use_cache = False
    strategy = recipe.strategy
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=strategy.rank,  # type: ignore[attr-defined]
        lora_alpha=strategy.alpha,  # type: ignore[attr-defined]
        lora_dropout=strategy.dropout,  # type: ignore[attr-defined]
        target_modules=["q_proj", "v_proj"],
    )
    model = get_peft_model(model, config)

    def tokenised(split: object) -> Dataset:
        rows = []
        for prompt, completion in split.texts:  # type: ignore[attr-defined]
            read = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            learned = [*tokenizer(completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            ids = [*read, *learned][: training.max_tokens]
            labels = [*[-100] * len(read), *learned][: training.max_tokens]
            rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels, "length": len(ids)})
        return Dataset.from_list(rows)

    data = tokenised(examples.train)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            TrainingArguments(
                folder,
                per_device_train_batch_size=training.batch_size,
                per_device_eval_batch_size=8,
                num_train_epochs=training.epochs,
                learning_rate=training.learning_rate,
                weight_decay=training.weight_decay,
                lr_scheduler_type=training.schedule,
                warmup_steps=training.warmup_ratio,
                bf16=True,
                train_sampling_strategy="group_by_length",
                use_cpu=not torch.cuda.is_available(),
                report_to="none",
                logging_strategy="no",
                save_strategy="no",
                disable_tqdm=True,
                seed=job.seed,
                prediction_loss_only=True,
            ),
            train_dataset=data,
            data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100),
        )
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        loss = trainer.evaluate(tokenised(examples.test))["eval_loss"]
    told = {
        "samples_per_second": training.epochs * len(data) / seconds,
        "tokens_per_second": training.epochs * sum(data["length"]) / seconds,
        "train_seconds": seconds,
        "loss": loss,
        "peak_resident_bytes": peak,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
