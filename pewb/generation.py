"""Generation: the model goes on from each test example's prompt, and what it writes is held against what was wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from pewb.batching import IGNORED, Encoded
from pewb.errors import InputError
from pewb.evaluation.tables import Table
from pewb.evaluation.written import answer_in, written_metrics
from pewb.heads import Predicted
from pewb.prediction import in_fitting_batches
from pewb.recipe import Generation
from pewb.record import Confusion, Metric
from pewb.reporting import Reporter
from pewb.tasks import TaskFamily
from pewb.tasks.completions import Completions
from pewb.tasks.model_heads import SEQ2SEQ_LM


def check_generation(task: TaskFamily) -> None:
    """See that there is something to be generated.

    Raises:
        InputError: there is not.
    """
    if reason := task.why_not_written():
        raise InputError(f"generation: {reason}; leave [generation] out")


def check_room(
    task: TaskFamily, data: Encoded, generation: Generation, limit: int | None, num_virtual_tokens: int
) -> None:
    """See that a decoder's positions suffice for the longest example and what is written after it; `limit` is their number.

    Raises:
        InputError: they do not.
    """
    read = 0 if task.model_head is SEQ2SEQ_LM else max(data.lengths) + num_virtual_tokens
    if limit is not None and read + generation.max_new_tokens > limit:
        raise InputError(
            f"generation.max_new_tokens: {generation.max_new_tokens} after {read} tokens are more than the {limit} that the"
            f" backbone can read; allowed: up to {max(0, limit - read)}, or lower training.max_tokens"
        )


@torch.no_grad()
def generate(
    model: Any,
    tokenizer: Any,
    task: TaskFamily,
    data: Encoded,
    generation: Generation,
    device: torch.device,
    batch_size: int,
    autocast: Callable[[], AbstractContextManager[Any]],
    reporter: Reporter,
    stage: str,
) -> list[str]:
    """Return what `model` writes after each prompt, the longest prompts first, as many at once as fit.

    A decoder's prompts are padded on the left, so that each goes on right after its end.

    Raises:
        OutOfMemoryError: one example at a time does not fit.
    """
    reads_source = task.model_head is SEQ2SEQ_LM
    prompts = [list(ids) for ids in data.features["input_ids"]]
    if not reads_source:
        prompts = [_prompt(ids, labels) for ids, labels in zip(prompts, data.features["labels"], strict=True)]
    was_training = model.training
    model.eval()
    torch.manual_seed(generation.seed)

    def write(indices: list[int]) -> list[str]:
        ids, mask = _padded([prompts[index] for index in indices], tokenizer.pad_token_id, left=not reads_source)
        with autocast():
            written = model.generate(input_ids=ids.to(device), attention_mask=mask.to(device)).cpu()
        new = written if reads_source else written[:, ids.shape[1] :]
        told: list[str] = tokenizer.batch_decode(new, skip_special_tokens=True)
        return told

    texts = [""] * len(prompts)
    lengths = [len(prompt) for prompt in prompts]
    with _settled(model, _settings(generation, tokenizer, model)):
        for indices, written in in_fitting_batches(lengths, batch_size, write, reporter, stage):
            for index, text in zip(indices, written, strict=True):
                texts[index] = text.strip()
    model.train(was_training)
    return texts


def _prompt(ids: Sequence[int], labels: Sequence[int]) -> list[int]:
    """Return what stands before the last stretch of what is learned."""
    end = len(labels)
    while end and labels[end - 1] != IGNORED:
        end -= 1
    return list(ids[: end or 1])


def _padded(rows: Sequence[Sequence[int]], padding: int, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens and mask, (rows, longest)."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), padding)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[number, place] = torch.tensor(row)
        mask[number, place] = 1
    return ids, mask


def _settings(generation: Generation, tokenizer: Any, model: Any) -> GenerationConfig:
    """Return transformers' settings; of the backbone's own only the tokens with which a text begins and ends are taken."""
    own = getattr(model, "generation_config", None)
    its_ends = getattr(own, "eos_token_id", None)
    ends = {tokenizer.eos_token_id, *(its_ends if isinstance(its_ends, list) else [its_ends])} - {None}
    draws = generation.temperature is not None
    drawing = {"temperature": generation.temperature, "top_p": generation.top_p or 1.0, "top_k": 0} if draws else {}
    return GenerationConfig(
        max_new_tokens=generation.max_new_tokens,
        num_beams=generation.num_beams,
        do_sample=draws,
        repetition_penalty=generation.repetition_penalty or 1.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=sorted(ends) or None,
        use_cache=True,
        **{name: getattr(own, name, None) for name in _BEGINNINGS},
        **drawing,
    )


@contextmanager
def _settled(model: Any, settings: GenerationConfig) -> Iterator[None]:
    """Let `model` have these settings in the place of its own, from which transformers takes what is not given."""
    owners = [model, model.get_base_model()] if hasattr(model, "get_base_model") else [model]
    before = [one.generation_config for one in owners]
    for one in owners:
        one.generation_config = settings
    try:
        yield
    finally:
        for one, own in zip(owners, before, strict=True):
            one.generation_config = own


_BEGINNINGS = ("bos_token_id", "decoder_start_token_id", "forced_bos_token_id")


@dataclass(frozen=True)
class Written:
    """What a model wrote for each example of a split, beside what else is known of it."""

    losses: Predicted
    texts: list[str]
    wanted: list[str]
    answer: str | None
    """The pattern that finds the answer in a text."""
    is_translated: bool

    @classmethod
    def of(cls, losses: Predicted, texts: list[str], task: TaskFamily, data: Encoded) -> Written:
        """Hold `texts` against the examples of `data`."""
        assert isinstance(task, Completions)
        labels = data.split.labels or [None] * len(data.split)
        wanted = [task.to_be_written(*one).strip() for one in zip(data.split.texts, labels, strict=True)]
        return cls(losses, texts, wanted, task.answer, task.model_head is SEQ2SEQ_LM)

    def metrics(self) -> dict[str, Metric]:
        """Return loss and perplexity, and how well the texts agree."""
        told = written_metrics(self.texts, self.wanted, self.answer, is_translated=self.is_translated)
        return self.losses.metrics() | told

    def confusion(self) -> Confusion | None:
        """Return none: there are no classes."""
        return None

    def warnings(self) -> list[str]:
        """Return a warning if texts are empty, or no answer is found in one."""
        empty = sum(not answer_in(text, self.answer) for text in self.texts)
        told = "have no answer in them" if self.answer else "are empty"
        warnings = self.losses.warnings() + ([f"{empty} of {len(self.texts)} written texts {told}"] if empty else [])
        without = sum(not answer_in(text, self.answer) for text in self.wanted) if self.answer else 0
        return warnings + (
            [f"in {without} of {len(self.wanted)} wanted texts task.answer finds no answer"] if without else []
        )

    def table(self) -> Table:
        """Return what is kept of each example, and both texts."""
        kept = self.losses.table()
        rows = [[*row, *pair] for row, *pair in zip(kept.rows, self.wanted, self.texts, strict=True)]
        return Table([*kept.columns, "wanted", "written"], rows)
