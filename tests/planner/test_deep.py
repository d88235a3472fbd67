"""A deep model by two shallow ones: what the whole model's simulation says, to the byte, or the whole model's simulation."""

import re
from dataclasses import replace

import pytest
from transformers import BertConfig, Gemma2Config, GPT2Config, LlamaConfig, Qwen3MoeConfig

from pewb.errors import RefusedError
from pewb.planner.deep import DeepSimulation, simulation_of
from pewb.planner.layers import SHALLOW, extended
from pewb.planner.simulation import Question, Simulation
from pewb.planner.target import Target
from pewb.planner.trace import Change
from pewb.recipe import Quantization, Training
from pewb.strategies import strategies
from pewb.tasks import TASKS

GPU = Target("cuda", "a GPU", has_bf16=True, capability=(8, 9))
CPU = Target("cpu", "a CPU", has_bf16=True)
LAYERS = 13
SHAPE = {"hidden_size": 128, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": 192}
CONFIGURATIONS = {
    "llama": lambda: LlamaConfig(**SHAPE, num_key_value_heads=2, vocab_size=900, max_position_embeddings=128),
    "bert": lambda: BertConfig(**SHAPE, vocab_size=900, max_position_embeddings=128),
    "gpt2": lambda: GPT2Config(n_embd=128, n_layer=LAYERS, n_head=4, vocab_size=900, n_positions=128),
    # every second layer has a sliding window
    "gemma2": lambda: Gemma2Config(**SHAPE, num_key_value_heads=2, head_dim=32, vocab_size=900, sliding_window=16),
    # the lowest two layers are not sparse
    "qwen3_moe": lambda: Qwen3MoeConfig(
        **SHAPE, num_key_value_heads=2, vocab_size=900, num_experts=4, mlp_only_layers=[0, 1], moe_intermediate_size=64
    ),
}


def question(architecture, strategy="lora", quantization="none", **training):
    family, labels = ("text_classification", ("no", "yes")) if architecture == "bert" else ("causal_lm", ())
    return Question(
        architecture,
        CONFIGURATIONS[architecture]().to_dict(),
        TASKS[family](),
        labels,
        strategies()[strategy](),
        Quantization(kind=quantization, double=quantization == "nf4"),
        Training(batch_size=8, max_tokens=32, learning_rate=1e-4, **training),
    )


def answers(simulation):
    """Everything that is asked of a simulation, in the order of a plan with its search."""
    phases = [simulation.train(4), simulation.evaluate(8), simulation.train(2)]
    facts = [simulation.parameters, simulation.shipped_bytes, simulation.precision, simulation.notices]
    return [*phases, *facts, simulation.doubts, simulation.kernels]


@pytest.mark.parametrize(
    ("architecture", "strategy", "settings", "target"),
    [
        ("llama", "lora", {"quantization": "nf4", "gradient_checkpointing": True, "optimizer": "adamw_8bit"}, GPU),
        ("llama", "lora", {"optimizer": "sgd"}, CPU),
        ("llama", "full", {"gradient_checkpointing": True, "precision": "bf16-true"}, GPU),
        ("llama", "adalora", {"quantization": "int8"}, GPU),
        ("llama", "bottleneck_adapter", {}, GPU),
        ("llama", "oft", {}, CPU),
        ("llama", "prompt_tuning", {}, GPU),
        ("llama", "layer_norm", {"gradient_checkpointing": True}, CPU),
        ("gpt2", "ia3", {"quantization": "nf4"}, GPU),
        ("bert", "bitfit", {"optimizer": "paged_adamw_8bit"}, GPU),
        ("bert", "vera", {"precision": "fp32"}, CPU),
        ("bert", "head_only", {}, GPU),
    ],
)
def test_two_shallow_models_tell_what_the_deep_one_tells(architecture, strategy, settings, target):
    """Peaks by category with their place, what the allocator reserves, operations, counts."""
    asked = question(architecture, strategy, **settings)
    deep = simulation_of(asked, target)
    told = answers(deep)
    assert isinstance(deep, DeepSimulation)
    assert deep.is_extended
    assert told == answers(Simulation(asked, target))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", sorted(set(strategies()) - {"peft"}))
@pytest.mark.parametrize("architecture", ["llama", "bert", "gpt2"])
@pytest.mark.parametrize("target", [GPU, CPU], ids=["gpu", "cpu"])
def test_every_strategy_is_told_as_by_the_deep_model(architecture, strategy, target):
    asked = question(architecture, strategy)
    try:
        whole = Simulation(asked, target)
    except RefusedError as error:
        with pytest.raises(RefusedError, match=re.escape(str(error))):
            simulation_of(asked, target)
    else:
        assert answers(simulation_of(asked, target)) == answers(whole)


@pytest.mark.parametrize("strategy", ["top_layers", "prefix_tuning"])
def test_where_layers_do_not_do_alike_the_whole_model_is_simulated(strategy):
    """Of the trained and the frozen layers of one, and where PEFT makes each layer's keys before the first one."""
    asked = question("llama", strategy)
    deep = simulation_of(asked, GPU)
    assert answers(deep) == answers(Simulation(asked, GPU))
    assert isinstance(deep, Simulation) or not deep.is_extended


@pytest.mark.parametrize("architecture", ["gemma2", "qwen3_moe"])
def test_layers_that_differ_are_not_taken_for_alike(architecture):
    assert isinstance(simulation_of(question(architecture), GPU), Simulation)


@pytest.mark.parametrize(
    "config",
    [
        {"rank_pattern": {"layers.11.self_attn.q_proj": 32}},
        {"target_modules": r".*layers\.(0|11)\.self_attn\.q_proj"},
        {"layers_to_transform": [0, 11]},
        {"exclude_modules": ["model.layers.11.self_attn.q_proj"]},
        {"target_modules": r".*layers\.\d\.self_attn\.q_proj"},
        {"target_modules": r".*layers\.[^.]\.self_attn\.q_proj"},
        {"rank_pattern": {r"layers...self_attn\.q_proj": 32}},
    ],
)
def test_settings_for_a_layer_that_the_shallow_models_lack_count(config):
    content = {"peft_type": "LORA", "target_modules": ["q_proj"], **config}
    asked = replace(question("llama"), strategy=strategies()["peft"](config=content))
    told = answers(simulation_of(asked, CPU))
    assert told == answers(Simulation(asked, CPU))
    alike = {"peft_type": "LORA", "target_modules": ["q_proj"]}
    assert told != answers(simulation_of(replace(asked, strategy=strategies()["peft"](config=alike)), CPU))


def test_where_the_shallow_models_can_not_the_whole_one_answers(monkeypatch):
    """As where `module_dropout` happens to leave every layer of the shallow ones out."""
    asked = question("llama")
    deep = simulation_of(asked, CPU)
    for one in deep._pair:
        monkeypatch.setattr(one, "trace_of_training", lambda *_: 1 / 0)
    assert answers(deep) == answers(Simulation(asked, CPU))
    assert not deep.is_extended


def layers_of(count, size=10, last=None):
    """A trace in which every layer makes a tensor, and a sweep back frees them; `last` alters the deepest one's size."""
    sizes = [size] * (count - 1) + [last or size]
    forward = [Change(one, sizes[one], "activations", "mul", "", one, 1) for one in range(count)]
    return [*forward, *(Change(one, 0, "activations", "mul", "", one, 2) for one in reversed(range(count)))]


def test_a_trace_is_extended_by_what_the_layers_between_do():
    traces = [layers_of(count, last=7) for count in SHALLOW]
    told = extended(traces, 9, "layers")
    assert [(change.storage, change.size, change.layer) for change in told] == [
        (change.storage, change.size, change.layer) for change in layers_of(9, last=7)
    ]


@pytest.mark.parametrize(
    "deeper",
    [
        layers_of(SHALLOW[1], size=11),  # a layer's tensors grow with the number of layers
        layers_of(SHALLOW[1])[:-1],  # something else is done in a layer
        layers_of(SHALLOW[0]),  # there is no further layer
        [*layers_of(SHALLOW[1]), Change(99, 5, "activations", "mul", "", None, 3)],
    ],
)
def test_a_trace_that_goes_otherwise_is_not_extended(deeper):
    assert extended([layers_of(SHALLOW[0]), deeper], 9, "layers") is None
