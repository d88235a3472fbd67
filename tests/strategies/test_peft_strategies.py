"""What is particular to each strategy that PEFT implements."""

import json

import pytest
import torch
from accelerate import Accelerator
from peft import PeftModel, get_peft_model
from pydantic import ValidationError

from pewb import assembly
from pewb.batching import Collated
from pewb.device import Computing
from pewb.errors import InputError, RefusedError
from pewb.measurement.memory import PhaseMemory
from pewb.recipe import Quantization, Training, parse_recipe
from pewb.reporting import Silent
from pewb.strategies.adalora import AdaLora, kept_values, orthogonality_penalty
from pewb.strategies.head_only import HeadOnly
from pewb.strategies.ia3 import Ia3
from pewb.strategies.lora import Lora
from pewb.strategies.oft import Oft
from pewb.strategies.peft_config import Peft
from pewb.training.loop import Trained, train
from pewb.training.optimizers import make_optimizer
from tests.conftest import SENTENCES
from tests.encoding import encode
from tests.half import in_fp16

CPU = torch.device("cpu")
LABELS = ["negative", "positive"]


def load(folder, strategy, quantization="none", compute_type=torch.float32):
    precision = "fp32" if compute_type == torch.float32 else "bf16-true"
    return assembly.load(
        "tiny",
        folder,
        LABELS,
        strategy,
        Quantization(kind=quantization),
        Training(max_tokens=16, dropout=0.0, learning_rate=1e-2),
        Computing(CPU, precision, compute_type),
        seed=0,
    )


def inserted(folder, strategy, quantization="none", compute_type=torch.float32):
    made = load(folder, strategy, quantization, compute_type)
    assembly.insert(made, False, 0)
    return made


def encoded(made):
    labels = [LABELS.index(label) for _, label in SENTENCES]
    return encode(made.tokenizer, [(text,) for text, _ in SENTENCES], labels, 16)


def batch(made):
    return Collated(made.tokenizer, encoded(made), CPU)(range(len(SENTENCES)))


def logits(made):
    made.model.eval()
    with torch.no_grad():
        return made.model(**batch(made)[0]).logits.float()


def fit(made, rate=1e-2, validate=lambda: 0.0, accelerator=None, **settings):
    section = Training(
        batch_size=6, max_tokens=16, learning_rate=rate, schedule="constant", warmup_ratio=0, **{"epochs": 4} | settings
    )
    trained = Trained()
    train(
        made.model,
        made.strategy,
        Collated(made.tokenizer, encoded(made), CPU),
        section,
        0,
        accelerator or Accelerator(cpu=True),
        validate,
        PhaseMemory(CPU),
        Silent(),
        trained,
    )
    return trained


def reloaded(made, folder, tmp_path, quantization="none"):
    made.strategy.save(made.model, tmp_path)
    fresh = load(folder, made.strategy, quantization, made.computing.compute_type)
    fresh.model = made.strategy.load(fresh.model, fresh.anatomy, tmp_path)
    return fresh


def query(model):
    return model.get_submodule("base_model.model.bert.encoder.layer.1.attention.self.query")


@pytest.mark.parametrize("variant", ["rslora", "dora", "pissa", "olora"])
def test_variants_are_pefts(variant, tiny_backbone):
    made = inserted(tiny_backbone("bert"), Lora(variant=variant, rank=4, alpha=8))
    layer = query(made.model)
    assert made.strategy.describe().startswith(f"{variant} r=4")
    assert layer.scaling["default"] == (4 if variant == "rslora" else 2)
    assert bool(layer.lora_magnitude_vector) == (variant == "dora")
    untouched = load(tiny_backbone("bert"), HeadOnly()).model.bert.encoder.layer[1].attention.self.query.weight
    altered = not torch.equal(layer.base_layer.weight, untouched)
    assert altered == (variant in ("pissa", "olora"))
    if altered:
        update = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        torch.testing.assert_close(layer.base_layer.weight + update, untouched)


def test_pissa_takes_the_principal_part(tiny_backbone):
    made = inserted(tiny_backbone("bert"), Lora(variant="pissa", rank=4, alpha=8))
    untouched = load(tiny_backbone("bert"), HeadOnly()).model.bert.encoder.layer[1].attention.self.query.weight
    left = torch.linalg.svdvals(query(made.model).base_layer.weight)
    torch.testing.assert_close(left[:28], torch.linalg.svdvals(untouched)[4:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("variant", "quantization", "compute_type"),
    [
        ("pissa", "none", torch.float32),
        ("pissa", "none", torch.bfloat16),
        ("olora", "none", torch.float32),
        ("olora", "none", torch.bfloat16),
        ("olora", "int8", torch.float32),
        ("olora", "nf4", torch.float32),
        ("dora", "nf4", torch.float32),
    ],
)
def test_altered_backbones_are_found_again(variant, quantization, compute_type, tiny_backbone, tmp_path):
    """The residual that training began from is made anew from an untouched backbone, by `load` and by plain PEFT."""
    folder = tiny_backbone("bert")
    made = inserted(folder, Lora(variant=variant, rank=4, alpha=8), quantization, compute_type)
    fit(made)
    fresh = reloaded(made, folder, tmp_path, quantization)
    torch.testing.assert_close(logits(fresh), logits(made), rtol=1e-5, atol=1e-6)
    plain = load(folder, made.strategy, quantization, compute_type)
    plain.model = PeftModel.from_pretrained(plain.model, tmp_path)
    torch.testing.assert_close(logits(plain), logits(made), rtol=1e-5, atol=1e-6)


def test_top_layers_alone_are_adapted(tiny_backbone):
    made = inserted(tiny_backbone("bert"), Lora(top_layers=1))
    adapted = {name.split("encoder.")[1][:7] for name, _ in made.model.named_parameters() if "lora_" in name}
    assert adapted == {"layer.1"}
    assert made.strategy.describe() == "r=8 a=16 query+value top 1"
    with pytest.raises(RefusedError, match=r"strategy\.top_layers: 3 layers asked for, the backbone has 2"):
        inserted(tiny_backbone("bert"), Lora(top_layers=3))


def test_loftq_is_refused_without_its_devices(tiny_backbone):
    with pytest.raises(RefusedError, match="CUDA or XPU"):
        load(tiny_backbone("bert"), Lora(variant="loftq"))
    with pytest.raises(RefusedError, match="not quantised yet"):
        parse_recipe(recipe({"kind": "lora", "variant": "loftq"}, quantization="nf4"))
    if not torch.cuda.is_available():
        made = load(tiny_backbone("bert"), HeadOnly())
        with pytest.raises((AssertionError, RuntimeError), match="CUDA"):
            get_peft_model(made.model, Lora(variant="loftq").peft_config(made.anatomy))


def test_dora_on_int8_is_refused_on_a_cpu_because_peft_loses_the_scales(tiny_backbone):
    folder = tiny_backbone("bert")
    with pytest.raises(RefusedError, match="loses their scales"):
        load(folder, Lora(variant="dora"), "int8")
    made = load(folder, HeadOnly(), "int8")
    made.model = get_peft_model(made.model, Lora(variant="dora").peft_config(made.anatomy))
    with pytest.raises(AttributeError, match="NoneType"):
        for _ in range(2):
            made.model(**batch(made)[0]).logits.sum().backward()
    assert Lora(variant="dora").refuses("int8", made.anatomy, "cuda") is None


def test_olora_takes_conv1d_the_wrong_way_round(tiny_backbone):
    folder = tiny_backbone("gpt2")
    with pytest.raises(RefusedError, match="Conv1D"):
        load(folder, Lora(variant="olora"))
    made = load(folder, HeadOnly())
    made.model = get_peft_model(made.model, Lora(variant="olora").peft_config(made.anatomy))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        logits(made)
    inserted(folder, Lora(variant="olora"), "nf4")


def test_conv1d_is_refused_but_not_what_replaces_it(tiny_backbone):
    with pytest.raises(RefusedError, match=r"Conv1D.*allowed: int8, nf4, fp4"):
        load(tiny_backbone("gpt2"), Oft())
    made = load(tiny_backbone("gpt2"), HeadOnly())
    with pytest.raises(TypeError, match="Conv1D"):
        get_peft_model(made.model, Oft().peft_config(made.anatomy))
    inserted(tiny_backbone("gpt2"), Oft(block_size=8), "nf4")


def test_adalora_hands_out_ranks(tiny_backbone, tmp_path):
    folder = tiny_backbone("bert")
    strategy = AdaLora(rank=6, target_rank=3, alpha=8, initial_share=0.1, final_share=0.3)
    made = inserted(folder, strategy)
    fit(made, epochs=10)
    config = made.model.active_peft_config
    assert (config.total_step, config.tinit, config.tfinal) == (20, 2, 6)
    ranks = [sum(kept) for kept in kept_values(made.model).values()]
    assert sum(ranks) == 3 * len(ranks)
    assert len(set(ranks)) > 1
    fresh = reloaded(made, folder, tmp_path)
    torch.testing.assert_close(logits(fresh), logits(made), rtol=1e-5, atol=1e-6)
    assert sum(one.shape[0] for name, one in fresh.model.named_parameters() if "lora_A" in name) == sum(ranks)


def test_adalora_hands_out_ranks_though_gradients_overflow(tiny_backbone, monkeypatch):
    """In fp16 the scale grows until they do; here it is at the limit after a few steps, and then in every other one."""
    made = inserted(tiny_backbone("bert"), AdaLora(rank=6, target_rank=3, alpha=8, initial_share=0.1, final_share=0.3))
    accelerator = in_fp16(monkeypatch, init_scale=2.0**10, growth_interval=1)
    before = {name: one.clone() for name, one in made.model.named_parameters()}
    fit(made, epochs=10, accelerator=accelerator)
    assert accelerator.scaler.get_scale() < 2.0**30, "it would be at that if nothing had overflowed"
    ranks = [sum(kept) for kept in kept_values(made.model).values()]
    assert sum(ranks) == 3 * len(ranks)
    assert all(one.isfinite().all() for one in made.model.parameters())
    assert any(not torch.equal(one, before[name]) for name, one in made.model.named_parameters())


def test_adalora_saves_the_weights_of_an_earlier_step(tiny_backbone, tmp_path):
    """Early stopping goes back to a step at which other values were left than PEFT's list says."""
    folder = tiny_backbone("bert")
    made = inserted(folder, AdaLora(rank=6, target_rank=1, alpha=8))
    values = iter([0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    trained = fit(made, epochs=8, patience=8, validate=lambda: next(values))
    assert trained.best_step == 2
    ranks = [sum(kept) for kept in kept_values(made.model).values()]
    assert sum(ranks) > len(ranks)
    fresh = reloaded(made, folder, tmp_path)
    torch.testing.assert_close(logits(fresh), logits(made), rtol=1e-5, atol=1e-6)


def test_adaloras_penalty_is_pefts(tiny_backbone):
    made = inserted(tiny_backbone("bert"), AdaLora(rank=6, target_rank=3, orthogonality=0.3))
    inputs, labels = batch(made)
    output = made.model(**inputs, labels=labels)
    plain = torch.nn.functional.cross_entropy(output.logits, labels)
    torch.testing.assert_close(orthogonality_penalty(made.model), output.loss - plain)
    assert orthogonality_penalty(inserted(tiny_backbone("bert"), AdaLora(orthogonality=0)).model) is None


@pytest.mark.parametrize("settings", [{"rank": 4, "target_rank": 4}, {"initial_share": 0.6, "final_share": 0.5}])
def test_adalora_must_have_something_to_drop(settings):
    with pytest.raises(ValidationError):
        AdaLora(**settings)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_adalora_in_very_few_steps(steps, tiny_backbone):
    made = inserted(tiny_backbone("bert"), AdaLora(rank=4, target_rank=2))
    assert fit(made, epochs=2, max_steps=steps).num_steps == steps


def test_ia3_scales_the_inside_of_the_feed_forward_alone(tiny_backbone):
    made = inserted(tiny_backbone("bert"), Ia3())
    layers = {name: module for name, module in made.model.named_modules() if hasattr(module, "is_feedforward")}
    inside = {name.split("layer.")[1][2:] for name, module in layers.items() if module.is_feedforward}
    assert inside == {"output.dense"}
    assert {name.split("layer.")[1][2:] for name in layers} == {"attention.self.key", "attention.self.value", *inside}


def recipe(strategy, **sections):
    return {"backbone": "b", "task": "t", "strategy": strategy} | sections


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"peft_type": "LORA", "lora_alfa": 8}, "lora_alfa: unknown key (did you mean 'lora_alpha'?)"),
        ({"peft_type": "LOAR"}, "peft_type: got 'LOAR' (did you mean 'LORA'?)"),
        ({"r": 8}, "peft_type: got None"),
        ({"peft_type": "XLORA"}, "can't train the head"),
        ("nowhere/adapter_config.json", "nowhere/adapter_config.json can't be read"),
    ],
)
def test_faults_of_a_peft_config(config, told):
    with pytest.raises(InputError) as caught:
        parse_recipe(recipe({"kind": "peft", "config": config}))
    assert "strategy.config" in str(caught.value)
    assert told in str(caught.value)


def test_file_that_is_no_json(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        parse_recipe(recipe({"kind": "peft", "config": str(tmp_path / "adapter_config.json")}))


def test_recipe_holds_what_the_file_says(tmp_path):
    config = {
        "peft_type": "LOHA",
        "r": 4,
        "target_modules": ["query"],
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    strategy = parse_recipe(recipe({"kind": "peft", "config": str(tmp_path / "adapter_config.json")})).strategy
    assert strategy.config == {"peft_type": "LOHA", "r": 4, "target_modules": ["query"]}
    assert strategy.describe() == "LOHA r=4"


@pytest.mark.parametrize("names", [["query", "up"], ["q_proj", "up_proj"]])
def test_peft_takes_sites_and_names(names, tiny_backbone):
    made = inserted(tiny_backbone("llama"), Peft(config={"peft_type": "LORA", "r": 2, "target_modules": names}))
    adapted = {name.split(".lora_A")[0].split(".")[-1] for name, _ in made.model.named_parameters() if "lora_A" in name}
    assert adapted == {"q_proj", "up_proj"}
    assert any("score.modules_to_save" in name for name, one in made.model.named_parameters() if one.requires_grad)


def test_what_peft_refuses_is_refused(tiny_backbone):
    with pytest.raises(
        RefusedError, match=r"strategy\.config: PEFT refuses this LORA on a bert model: .*LayerNorm.* is not supported"
    ):
        inserted(tiny_backbone("bert"), Peft(config={"peft_type": "LORA", "target_modules": ["LayerNorm"]}))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["querry"], r"target_modules: 'querry' matches nothing in a 'bert' model \(did you mean 'query'"),
        (["query", "nowhere"], r"target_modules: 'nowhere' matches nothing"),
        (r".*layer\.9\..*query", r"target_modules: '.*' matches nothing"),
    ],
)
def test_a_name_that_matches_nothing_is_the_users_to_mend(names, words, tiny_backbone):
    with pytest.raises(InputError, match=words) as raised:
        inserted(tiny_backbone("bert"), Peft(config={"peft_type": "LORA", "target_modules": names}))
    assert not isinstance(raised.value, RefusedError), "PEFT does not refuse the method"


@pytest.mark.parametrize("names", [["layer.1.attention.self.query", "down"], r".*\.1\..*query", "all-linear"])
def test_names_are_taken_as_peft_takes_them(names, tiny_backbone):
    made = inserted(tiny_backbone("bert"), Peft(config={"peft_type": "LORA", "target_modules": names}))
    assert any("layer.1" in name and "lora_A" in name for name, _ in made.model.named_parameters())


def test_peft_prefix_has_prefix_tunings_limits(tiny_backbone):
    strategy = Peft(config={"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4})
    with pytest.raises(RefusedError, match="does not fit"):
        load(tiny_backbone("t5"), strategy)
    made = load(tiny_backbone("bert"), strategy)
    with pytest.raises(RefusedError, match="gradient_checkpointing"):
        assembly.insert(made, True, 0)


@pytest.mark.parametrize(
    "config",
    [
        {"peft_type": "IA3", "target_modules": ["key", "down"], "feedforward_modules": ["down"]},
        {"peft_type": "ADALORA", "init_r": 4, "target_r": 2, "total_step": 8, "tfinal": 2, "target_modules": ["value"]},
        {"peft_type": "BOFT", "boft_block_size": 4, "target_modules": ["query"]},
        {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4},
        {"peft_type": "P_TUNING", "num_virtual_tokens": 4, "encoder_hidden_size": 8},
        {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4},
    ],
    ids=lambda config: config["peft_type"],
)
@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_peft_trains_and_saves_other_methods(config, architecture, tiny_backbone, tmp_path):
    folder = tiny_backbone(architecture)
    made = inserted(folder, Peft(config=config))
    alone = [made.model.eval()(**Collated(made.tokenizer, encoded(made), CPU)([index])[0]).logits for index in (0, 1)]
    torch.testing.assert_close(logits(made)[:2], torch.cat(alone), rtol=1e-4, atol=1e-5)
    fit(made)
    fresh = reloaded(made, folder, tmp_path)
    torch.testing.assert_close(logits(fresh), logits(made), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit", "paged_adamw_8bit", "sgd"])
def test_lora_plus_gives_b_its_own_rate(optimizer, tiny_backbone):
    made = inserted(tiny_backbone("bert"), Lora())
    training = Training(learning_rate=1e-3, lora_plus_ratio=16, weight_decay=0.1, optimizer=optimizer)
    rates = {
        id(one): group["lr"] for group in make_optimizer(made.model, training).param_groups for one in group["params"]
    }
    names = {name: rates[id(one)] for name, one in made.model.named_parameters() if one.requires_grad}
    assert {rate for name, rate in names.items() if "lora_A" in name} == {1e-3}
    assert {rate for name, rate in names.items() if "lora_B" in name} == {1.6e-2}
