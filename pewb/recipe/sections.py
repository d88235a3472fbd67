"""The sections of a recipe: their keys, types and defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from pewb.errors import InputError
from pewb.strategies import Strategy, strategies
from pewb.tasks import DEFAULT_KIND, TASKS, TaskFamily
from pewb.tasks.augment import Alteration
from pewb.units import parse_bytes

Precision = Literal["auto", "fp32", "bf16", "fp16", "bf16-true"]
Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "sgd"]
NUM_RATES = 4
"""The fewest learning rates that a search tries: fewer decide nothing between strategies."""

Schedule = Literal["linear", "cosine", "constant"]


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True, use_attribute_docstrings=True
    )


class Quantization(_Section):
    """How the frozen backbone's linear layers are stored."""

    kind: Literal["none", "int8", "nf4", "fp4"] = "none"
    """What a weight is stored in: the type that is computed in, 8-bit integers, or one of two 4-bit types."""
    double: bool = False
    """Quantise the 4-bit scales as well (Dettmers et al. 2023, section 3)."""

    def __str__(self) -> str:
        return f"{self.kind} double" if self.double else self.kind


class Training(_Section):
    """How the model is trained."""

    epochs: int = Field(default=3, ge=1)
    """How often each training example is seen."""
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after so many optimizer steps."""
    batch_size: int = Field(default=32, ge=1)
    """Examples per optimizer step."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Examples on the device at once; left out: as many as fit."""
    max_tokens: int = Field(default=128, ge=4)
    """Longer inputs are cut, and counted."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Left out: the strategy's own default."""
    schedule: Schedule = "linear"
    """How the rate falls after the warm-up: to zero in a straight line or in half a cosine, or not at all."""
    warmup_ratio: float = Field(default=0.06, ge=0, lt=1)
    """Share of the steps in which the rate rises from zero (0.06: Liu et al. 2019, table 10)."""
    optimizer: Optimizer = "adamw"
    """AdamW, with its state in 8 bits (paged: on the CPU when a GPU is full), or gradient descent with a momentum of 0.9."""
    lora_plus_ratio: float | None = Field(default=None, ge=1)
    """Learning rate of LoRA's B over that of A (LoRA+, Hayou et al. 2024: 16); left out: the same for both."""
    weight_decay: float = Field(default=0.01, ge=0)
    """How much matrices shrink, times the learning rate, with every step; biases and norms do not."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm; a very large one (1e9) clips nothing."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Every dropout of the backbone; left out: the backbone's own."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes or tokens."""
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = None
    """What an example of each class counts in the loss, by name; "balanced": rare ones more, so that all classes weigh the same together."""
    precision: Precision = "auto"
    """Of what is computed; auto: bf16 where the device is good at it, else fp16 or fp32; bf16-true: the trained weights too."""
    gradient_checkpointing: bool = False
    """Compute each layer a second time for its gradient in place of keeping what it needs: less memory, more time."""
    length_bucketing: bool = True
    """Put examples of like length into one batch, so that less is padding."""
    packing: bool | None = None
    """For `causal_lm`: put short examples of a batch into one row, in which none sees another; left out: no.

    Then `length_bucketing` is needed no more, and a batch may hold examples of any length.
    """
    compile: bool | None = None
    """Compile the layers (`torch.compile`): takes a minute or more at first, and may pay on a GPU; a plan does not know of it. Left out: no."""
    prefix_cache: bool | None = None
    """Run what lies below the lowest trained layer once, and keep what it hands on: every epoch begins from there. Left out: yes."""
    evaluations_per_epoch: int = Field(default=1, ge=1)
    """How often the validation split is predicted."""
    patience: int | None = Field(default=None, ge=1)
    """Stop when so many evaluations in a row bring nothing better, and go back to the best; left out: never stop."""

    @property
    def keeps_prefix(self) -> bool:
        """Whether what a frozen prefix hands on is kept, where there is one."""
        return self.prefix_cache is not False

    @property
    def asked_micro_batch_size(self) -> int:
        """Examples on the device at once, as long as they fit."""
        return self.micro_batch_size or self.batch_size


class Tune(_Section):
    """A search on the validation split: the learning rate always, and what else is named.

    The first trials are rates spread evenly, on a logarithmic scale, over `decades` around the recipe's own rate. While
    the best lies at an edge, the next rate beyond it is tried, up to `extensions` times. Where `search` names other keys,
    the trials that are left vary everything, by Optuna's tree-structured Parzen estimator (Bergstra et al. 2011).
    """

    trials: int = Field(default=4, ge=NUM_RATES)
    """For each strategy alike; extensions are counted besides."""
    decades: float = Field(default=2.0, ge=0.5, le=6)
    """Powers of ten from the smallest to the largest rate of the first trials."""
    extensions: int = Field(default=3, ge=0)
    """More rates beyond an edge, while the best lies there."""
    epochs: int | None = Field(default=None, ge=1)
    """Of a trial; left out: as many as `training.epochs`.

    Fewer cost less and mislead: on minilm-l6 and movie-snippets trials of one epoch chose 5e-3 for LoRA, which over three
    epochs reached .833 (two seeds), below the .844 of 1e-3 (one seed).
    """
    prune: bool = True
    """Give a trial up once it is below the median of those before it (Golovin et al. 2017, section 3.2.2)."""
    search: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    """Values to choose from, for other keys of the recipe: `"strategy.rank" = [4, 8, 16]`."""

    @property
    def num_rates(self) -> int:
        """Learning rates that are tried before anything else."""
        return NUM_RATES if self.search else self.trials

    @model_validator(mode="after")
    def _leaves_trials_for_the_search(self) -> Tune:
        if self.search and self.trials <= NUM_RATES:
            raise ValueError(
                f"search needs more than the {NUM_RATES} trials that the learning rate takes; raise trials"
            )
        if "training.learning_rate" in self.search:
            raise ValueError("search: the learning rate is always searched; leave it out")
        if self.epochs and "training.epochs" in self.search:
            raise ValueError(
                "search: every trial has tune.epochs epochs, so training.epochs can't be searched; leave one out"
            )
        odd = [key for key in self.search if key.partition(".")[0] not in ("strategy", "training")]
        if odd:
            raise ValueError(
                f"search: '{odd[0]}' can't be searched; name keys such as strategy.rank or training.weight_decay"
            )
        return self


class Limit(_Section):
    """At most so many examples, of each class the same share, chosen by a hash of their text; fewer are a part of more."""

    train: int | None = Field(default=None, ge=1)
    """Training examples; left out: all."""
    validation: int | None = Field(default=None, ge=1)
    """Validation examples; left out: all."""
    test: int | None = Field(default=None, ge=1)
    """Test examples; left out: all."""


class Augment(_Section):
    """Altered copies of the training examples, whose labels stay true; each number is a probability for each word."""

    copies: int = Field(default=1, ge=1, le=20)
    """Of each training example, besides the example itself."""
    word_dropout: float = Field(default=0.0, ge=0, lt=1)
    """A word is left out."""
    swap: float = Field(default=0.0, ge=0, le=1)
    """A word changes places with the next."""
    noise: float = Field(default=0.0, ge=0, le=1)
    """Letters of a word change places, or are doubled, left out or others."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """The copies are the same for every strategy and every seed of a run."""

    @model_validator(mode="after")
    def _alters_something(self) -> Augment:
        if not (self.word_dropout or self.swap or self.noise):
            raise ValueError("give one of word_dropout, swap and noise a probability, such as word_dropout = 0.1")
        return self

    @property
    def alteration(self) -> Alteration:
        """What is done to the words."""
        return Alteration(self.word_dropout, self.swap, self.noise)


class Generation(_Section):
    """How texts are written for the test examples, by the untouched and by the trained model; left out: none are, and only their loss is known."""

    max_new_tokens: int = Field(default=64, ge=1)
    """The most tokens that are written for an example."""
    num_beams: int = Field(default=1, ge=1)
    """Texts that are followed side by side in the search for the likeliest."""
    temperature: float | None = Field(default=None, gt=0)
    """Left out: the likeliest token is taken each time (with `num_beams`, the likeliest text); else tokens are drawn."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Drawn are only the likeliest tokens that have so much of the probability together."""
    repetition_penalty: float | None = Field(default=None, gt=0)
    """Above 1: tokens that are there already become less likely (Keskar et al. 2019)."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of what is drawn."""

    @model_validator(mode="after")
    def _draws_or_does_not(self) -> Generation:
        if self.top_p is not None and self.temperature is None:
            raise ValueError("top_p: tokens are drawn only with a temperature; give one, such as temperature = 1.0")
        return self


class DeviceSection(_Section):
    """Where the run computes."""

    kind: Literal["auto", "cpu", "cuda", "mps", "xpu"] = "auto"
    """Left out: an accelerator where there is one."""
    memory: str | int | None = None
    """The device behaves as if it had no more ("8GiB")."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; results depend on it, so it is recorded."""

    @field_validator("memory")
    @classmethod
    def _is_a_size(cls, value: str | int | None) -> str | int | None:
        if value is not None:
            try:
                parse_bytes(value)
            except InputError as error:
                raise ValueError(str(error)) from None
        return value

    @property
    def memory_bytes(self) -> int | None:
        """The memory limit in bytes."""
        return None if self.memory is None else parse_bytes(self.memory)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def kind_table(value: Any) -> Any:
    """Return a table for a kind that was given by its name alone."""
    return {"kind": value} if isinstance(value, str) else value


NAMES = "names"
"""What a fault's place calls a task that is given by names; a table it calls by its kind."""


def _kind_of_task(value: Any) -> str:
    if isinstance(value, str | list | tuple):
        return NAMES
    return str(value.get("kind", DEFAULT_KIND) if isinstance(value, dict) else getattr(value, "kind", DEFAULT_KIND))


Names = Annotated[list[str], Field(min_length=1), BeforeValidator(_listed)]
if TYPE_CHECKING:
    AnyStrategy = Strategy
    TaskTable = TaskFamily
    AnyTask = list[str] | TaskFamily
else:
    _TAGGED = tuple(Annotated[family, Tag(kind)] for kind, family in TASKS.items())
    TaskTable = Annotated[Union[_TAGGED], Discriminator(_kind_of_task)]  # noqa: UP007
    AnyTask = Annotated[Union[(Annotated[Names, Tag(NAMES)], *_TAGGED)], Discriminator(_kind_of_task)]
    AnyStrategy = Annotated[
        Union[tuple(strategies().values())], Field(discriminator="kind"), BeforeValidator(kind_table)  # noqa: UP007
    ]


class Recipe(_Section):
    """One recipe: what a user wants compared, trained and measured."""

    backbone: Names
    """A catalogue name, a hub id or a folder; the first of a list that can be had."""
    task: AnyTask
    """Catalogue names, the first that can be had; or a table with the user's own files."""
    quantization: Annotated[Quantization, BeforeValidator(kind_table)] = Quantization()
    """A kind by its name, or a table."""
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(default=[0], min_length=1)
    """A run with each: of the head, the order of the examples, dropout, and what a strategy draws."""
    strategy: AnyStrategy
    """A kind by its name, or a table."""
    training: Training = Training()
    tune: Tune | None = None
    limit: Limit = Limit()
    augment: Augment | None = None
    generation: Generation | None = None
    device: DeviceSection = DeviceSection()
