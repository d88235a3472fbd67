"""Backbones from files: tokenizers and padding, damaged and missing files, GGUF, and tasks of every shape."""

import json
import shutil

import pytest
import torch
from accelerate import Accelerator
from tokenizers import processors
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BartConfig,
    BartModel,
    DistilBertConfig,
    Gemma3Config,
    ModernBertConfig,
)

from pewb import assembly
from pewb.assets import fetch
from pewb.backbone import Blueprint, build_virtual, check_length, load_backbone, load_tokenizer, read_blueprint
from pewb.batching import Collated
from pewb.device import Computing
from pewb.errors import InputError
from pewb.heads import head_of
from pewb.quantization import is_quantized, num_weights, quantization_config
from pewb.recipe import Quantization, Training
from pewb.strategies.lora import Lora
from pewb.tasks import TextClassification
from pewb.training.step import Stepper
from tests.encoding import encode
from tests.tiny_backbones import CONFIGURATIONS, DECODERS, SIZE, tokenizer_for

LABELS = ["negative", "positive"]
CPU = torch.device("cpu")
COMPUTING = Computing(CPU, "fp32", torch.float32)


@pytest.fixture
def folder(tiny_backbone, tmp_path):
    """Return a function to a copy of a tiny backbone's folder, with keys of its config.json replaced."""

    def copy(architecture="bert", **keys):
        target = tmp_path / architecture
        shutil.copytree(tiny_backbone(architecture), target)
        config = json.loads((target / "config.json").read_text())
        (target / "config.json").write_text(json.dumps(config | keys))
        return target

    return copy


def load_whole(folder):
    blueprint = read_blueprint(folder, LABELS)
    load_tokenizer(blueprint, "right")
    return load_backbone(blueprint, None, CPU)


@pytest.mark.parametrize("architecture", CONFIGURATIONS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_pad_token_and_padding_side(architecture, side, tiny_backbone):
    blueprint = read_blueprint(tiny_backbone(architecture), LABELS)
    tokenizer = load_tokenizer(blueprint, side)
    assert tokenizer.pad_token == ("</s>" if architecture in DECODERS else "[PAD]")
    assert blueprint.config.pad_token_id == tokenizer.pad_token_id
    assert tokenizer.padding_side == (side if architecture in DECODERS else "right")


def test_a_pad_token_that_the_model_has_no_embedding_for_is_not_used(folder):
    where = folder("llama")
    tokenizer = tokenizer_for("llama")
    tokenizer.add_tokens([f"new{number}" for number in range(SIZE)])
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    assert tokenizer.pad_token_id >= SIZE
    tokenizer.save_pretrained(where)
    blueprint = read_blueprint(where, LABELS)
    assert load_tokenizer(blueprint, "right").pad_token == "</s>"
    load_backbone(blueprint, None, CPU)


def test_no_pad_token_and_nothing_to_stand_for_it(folder):
    where = folder("llama")
    tokenizer = tokenizer_for("llama")
    tokenizer.eos_token = tokenizer.unk_token = None
    tokenizer.save_pretrained(where)
    with pytest.raises(InputError, match="neither a pad token nor an end token; add one to"):
        load_tokenizer(read_blueprint(where, LABELS), "right")


def test_the_text_part_of_a_multi_modal_configuration_is_told_the_pad_token(tmp_path):
    config = Gemma3Config()
    config.text_config.pad_token_id = None
    tokenizer_for("llama").save_pretrained(tmp_path)
    anatomy = type("Anatomy", (), {"is_encoder": False, "is_encoder_decoder": False, "reads_every_token": False})
    load_tokenizer(Blueprint(tmp_path, None, config, None, anatomy), "right")
    assert config.get_text_config().pad_token_id == 4


def test_a_pickle_is_refused(folder):
    where = folder()
    (where / "model.safetensors").unlink()
    (where / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    with pytest.raises(InputError, match=r"only as a pickle \(pytorch_model.bin\), which can run code"):
        fetch("backbone", str(where))
    with pytest.raises(InputError, match=r"the weights in .* can't be loaded"):
        load_whole(where)


def remove_tokenizer(where):
    for path in where.glob("tokenizer*"):
        path.unlink()


def _without(file, part):
    """Leave out of a file of weights those whose name has `part`."""
    from safetensors.torch import load_file, save_file

    save_file({name: one for name, one in load_file(file).items() if part not in name}, file)


FAULTS = {
    "no tokenizer": (remove_tokenizer, {}, "has no tokenizer; put the files"),
    "broken tokenizer": (lambda where: (where / "tokenizer.json").write_text("{"), {}, "no tokenizer can be read"),
    "half the weights": (
        lambda where: (where / "model.safetensors").write_bytes((where / "model.safetensors").read_bytes()[:9000]),
        {},
        "the weights in .* can't be loaded: .*; fetch them again",
    ),
    "no numbers": (
        lambda where: (where / "model.safetensors").write_bytes(b"<html>not found</html>"),
        {},
        "can't be loaded",
    ),
    "nothing": (lambda where: (where / "model.safetensors").write_bytes(b""), {}, "can't be loaded"),
    "no weights": (lambda where: (where / "model.safetensors").unlink(), {}, "can't be loaded"),
    "no configuration": (lambda where: (where / "config.json").unlink(), {}, "the configuration in .* can't be read"),
    "broken configuration": (lambda where: (where / "config.json").write_text("{"), {}, "can't be read"),
    "too wide": (None, {"hidden_size": 64}, "in another shape"),
    "no embeddings": (
        lambda where: _without(where / "model.safetensors", "embeddings."),
        {},
        "lack 'bert.embeddings",
    ),
    "too many layers": (None, {"num_hidden_layers": 3}, r"lack 'bert.encoder.layer.2.*\(16 such tensors\)"),
    "another model's": (None, {"model_type": "distilbert"}, "lack 'distilbert.transformer"),
    "heads do not divide": (None, {"num_attention_heads": 5}, "no model can be built .*not a multiple"),
    "a word for a number": (None, {"num_hidden_layers": "two"}, "expected int, got str"),
    "no such activation": (None, {"hidden_act": "nosuch"}, "KeyError 'nosuch'"),
    "no such type": (None, {"model_type": "nosuch"}, "does not recognize this architecture"),
    "its own code": (None, {"model_type": "nosuch", "auto_map": {"AutoConfig": "x.Y"}}, "contains custom code"),
    "no head": (None, {"model_type": "vit"}, "no sequence classification head for 'vit'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_files_are_one_message(fault, folder):
    damage, keys, message = FAULTS[fault]
    where = folder(**keys)
    if damage:
        damage(where)
    with pytest.raises(InputError, match=f"^backbone: .*{message}") as caught:
        load_whole(where)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_a_head_for_other_classes_is_drawn_anew(folder):
    where = folder()
    model = AutoModelForSequenceClassification.from_pretrained(where, num_labels=5)
    model.save_pretrained(where)
    assert load_whole(where).classifier.weight.shape == (2, 32)


@pytest.mark.parametrize(
    ("architecture", "longest"), [("bert", 64), ("roberta", 65), ("gpt2", 64), ("llama", 2048), ("t5", None)]
)
def test_inputs_longer_than_the_position_table_are_refused(architecture, longest, tiny_backbone):
    blueprint = read_blueprint(tiny_backbone(architecture), LABELS)
    if longest is None:
        check_length(blueprint, 10**6, 0)
        return
    check_length(blueprint, longest - 8, 8)
    with pytest.raises(InputError, match=rf"training.max_tokens: {longest + 1} are more than the {longest} tokens"):
        check_length(blueprint, longest + 1, 0)
    with pytest.raises(InputError, match=rf"and 8 virtual tokens are more than .* allowed: up to {longest - 8}$"):
        check_length(blueprint, longest, 8)


def test_roberta_reads_512_tokens(tmp_path):
    AutoConfig.for_model("roberta", max_position_embeddings=514, num_hidden_layers=1).save_pretrained(tmp_path)
    blueprint = read_blueprint(tmp_path, LABELS)
    check_length(blueprint, 512, 0)
    with pytest.raises(InputError, match="513 are more than the 512 tokens"):
        check_length(blueprint, 513, 0)


MORE = {
    "distilbert": lambda: DistilBertConfig(n_layers=1),
    "modernbert": lambda: ModernBertConfig(num_hidden_layers=1),
    "bart": lambda: BartConfig(encoder_layers=1, decoder_layers=1),
    "electra": lambda: AutoConfig.for_model("electra", num_hidden_layers=1),
    "gpt_neo": lambda: AutoConfig.for_model("gpt_neo", num_layers=2, attention_types=[[["global"], 2]]),
    "phi": lambda: AutoConfig.for_model("phi", num_hidden_layers=1),
}


@pytest.mark.parametrize("architecture", [*CONFIGURATIONS, *MORE])
def test_dropout_reaches_every_layer_of_it(architecture, tmp_path):
    (CONFIGURATIONS | MORE)[architecture]().save_pretrained(tmp_path)
    blueprint = read_blueprint(tmp_path, LABELS, dropout=0.3)
    model = build_virtual(blueprint.model_class, blueprint.config)
    dropouts = {name: module.p for name, module in model.named_modules() if isinstance(module, torch.nn.Dropout)}
    assert set(dropouts.values()) <= {0.3}, dropouts
    assert dropouts or architecture == "llama"
    assert all(getattr(module, "attention_dropout", 0.3) in (0.3, None) or callable(module.attention_dropout)
               for module in model.modules())  # fmt: skip


def test_no_dropout_setting_leaves_the_configuration_alone(tiny_backbone):
    config = read_blueprint(tiny_backbone("bert"), LABELS).config
    assert config.hidden_dropout_prob == 0.1
    assert config.layer_norm_eps == 1e-12


@pytest.fixture
def tiny_bart(tmp_path):
    sizes = {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "encoder_attention_heads": 4}
    config = BartConfig(
        **sizes, decoder_attention_heads=4, encoder_layers=2, decoder_layers=2, vocab_size=SIZE,
        max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2,
        forced_eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    BartModel(config).save_pretrained(tmp_path / "bart")
    tokenizer = tokenizer_for("bert")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.save_pretrained(tmp_path / "bart")
    return tmp_path / "bart"


PAIRS = [("a good film", "it is good"), ("a bad film", "the cast was very good"), ("the plot", "it was dull and bad")]


@pytest.mark.parametrize("architecture", ["bert", "roberta", "t5", "llama", "gpt2", "bart"])
@pytest.mark.parametrize("is_pair", [False, True])
def test_three_classes_and_pairs_train(architecture, is_pair, tiny_backbone, tiny_bart):
    where = tiny_bart if architecture == "bart" else tiny_backbone(architecture)
    training = Training(max_tokens=16, dropout=0.0, learning_rate=1e-2)
    strategy = Lora(rank=2)
    labels = ["yes", "maybe", "no"]
    assembled = assembly.load("tiny", where, labels, strategy, Quantization(), training, COMPUTING, 0)
    assembly.insert(assembled, False, 0)
    texts = PAIRS if is_pair else [pair[:1] for pair in PAIRS]
    data = encode(assembled.tokenizer, texts, [0, 1, 2], 16)
    assert data.num_cut == 0
    model = assembled.model
    inputs, _ = Collated(assembled.tokenizer, data, CPU)(range(3))
    model.eval()
    with torch.no_grad():
        together = model(**inputs).logits
        alone = [model(**Collated(assembled.tokenizer, data, CPU)([index])[0]).logits for index in range(3)]
    assert together.shape == (3, 3)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)

    before = {name: one.detach().clone() for name, one in model.named_parameters() if one.requires_grad}
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], 1e-2)
    model.train()
    stepper = Stepper(
        model,
        assembled.strategy,
        Collated(assembled.tokenizer, data, CPU),
        head_of(TextClassification()),
        optimizer,
        Accelerator(cpu=True),
        training,
        2,
    )
    first, *_, last = [stepper.step(range(3)) for _ in range(8)]
    assert last < first
    assert not [name for name, one in model.named_parameters() if name in before and torch.equal(one, before[name])]


@pytest.mark.assets
def test_the_real_gguf(tmp_path):
    where = fetch("backbone", "smollm2-135m-instruct-q4_1").folder
    blueprint = read_blueprint(where, LABELS)
    tokenizer = load_tokenizer(blueprint, "right")
    assert tokenizer.pad_token_id is not None
    assert blueprint.config.pad_token_id == tokenizer.pad_token_id
    texts = [("a truly wonderful film",), ("dull , dull , and then some more of the same",)]
    torch.manual_seed(0)
    model = load_backbone(blueprint, None, CPU).eval()
    assert {one.dtype for one in model.parameters()} == {torch.float32}
    data = encode(tokenizer, texts, [1, 0], 32)
    inputs, _ = Collated(tokenizer, data, CPU)(range(2))
    with torch.no_grad():
        plain = model(**inputs).logits
        alone = [model(**Collated(tokenizer, data, CPU)([index])[0]).logits for index in range(2)]
    torch.testing.assert_close(plain, torch.cat(alone), rtol=1e-3, atol=1e-3)

    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = load_backbone(read_blueprint(tmp_path, LABELS), None, CPU).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(**inputs).logits, plain)
    del again

    adapted = Lora(rank=2).apply(model, blueprint.anatomy)
    assert sum("lora_A" in name for name, _ in adapted.named_parameters()) == 2 * 30
    with torch.no_grad():
        torch.testing.assert_close(adapted(**inputs).logits, plain)
    del adapted, model


@pytest.mark.assets
def test_the_real_gguf_in_4_bits():
    blueprint = read_blueprint(fetch("backbone", "smollm2-135m-instruct-q4_1").folder, LABELS)
    blueprint.config.num_hidden_layers = 2  # to be quick
    config = quantization_config(Quantization(kind="nf4"), blueprint.anatomy.head, torch.float32)
    quantized = load_backbone(blueprint, config, CPU)
    query = quantized.get_submodule(blueprint.anatomy.modules(["query"])[0])
    assert is_quantized(query.weight)
    assert num_weights(query.weight) == 576 * 576
    assert not is_quantized(quantized.score.weight)
    with torch.no_grad():
        assert torch.isfinite(quantized.eval()(input_ids=torch.tensor([[1, 2, 3]])).logits).all()
