"""One training, from files to measurements: a run with its test, or a trial of a search without."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

from pewb.record import Memory, Time
from pewb.runner.job import TrainingJob
from pewb.runner.predictions import write_predictions


def run_training(job: TrainingJob, events: Any, measured: dict[str, Any]) -> None:
    """Load, evaluate the untouched model, train, evaluate on the test split, save; `measured` is filled on the way.

    A trial tells its validations as they come, sees no test example, and keeps nothing.
    """
    import torch
    from accelerate import Accelerator

    from pewb import assembly
    from pewb.anatomy import longest_input
    from pewb.assets import cache_folder
    from pewb.batching import Collated
    from pewb.device import choose_device, choose_precision, device_build, device_name, environment, limit_memory
    from pewb.generation import Written, check_generation, check_room, generate
    from pewb.heads import head_of
    from pewb.kernels.attention import leave_out_cudnn
    from pewb.kernels.compiled import compile_layers
    from pewb.kernels.heap import keep_freed_memory
    from pewb.measurement.flops import matmul_peak
    from pewb.measurement.memory import PhaseMemory, release_cached_memory, tensors_of
    from pewb.measurement.parameters import count_parameters
    from pewb.prediction import EVALUATION_BATCH_SIZE, predict
    from pewb.runner.untouched import untouched_metrics
    from pewb.tasks import read_examples
    from pewb.tasks.augment import augmented
    from pewb.training.loop import Trained, train
    from pewb.training.packing import check_packing

    recipe, training, task = job.recipe, job.recipe.training, job.task
    started = time.perf_counter()
    keep_freed_memory()
    leave_out_cudnn()
    if recipe.device.threads:
        torch.set_num_threads(recipe.device.threads)
    device = choose_device(recipe.device)
    computing = choose_precision(training.precision, device)
    limit = recipe.device.memory_bytes
    limit_memory(device, limit)
    measured["device"] = {"kind": device.type, "name": device_name(device), "memory_limit_bytes": limit}
    measured["environment"] = environment(device)
    measured["precision"] = computing.precision
    examples = read_examples(job.task, job.task_folder, recipe.limit.model_dump())
    measured["data"] = examples.facts()
    head = head_of(task, examples.labels, training, examples)
    if recipe.augment:
        examples = augmented(task, examples, recipe.augment.alteration, recipe.augment.copies, recipe.augment.seed)
        measured["data"]["augmented_examples"] = len(examples.train)
    events.send("known", facts=dict(measured))
    if recipe.generation:
        check_generation(task)
    events.progress(f"loading {job.backbone}", 0, None)
    assembled = assembly.load(
        job.backbone_public_name,
        job.backbone_folder,
        examples.labels,
        recipe.strategy,
        recipe.quantization,
        training,
        computing,
        job.seed,
        task,
    )
    for notice in assembled.notices:
        events.notice(notice)
    measured["notices"] = list(assembled.notices)
    warnings: list[str] = []
    measured["warnings"] = warnings
    parts = {"train": examples.train, "validation": examples.validation, "test": examples.test}
    if job.is_trial:
        del parts["test"]
    tokenised = cache_folder() / "tokenised"
    splits = {
        name: (head.encode_training if name == "train" else head.encode)(
            assembled.tokenizer, split, training.max_tokens, tokenised
        )
        for name, split in parts.items()
    }
    measured["data"] |= {f"{name}_cut": encoded.num_cut for name, encoded in splits.items()}
    cut = splits["train"].num_cut
    if cut:
        warnings.append(f"{cut} of {len(examples.train)} training texts were cut to {training.max_tokens} tokens")
    if without := splits["train"].num_without_target:
        warnings.append(f"{without} of {len(splits['train'])} training texts have no target within max_tokens")
    if recipe.generation and not job.is_trial:
        positions = longest_input(assembled.model.config.to_dict())
        check_room(task, splits["test"], recipe.generation, positions, recipe.strategy.virtual_tokens())
    times: dict[str, float] = {"load_seconds": time.perf_counter() - started}
    measured["times"] = times
    accelerator = Accelerator(mixed_precision=computing.autocast, cpu=device.type == "cpu")

    batches = {name: Collated(assembled.tokenizer, encoded, device) for name, encoded in splits.items()}

    def evaluate(split: str, stage: str, **arguments: Any) -> Any:
        return predict(
            assembled.model,
            batches[split],
            EVALUATION_BATCH_SIZE,
            accelerator.autocast,
            events,
            stage,
            head=head,
            **arguments,
        )

    trained = Trained()

    def validate() -> float:
        value: float = evaluate("validation", "validating").metrics()[task.main_metric].value
        release_cached_memory(device)
        if job.is_trial:
            events.send("validated", evaluation=len(trained.validation) + 1, value=value)
        return value

    def judged(stage: str, **arguments: Any) -> Any:
        """Return what the model says of the test examples, and, if it is asked to, writes."""
        predicted = evaluate("test", stage, **arguments)
        if not recipe.generation:
            return predicted
        if assembled.prefix:
            assembled.prefix.restore()  # what it writes has no cached states
        began = time.perf_counter()
        texts = generate(
            assembled.model,
            assembled.tokenizer,
            task,
            splits["test"],
            recipe.generation,
            device,
            EVALUATION_BATCH_SIZE,
            accelerator.autocast,
            events,
            stage.replace("evaluating", "writing with") if "untouched" in stage else "writing texts for test",
        )
        times["generate_seconds"] = time.perf_counter() - began
        return Written.of(predicted, texts, task, splits["test"])

    if not job.is_trial:
        measured["baseline"], _ = untouched_metrics(
            assembled.model,
            batches["test"],
            [
                computing.precision,
                str(computing.autocast),
                str(recipe.quantization),
                EVALUATION_BATCH_SIZE,
                str(recipe.generation),
                training.label_smoothing,
                head.constants,
                task.model_dump(mode="json"),
                examples.labels,
                examples.facts(),
            ],
            f"{device.type} {device_name(device)}",
            cache_folder() / "untouched",
            lambda: judged("evaluating the untouched model").metrics(),
        )
    num_notices = len(assembled.notices)
    assembly.insert(assembled, training.gradient_checkpointing, job.seed, accelerator.autocast)
    for notice in assembled.notices[num_notices:]:
        measured["notices"].append(notice)
        events.notice(notice)
    measured["parameters"] = count_parameters(assembled.model, assembled.anatomy)

    if not job.is_trial:
        whole = (
            splits if assembled.prefix and training.keeps_prefix else {"test": splits["test"]}
        )  # what runs to the end
        _predict_memory(job, examples.labels, device, splits["train"], list(whole.values()), measured, events)
    peaks_file = cache_folder() / "matmul_peaks.json"
    peak = matmul_peak(device, computing.compute_type, peaks_file, f"{device.type} {device_build(device)}")
    if peak:
        times["matmul_peak_flops_per_second"] = peak
    train_memory, evaluation_memory = PhaseMemory(device, limit), PhaseMemory(device, limit)
    measured["trained"] = trained
    measured["peaks"] = (train_memory, evaluation_memory)
    release_cached_memory(device)
    if assembled.prefix and training.keeps_prefix:
        with evaluation_memory.measured():
            _cache_prefix(assembled, batches, accelerator.autocast, evaluation_memory, measured, events)
    elif assembled.prefix:
        measured["prefix_cache"] = False
    if training.packing:
        batches["train"] = replace(batches["train"], packing=True)
        check_packing(assembled.model, batches["train"], head, accelerator.autocast)
    if training.compile:
        compile_layers(assembled.model)
    train(
        assembled.model,
        assembled.strategy,
        batches["train"],
        training,
        job.seed,
        accelerator,
        validate,
        train_memory,
        events,
        trained,
        head,
    )
    release_cached_memory(device)
    if job.is_trial:
        values = dict(trained.validation)
        measured["validation"] = values[trained.best_step] if trained.best_step else trained.validation[-1][1]
        return
    if head.is_calibrated:
        head = head.calibrated(evaluate("validation", "choosing the threshold"))
    measured["head_constants"] = head.constants
    before = time.perf_counter()
    with evaluation_memory.measured():
        predictions = judged(
            "evaluating on test",
            around_longest=lambda: evaluation_memory.tracked(lambda: tensors_of(assembled.model)),
        )
    times["evaluate_seconds"] = time.perf_counter() - before - times.get("generate_seconds", 0.0)
    measured["metrics"] = predictions.metrics()
    measured["confusion"] = predictions.confusion()
    warnings += predictions.warnings()
    measured["predictions"] = write_predictions(job, examples.test, predictions.table())
    if assembled.prefix:
        assembled.prefix.restore()
    assembled.strategy.save(assembled.model, job.model_folder)
    if head.constants:
        (job.model_folder / "head.json").write_text(json.dumps(head.constants), encoding="utf-8")
    measured["model"] = str(job.model_folder.relative_to(job.results))
    measured["shipped_bytes"] = sum(
        path.stat().st_size for path in job.model_folder.rglob("*") if path.is_file() and path.suffix != ".md"
    )
    times["total_seconds"] = time.perf_counter() - started


def _cache_prefix(
    assembled: Any, batches: dict[str, Any], autocast: Any, memory: Any, measured: dict[str, Any], events: Any
) -> None:
    """Give `batches` the states of the frozen layers, and take those out of the model; `measured` says whether it went."""
    from pewb.assets import cache_folder
    from pewb.measurement.memory import tensors_of
    from pewb.prediction import EVALUATION_BATCH_SIZE
    from pewb.prefix.store import NotCachedError, PrefixCache

    device = measured["device"]
    cache = PrefixCache(assembled.prefix, cache_folder() / "prefix", autocast, f"{device['kind']} {device['name']}")
    try:
        found = {
            name: cache.states(
                one, EVALUATION_BATCH_SIZE, events, lambda: memory.tracked(lambda: tensors_of(assembled.model))
            )
            for name, one in batches.items()
        }
    except NotCachedError as error:
        measured["prefix_cache"] = False
        told = f"the frozen layers are computed anew in every epoch: {error}"
        measured["notices"].append(told)
        events.notice(told)
        return
    for name, states in found.items():
        batches[name] = replace(batches[name], states=states.rows)
    assembled.prefix.cut()
    measured["prefix_cache"] = True
    measured["prefix_cache_bytes"] = sum(states.nbytes for states in found.values())
    seconds = found["train"].build_seconds
    measured["times"]["prefix_seconds"] = seconds
    if found["train"].were_there:
        told = f"the frozen layers' states are an earlier run's; the {seconds:.1f} s that they took count in this training too"
        measured["notices"].append(told)


def _predict_memory(
    job: TrainingJob,
    labels: list[str],
    device: Any,
    train: Any,
    evaluated: list[Any],
    measured: dict[str, Any],
    events: Any,
) -> None:
    """Plan the run for its largest batches: the record keeps what was predicted beside what is measured."""
    import torch

    from pewb.backbone import read_config
    from pewb.batching import FOLLOWED_STEPS, by_length, first_epoch
    from pewb.planner.prediction import largest_batch, predict_memory
    from pewb.planner.simulation import Question
    from pewb.planner.target import limited, target_of
    from pewb.prediction import EVALUATION_BATCH_SIZE

    recipe, training = job.recipe, job.recipe.training
    if device.type not in ("cpu", "cuda"):
        return
    try:
        config = read_config(job.backbone_folder)
        question = Question(job.backbone, config, job.task, labels, recipe.strategy, recipe.quantization, training)
        order = torch.Generator().manual_seed(job.seed)
        num_followed = min(FOLLOWED_STEPS, training.max_steps or FOLLOWED_STEPS)
        first = first_epoch(train.lengths, training.batch_size, order, training.length_bucketing)[:num_followed]
        trained = [largest_batch(train, batch) for batch in first]
        longest = [largest_batch(one, by_length(one.lengths)[:EVALUATION_BATCH_SIZE]) for one in evaluated]
        tested = max(longest, key=lambda one: one.num_examples * one.num_tokens)
        prediction = predict_memory(question, limited(target_of(device), recipe.device), trained, tested)
    except Exception as error:  # it must not end a run; the record says that there is no prediction
        told = f"its memory could not be planned: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        measured["notices"].append(told)
        events.notice(told)
        return
    measured["memory_predicted"] = prediction.memory
    if prediction.warning:
        measured["notices"].append(prediction.warning)
        events.notice(prediction.warning)


def finished(job: TrainingJob, measured: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured so far as a record's fields."""
    fields = dict(measured)
    trained = fields.pop("trained", None)
    times = fields.pop("times", {})
    peaks = fields.pop("peaks", None)
    cached = fields.pop("prefix_cache_bytes", None)
    if peaks:
        fields["memory"] = Memory(train=peaks[0].peak, evaluation=peaks[1].peak, prefix_cache_bytes=cached)
    told = list(fields.get("notices", []))
    if trained:
        fields["curves"] = trained.curves
        fields["micro_batch_size"] = trained.micro_batch_size
        times = times | trained.rates()
        peak = times.get("matmul_peak_flops_per_second")
        if peak and "flops_per_second" in times and not job.recipe.training.gradient_checkpointing:
            times["model_flops_utilization"] = times["flops_per_second"] / peak
        if trained.num_steps:
            times["train_seconds"] = trained.seconds + times.get("prefix_seconds", 0.0)
        training = job.recipe.training
        asked = training.asked_micro_batch_size
        if trained.micro_batch_size and trained.micro_batch_size < asked:
            told.append(
                f"micro-batches of {trained.micro_batch_size}, not {asked}, to fit the memory; batch_size is unchanged"
            )
        if trained.stopped_at:
            told.append(f"stopped early at step {trained.stopped_at}")
        if trained.best_step not in (None, trained.num_steps):
            told.append(f"the weights are those of step {trained.best_step}, the best on validation")
    fields["notices"] = told
    fields["time"] = Time(**{name: round(value, 3) for name, value in times.items()})
    return fields
