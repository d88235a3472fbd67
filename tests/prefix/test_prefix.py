"""With the frozen layers' states a run computes what it computes without."""

import errno
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BioGptConfig,
    ElectraConfig,
    OPTConfig,
    SqueezeBertConfig,
)

from pewb import assembly
from pewb.batching import Collated
from pewb.device import Computing
from pewb.errors import OutOfMemoryError
from pewb.heads import head_of
from pewb.measurement.memory import PhaseMemory
from pewb.prediction import predict
from pewb.prefix import store
from pewb.prefix.frozen import find_prefix
from pewb.prefix.store import NotCachedError, PrefixCache
from pewb.recipe import Quantization, Training
from pewb.reporting import Silent
from pewb.strategies.bitfit import BitFit
from pewb.strategies.bottleneck_adapter import BottleneckAdapter
from pewb.strategies.full import Full
from pewb.strategies.head_only import HeadOnly
from pewb.strategies.lora import Lora
from pewb.strategies.prompt_tuning import PromptTuning
from pewb.strategies.top_layers import TopLayers
from pewb.tasks import CausalLm, Split
from pewb.training.loop import Trained, train
from tests.encoding import encode, encode_split
from tests.tiny_backbones import tokenizer_for
from tests.training.test_parity import CLASSES, CPU, LABELS, TEXTS

ENCODERS = ["bert", "roberta", "deberta-v2"]
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
STRATEGIES = {
    "top_layers": TopLayers(num_layers=1),
    "head_only": HeadOnly(),
    "lora": Lora(rank=4, top_layers=1),
}
TRAINING = Training(epochs=2, batch_size=5, max_tokens=16, learning_rate=1e-2, dropout=0.2)


def assembled(folder, strategy, training=TRAINING, quantization="none"):
    computing = Computing(CPU, "fp32", torch.float32)
    made = assembly.load("tiny", folder, LABELS, strategy, Quantization(kind=quantization), training, computing, seed=0)
    assembly.insert(made, False, 0)
    return made, Collated(made.tokenizer, encode(made.tokenizer, TEXTS, CLASSES, training.max_tokens), CPU)


def cached(made, batches, folder):
    states = PrefixCache(made.prefix, folder, nullcontext, "cpu").states(batches, 4, Silent())
    made.prefix.cut()
    return replace(batches, states=states.rows)


def trained(made, batches, training=TRAINING):
    told = Trained()
    train(
        made.model,
        made.strategy,
        batches,
        training,
        0,
        Accelerator(cpu=True),
        lambda: 0.0,
        PhaseMemory(CPU),
        Silent(),
        told,
    )
    return [loss for _, loss in told.loss]


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("architecture", [*ENCODERS, "llama", "gpt2"])
def test_the_whole_trajectory_is_the_same(architecture, strategy, quantization, tiny_backbone, tmp_path):
    """With dropout above the prefix: losses, trained weights and predictions, to the rounding of float32."""
    outcomes = []
    for use_cache in (False, True):
        made, batches = assembled(tiny_backbone(architecture), STRATEGIES[strategy], quantization=quantization)
        assert made.prefix.num_layers == (2 if strategy == "head_only" else 1)
        source = cached(made, batches, tmp_path) if use_cache else batches
        losses = trained(made, source)
        found = predict(made.model, source, 4, nullcontext, Silent(), "testing")
        made.prefix.restore()
        weights = {name: one for name, one in made.model.named_parameters() if one.requires_grad}
        outcomes.append((torch.tensor(losses), found.probabilities, weights))
        assert torch.allclose(
            predict(made.model, batches, 4, nullcontext, Silent(), "").probabilities, found.probabilities
        )
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if quantization == "none" else {"rtol": 2e-3, "atol": 2e-3}
    torch.testing.assert_close(outcomes[1], outcomes[0], **tolerance)
    assert outcomes[0][0][-1] != outcomes[0][0][0]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_language_models_trajectory(architecture, tiny_language_model, tmp_path):
    outcomes = []
    for use_cache in (False, True):
        computing = Computing(CPU, "fp32", torch.float32)
        training = TRAINING.model_copy(update={"dropout": 0.0})
        folder = tiny_language_model(architecture)
        made = assembly.load(
            "tiny", folder, [], TopLayers(num_layers=1), Quantization(), training, computing, 0, CausalLm()
        )
        assembly.insert(made, False, 0)
        data = encode_split(CausalLm, made.tokenizer, Split(TEXTS, []), 16)
        batches = Collated(made.tokenizer, data, CPU)
        source = cached(made, batches, tmp_path) if use_cache else batches
        told = Trained()
        train(
            made.model,
            made.strategy,
            source,
            training,
            0,
            Accelerator(cpu=True),
            lambda: 0.0,
            PhaseMemory(CPU),
            Silent(),
            told,
            head_of(CausalLm()),
        )
        outcomes.append([loss for _, loss in told.loss])
    assert outcomes[1] == pytest.approx(outcomes[0], rel=1e-4)


@pytest.mark.parametrize(
    "strategy", [Full(), Lora(), BitFit(), BottleneckAdapter(), PromptTuning(num_virtual_tokens=3)]
)
def test_there_is_no_prefix_where_the_lowest_is_trained(strategy, tiny_backbone):
    made, _ = assembled(tiny_backbone("bert"), strategy)
    assert made.prefix is None
    assert not made.notices


def test_a_decoder_with_an_encoder_says_why_it_has_none(tiny_backbone):
    made, _ = assembled(tiny_backbone("t5"), TopLayers(num_layers=1))
    assert made.prefix is None
    assert "computed anew in every epoch: the decoder's frozen layers read the encoder" in made.notices[-1]


def test_below_the_lowest_trained_layer_is_no_dropout(tiny_backbone):
    made, batches = assembled(
        tiny_backbone("bert"), TopLayers(num_layers=1), TRAINING.model_copy(update={"dropout": 0.5})
    )
    made.model.train()
    inputs, _ = batches([0, 1])
    assert torch.equal(made.prefix.states(inputs), made.prefix.states(inputs))
    assert not torch.equal(made.model(**inputs).logits, made.model(**inputs).logits), "above there is"


def test_an_encoder_whose_head_reads_one_row_keeps_one(tiny_backbone, tmp_path):
    made, batches = assembled(tiny_backbone("bert"), HeadOnly())
    source = cached(made, batches, tmp_path)
    assert source.states.values.shape == (len(TEXTS), 32)
    assert source([0, 1])[0]["input_ids"].shape == (2, 1)


def test_what_was_built_is_used_again_by_whoever_has_the_same_prefix(tiny_backbone, tmp_path):
    made, batches = assembled(tiny_backbone("bert"), TopLayers(num_layers=1))
    first = PrefixCache(made.prefix, tmp_path, nullcontext, "cpu").states(batches, 4, Silent())
    other, _ = assembled(tiny_backbone("bert"), Lora(top_layers=1))
    seen = []
    other.prefix.states = lambda inputs: seen.append(inputs)
    second = PrefixCache(other.prefix, tmp_path, nullcontext, "cpu").states(batches, 4, Silent())
    assert not seen
    assert torch.equal(first.rows.values, second.rows.values)
    assert second.build_seconds == first.build_seconds
    assert len(list(tmp_path.iterdir())) == 1
    made.prefix.restore()
    with torch.no_grad():
        made.model.get_submodule("bert.encoder.layer.0.output.dense").weight[0, 0] += 1
    PrefixCache(made.prefix, tmp_path, nullcontext, "cpu").states(batches, 4, Silent())
    assert len(list(tmp_path.iterdir())) == 2, "another weight, another prefix"


def test_states_that_do_not_serve_are_not_kept(tiny_backbone, tmp_path, monkeypatch):
    made, batches = assembled(tiny_backbone("bert"), TopLayers(num_layers=1))
    cache = PrefixCache(made.prefix, tmp_path, nullcontext, "cpu")
    real = made.prefix.states
    made.prefix.states = lambda inputs: real(inputs) + 1
    with pytest.raises(NotCachedError, match="is given something else"):
        cache.states(batches, 4, Silent())
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(store, "LARGEST_BYTES", 100)
    with pytest.raises(NotCachedError, match="too much to keep"):
        cache.states(batches, 4, Silent())


@pytest.mark.parametrize("wrong", [lambda states: states.roll(1, 0), lambda states: states.flip(1)])
@pytest.mark.parametrize("strategy", [TopLayers(num_layers=1), Lora(rank=2, top_layers=1)])
def test_another_examples_states_are_seen_in_bfloat16_too(strategy, wrong, tiny_backbone, tmp_path):
    """The untrained head's logits hardly tell them apart; what it is given does."""
    autocast = Accelerator(mixed_precision="bf16", cpu=True).autocast
    computing = Computing(CPU, "bf16", torch.bfloat16)
    made = assembly.load("tiny", tiny_backbone("llama"), LABELS, strategy, Quantization(), TRAINING, computing, seed=0)
    assembly.insert(made, False, 0, autocast)
    batches = Collated(made.tokenizer, encode(made.tokenizer, TEXTS, CLASSES, 16), CPU)
    cache = PrefixCache(made.prefix, tmp_path, autocast, "cpu")
    real = made.prefix.states
    made.prefix.states = lambda inputs: wrong(real(inputs))
    with pytest.raises(NotCachedError, match="is given something else"):
        cache.states(batches, 12, Silent())
    made.prefix.states = real
    assert len(cache.states(batches, 12, Silent()).rows.lengths) == len(TEXTS)


UNUSUAL = {
    "embeddings of another width": ElectraConfig(**TINY, embedding_size=16),
    "shared layers": AlbertConfig(**TINY, embedding_size=16),
    "layers that are not called": SqueezeBertConfig(**TINY, embedding_size=32),
    "layers that are dropped": OPTConfig(**TINY, ffn_dim=64, word_embed_proj_dim=16, layerdrop=0.5),
    "dropout between layers": BioGptConfig(**TINY),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_models_are_cached_or_say_why_not(kind, tmp_path):
    """Whichever it is, they say the same as without."""
    model = AutoModelForSequenceClassification.from_config(UNUSUAL[kind])
    getattr(model, model.base_model_prefix).save_pretrained(tmp_path / "model")
    tokenizer_for("bert").save_pretrained(tmp_path / "model")
    made, batches = assembled(tmp_path / "model", HeadOnly())
    made.model.eval()
    inputs, _ = batches(range(4))
    whole = made.model(**inputs).logits
    assert (made.prefix is not None) == (kind == "embeddings of another width")
    if made.prefix is None:
        assert "computed anew" in made.notices[-1]
        return
    batches = cached(made, batches, tmp_path)
    torch.testing.assert_close(made.model(**batches(range(4))[0]).logits, whole)


def test_int8_is_computed_anew_and_says_why(tiny_backbone):
    made, _ = assembled(tiny_backbone("bert"), TopLayers(num_layers=1), quantization="int8")
    assert made.prefix is None
    assert "int8" in made.notices[-1]
    below = [made.model.bert.encoder.layer[0], made.model.bert.embeddings]
    made.model.train()
    assert not any(module.training for part in below for module in part.modules()), "yet there is no dropout below"


def test_a_full_disk_is_no_end_of_the_run(tiny_backbone, tmp_path, monkeypatch):
    made, batches = assembled(tiny_backbone("bert"), TopLayers(num_layers=1))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "_reserve", full)
    with pytest.raises(NotCachedError, match="No space left"):
        PrefixCache(made.prefix, tmp_path, nullcontext, "cpu").states(batches, 4, Silent())
    assert list(tmp_path.iterdir()) == []


def test_whoever_is_slower_takes_what_the_faster_built(tiny_backbone, tmp_path):
    made, batches = assembled(tiny_backbone("bert"), TopLayers(num_layers=1))
    cache = PrefixCache(made.prefix, tmp_path, nullcontext, "cpu")
    real, others = made.prefix.states, []

    def states(inputs):
        if not others:
            others.append(None)
            others.append(PrefixCache(made.prefix, tmp_path, nullcontext, "cpu").states(batches, 4, Silent()))
        return real(inputs)

    made.prefix.states = states
    mine = cache.states(batches, 4, Silent())
    assert torch.equal(mine.rows.values, others[1].rows.values)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_that_is_too_short_is_no_end_of_the_run(tiny_backbone, tmp_path):
    made, batches = assembled(tiny_backbone("bert"), TopLayers(num_layers=1))
    cache = PrefixCache(made.prefix, tmp_path, nullcontext, "cpu")
    cache.states(batches, 4, Silent())
    [place] = tmp_path.iterdir()
    (place / "states").write_bytes(b"")
    with pytest.raises(NotCachedError, match="can't be kept"):
        cache.states(batches, 4, Silent())


def test_the_oldest_make_room(tiny_backbone, tmp_path, monkeypatch):
    made, batches = assembled(tiny_backbone("bert"), TopLayers(num_layers=1))
    PrefixCache(made.prefix, tmp_path, nullcontext, "cpu").states(batches, 4, Silent())
    [first] = tmp_path.iterdir()
    size = sum(path.stat().st_size for path in first.iterdir())
    monkeypatch.setattr(store, "LARGEST_BYTES", size + 10)
    PrefixCache(made.prefix, tmp_path, nullcontext, "another cpu").states(batches, 4, Silent())
    [second] = tmp_path.iterdir()
    assert second != first


def test_building_goes_on_with_smaller_batches(tiny_backbone, tmp_path):
    made, batches = assembled(tiny_backbone("bert"), TopLayers(num_layers=1))
    real, sizes = made.prefix.states, []

    def states(inputs):
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise OutOfMemoryError("no memory left")
        return real(inputs)

    made.prefix.states = states
    PrefixCache(made.prefix, tmp_path, nullcontext, "cpu").states(batches, 8, Silent())
    assert sizes[:4] == [8, 4, 2, 2]


def test_a_second_search_of_the_same_model_finds_the_same(tiny_backbone):
    made, _ = assembled(tiny_backbone("bert"), TopLayers(num_layers=1))
    again = find_prefix(made.model, made.anatomy, CPU, nullcontext)
    assert again.num_layers == made.prefix.num_layers
