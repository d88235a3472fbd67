"""Examples that share a row do not see each other: losses and gradients are those of rows of their own."""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator

from pewb import assembly
from pewb.batching import IGNORED, Collated, packed_rows
from pewb.errors import RefusedError
from pewb.heads import head_of
from pewb.prefix.store import PrefixCache
from pewb.recipe import Training, parse_recipe
from pewb.reporting import Silent
from pewb.strategies.full import Full
from pewb.strategies.top_layers import TopLayers
from pewb.tasks import CausalLm, Split
from pewb.training.optimizers import make_optimizer
from pewb.training.packing import check_packing
from pewb.training.step import Stepper
from tests.encoding import encode_split
from tests.training.test_language_models import CPU, PLAIN, load

TRAINING = Training(batch_size=4, learning_rate=1e-3, max_grad_norm=1e9, **PLAIN)


def packed(folder, architecture, strategy):
    made, data = load(folder, strategy, architecture, TRAINING)
    assembly.insert(made, False, 0)
    return made, Collated(made.tokenizer, data, CPU, packing=True)


def gradients(made, batches):
    stepper = Stepper(
        made.model,
        made.strategy,
        batches,
        head_of(CausalLm()),
        make_optimizer(made.model, TRAINING),
        Accelerator(cpu=True),
        TRAINING,
        4,
    )
    loss = stepper.step(range(4))
    return float(loss), {name: one.grad for name, one in made.model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("strategy", [Full(), TopLayers(num_layers=1)], ids=["full", "top_layers"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_losses_and_gradients_are_those_of_rows_of_their_own(architecture, strategy, tiny_language_model, tmp_path):
    outcomes = []
    for packing in (False, True):
        made, batches = packed(tiny_language_model(architecture), architecture, strategy)
        if made.prefix:
            cache = PrefixCache(made.prefix, tmp_path, lambda: Accelerator(cpu=True).autocast(), "cpu")
            batches.states = cache.states(replace(batches, packing=False), 4, Silent()).rows
            made.prefix.cut()
        inputs, _ = batches(range(4))
        assert inputs["input_ids"].shape[0] < 4, "some share a row"
        outcomes.append(gradients(made, replace(batches, packing=packing)))
    assert outcomes[1][0] == pytest.approx(outcomes[0][0], rel=1e-5)
    torch.testing.assert_close(outcomes[1][1], outcomes[0][1], rtol=1e-4, atol=1e-6)


def test_positions_start_anew_and_no_target_crosses(tiny_language_model):
    _, batches = packed(tiny_language_model("llama"), "llama", Full())
    inputs, labels = batches(range(4))
    starts = inputs["position_ids"] == 0
    assert (labels[starts] == IGNORED).all(), "the token before it is another example's"
    assert (labels != IGNORED).sum() == batches.weight(range(4))
    lengths = sorted(batches.data.lengths)
    assert inputs["input_ids"].shape[1] == lengths[-1]
    assert int(starts.sum()) >= 4


def test_rows_are_no_longer_than_the_longest_and_hold_everyone_once():
    lengths = dict(enumerate([3, 9, 1, 5, 4, 9, 2]))
    rows = packed_rows(lengths)
    assert sorted(one for row in rows for one in row) == list(lengths)
    assert all(sum(lengths[one] for one in row) <= 9 for row in rows)
    assert len(rows) == 4


def test_a_model_that_can_not_be_given_packed_rows_is_refused(tiny_language_model):
    made, batches = packed(tiny_language_model("llama"), "llama", Full())
    autocast = Accelerator(cpu=True).autocast
    check_packing(made.model, batches, head_of(CausalLm()), autocast)
    forward = made.model.forward
    made.model.forward = lambda position_ids=None, **inputs: forward(
        **inputs
    )  # positions are lost, and with them the rows
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter *= 10  # what it says depends on what it sees
    with pytest.raises(RefusedError, match=r"training.packing: .* leave packing out"):
        check_packing(made.model, batches, head_of(CausalLm()), autocast)


def test_one_long_example_does_not_hide_what_short_ones_see(tiny_language_model):
    """It lies in a row of its own, and costs more than all the short ones together."""
    made, _ = packed(tiny_language_model("llama"), "llama", Full())
    texts = [("good film",), ("bad plot",), ("the cast",), ("very dull",), ("the story was not good and " * 8,)]
    data = encode_split(CausalLm, made.tokenizer, Split(texts, []), 60)
    batches = Collated(made.tokenizer, data, CPU, packing=True)
    forward = made.model.forward
    made.model.forward = lambda position_ids=None, **inputs: forward(**inputs)
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter *= 1.5
    with pytest.raises(RefusedError, match=r"training.packing"):
        check_packing(made.model, batches, head_of(CausalLm()), Accelerator(cpu=True).autocast)


def test_virtual_tokens_do_not_go_with_packed_rows():
    content = {
        "backbone": "smollm2-135m-instruct",
        "task": {"kind": "causal_lm"},
        "strategy": "prompt_tuning",
        "training": {"packing": True},
    }
    with pytest.raises(RefusedError, match="virtual tokens before every text"):
        parse_recipe(content, "recipe")


def test_only_continued_texts_are_packed():
    content = {
        "backbone": "minilm-l6",
        "task": {"kind": "text_classification", "train": "a.csv", "test": "b.csv"},
        "strategy": "full",
        "training": {"packing": True},
    }
    with pytest.raises(RefusedError, match="only texts that are continued"):
        parse_recipe(content, "recipe")
