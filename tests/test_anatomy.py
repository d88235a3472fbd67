"""Anatomy, on the architectures that transformers has a sequence-classification head for, built small."""

import inspect
from functools import cache

import pytest
import torch
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from pewb.anatomy import Anatomy, anatomy_of, longest_input
from pewb.errors import RefusedError

LAYERS = (
    "num_hidden_layers",
    "num_layers",
    "num_decoder_layers",
    "n_layer",
    "n_layers",
    "encoder_layers",
    "decoder_layers",
)
SIZES = {
    64: ("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "pooler_hidden_size"),
    96: ("intermediate_size", "hidden_dim", "d_ff", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "n_inner"),
    32: ("moe_intermediate_size", "shared_expert_intermediate_size"),
    16: ("head_dim", "d_kv", "rotary_dim"),
    4: ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads"),
    2: ("num_key_value_heads", "num_kv_heads", "num_experts", "num_local_experts", "num_experts_per_tok"),
    300: ("vocab_size",),
    40: ("max_position_embeddings", "n_positions", "max_seq_len"),
}  # fmt: skip


def small(model_type: str, only_layers: bool = False):
    config = AutoConfig.for_model(model_type)
    values = dict.fromkeys(LAYERS, 2)
    if not only_layers:
        values |= {key: size for size, keys in SIZES.items() for key in keys}
        values |= {"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
        padding = config.get_text_config().pad_token_id
        values |= {"pad_token_id": 0} if padding is None or padding >= 300 else {}
    for part in (config, *(value for value in vars(config).values() if hasattr(value, "model_type"))):
        for key, value in values.items():
            is_settable = not isinstance(getattr(type(part), key, None), property)
            if is_settable and (getattr(part, key, None) is not None or key.endswith("token_id")):
                setattr(part, key, value)
        for key in ("layer_types", "mlp_layer_types"):
            if getattr(part, key, None):
                setattr(part, key, list(getattr(part, key))[:2])
    config.num_labels = 2
    config.use_cache = False
    return config


def anatomy(model) -> Anatomy:
    return anatomy_of(model.config, [name for name, _ in model.named_parameters()], model.base_model_prefix)


def virtual(config):
    with torch.device("meta"):
        return MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)](config)


@cache
def virtual_anatomy(model_type: str) -> Anatomy:
    return anatomy(virtual(small(model_type, only_layers=True)))


BERT = ("attention.self.query", "attention.self.value", "attention.output.dense", "intermediate.dense", "output.dense")
LLAMA = ("self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
BART = ("self_attn.q_proj", "self_attn.v_proj", "self_attn.out_proj", "fc1", "fc2")
T5 = ("SelfAttention.q", "SelfAttention.v", "SelfAttention.o", "DenseReluDense.wi", "DenseReluDense.wo")
GATED_T5 = (*T5[:3], "DenseReluDense.wi_1", "DenseReluDense.wo")
NEOX = ("query_key_value", "query_key_value", "dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
LATENT = ("self_attn.q_b_proj", "self_attn.kv_b_proj", *LLAMA[2:])
EXPERTS = (*LLAMA[:3], None, None)
POOLED = "bert.pooler classifier"
LIKE_LLAMA = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3", "olmo2", "stablelm")

# model type: where query, value, attention_output, up and down end; the head; the layers' lists
EXPECTED = {
    "bert": (BERT, POOLED, "bert.encoder.layer"),
    "electra": (BERT, "classifier", "electra.encoder.layer"),
    "roberta": (BERT, "classifier", "roberta.encoder.layer"),
    "xlm-roberta": (BERT, "classifier", "roberta.encoder.layer"),
    "camembert": (BERT, "classifier", "roberta.encoder.layer"),
    "big_bird": (BERT, "classifier", "bert.encoder.layer"),  # its pooler is there, but its head has its own
    "distilbert": (
        ("q_lin", "v_lin", "out_lin", "ffn.lin1", "ffn.lin2"),
        "pre_classifier classifier",
        "distilbert.transformer.layer",
    ),
    "albert": (
        ("attention.query", "attention.value", "attention.dense", "ffn", "ffn_output"),
        "albert.pooler classifier",
        "albert.encoder.albert_layer_groups",
    ),
    "mpnet": (("attn.q", "attn.v", "attn.o", *BERT[3:]), "classifier", "mpnet.encoder.layer"),
    "deberta": (("self.in_proj", "self.in_proj", *BERT[2:]), "pooler classifier", "deberta.encoder.layer"),
    "deberta-v2": (("query_proj", "value_proj", *BERT[2:]), "pooler classifier", "deberta.encoder.layer"),
    "modernbert": (("attn.Wqkv", "attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"), "head classifier", "model.layers"),
    "eurobert": (LLAMA, "dense classifier", "model.layers"),
    "bart": (BART, "classification_head", "model.encoder.layers model.decoder.layers"),
    "mbart": (BART, "classification_head", "model.encoder.layers model.decoder.layers"),
    "t5": (T5, "classification_head", "transformer.encoder.block transformer.decoder.block"),
    "mt5": (GATED_T5, "classification_head", "transformer.encoder.block transformer.decoder.block"),
    "t5gemma": (LLAMA, "score", "model.encoder.layers model.decoder.layers"),
    "gpt2": (("c_attn", "c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"), "score", "transformer.h"),
    "gpt_neo": (("q_proj", "v_proj", "out_proj", "mlp.c_fc", "mlp.c_proj"), "score", "transformer.h"),
    "gptj": (("q_proj", "v_proj", "out_proj", "mlp.fc_in", "mlp.fc_out"), "score", "transformer.h"),
    "gpt_neox": (NEOX, "score", "gpt_neox.layers"),
    "bloom": (NEOX, "score", "transformer.h"),
    "falcon": (NEOX, "score", "transformer.h"),
    "opt": (BART, "score", "model.decoder.layers"),
    "phi": ((*LLAMA[:2], "self_attn.dense", "mlp.fc1", "mlp.fc2"), "score", "model.layers"),
    "phi3": (("qkv_proj", "qkv_proj", "o_proj", "mlp.gate_up_proj", "mlp.down_proj"), "score", "model.layers"),
    **dict.fromkeys(LIKE_LLAMA, (LLAMA, "score", "model.layers")),
    "gemma3": (LLAMA, "score", "model.language_model.layers"),  # its images' tower is left alone
    "mixtral": (EXPERTS, "score", "model.layers"),
    "qwen3_moe": (EXPERTS, "score", "model.layers"),
    "deepseek_v3": (LATENT, "score", "model.layers"),
    "modernbert-decoder": (("q_proj", "v_proj", "attn.Wo", "mlp.Wi", "mlp.Wo"), "head classifier", "model.layers"),
}  # fmt: skip
DECODERS = set(EXPECTED) - {
    "bert", "electra", "roberta", "xlm-roberta", "camembert", "big_bird", "distilbert", "albert", "mpnet", "deberta",
    "deberta-v2", "modernbert", "eurobert", "bart", "mbart", "t5", "mt5", "t5gemma",
}  # fmt: skip
ENCODER_DECODERS = {"bart", "mbart", "t5", "mt5", "t5gemma"}


@pytest.mark.parametrize("model_type", EXPECTED)
def test_sites_head_and_layers(model_type):
    found = virtual_anatomy(model_type)
    endings, head, stacks = EXPECTED[model_type]
    assert found.head == tuple(head.split())
    assert [stack.path for stack in found.stacks] == stacks.split()
    assert {stack.num_layers for stack in found.stacks} == {1 if model_type == "albert" else 2}
    for site, ending in zip(("query", "value", "attention_output", "up", "down"), endings, strict=True):
        if ending is None:
            with pytest.raises(RefusedError, match=f"the site '{site}' matches nothing"):
                found.modules([site])
            continue
        names = found.modules([site])
        in_layer = [name for name in names if name.startswith(f"{found.top_stack.path}.0.")]
        assert [name for name in in_layer if name.endswith("." + ending)] and all(
            name.startswith(tuple(stack.path for stack in found.stacks)) for name in names
        ), names
        assert {name.split(".")[-1] for name in names} == {ending.split(".")[-1]}
    assert found.is_encoder is (model_type not in DECODERS | ENCODER_DECODERS)
    assert found.is_encoder_decoder is (model_type in ENCODER_DECODERS)


@pytest.mark.parametrize("model_type", [name for name in EXPECTED if name not in ("deepseek_v3", "gptj", "t5gemma")])
def test_head_and_sites_are_what_a_text_reaches(model_type):
    torch.manual_seed(0)
    config = small(model_type)
    model = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)](config)
    found = anatomy(model)
    inputs = torch.tensor([[*range(10, 20), 2]] * 2)
    model(input_ids=inputs, attention_mask=torch.ones_like(inputs)).logits.square().sum().backward()
    sites = {name for names in found.site_modules.values() for name in names}
    modules = dict(model.named_modules())
    assert all(isinstance(modules[name], (torch.nn.Linear, Conv1D)) for name in sites)
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not [name for name in idle if name.startswith(tuple(part + "." for part in found.head))]
    assert not [name for name in idle if name.removesuffix(".weight") in sites]
    new = [name for name, _ in model.named_parameters() if not name.startswith(model.base_model_prefix + ".")]
    assert all(name.startswith(tuple(part + "." for part in found.head)) for name in new)


def test_one_fused_projection_stands_for_each_of_its_sites():
    found = virtual_anatomy("gpt2")
    assert found.modules(["query", "value"]) == ["transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn"]
    assert found.fused(["query", "value", "up"]) == ["query", "value"]
    assert virtual_anatomy("bert").fused(["query", "value"]) == []


def test_a_fused_projection_stands_only_where_a_block_has_none_of_its_own():
    latent = virtual_anatomy("deepseek_v3")
    assert latent.fused(["query", "value"]) == ["value"]
    names = [f"model.layers.{layer}.self_attn.{name}.weight" for layer, name in enumerate(["q_proj", "qkv_proj"])]
    mixed = anatomy_of(small("llama"), [*names, "score.weight"], "model")
    assert mixed.modules(["query"]) == [name.removesuffix(".weight") for name in names]


def test_layers_are_counted_from_the_head():
    assert virtual_anatomy("bert").layer_modules(1) == ["bert.encoder.layer.1"]
    assert virtual_anatomy("t5").layer_modules(1) == ["transformer.decoder.block.1"]
    assert virtual_anatomy("xlm").layer_modules(1) == ["transformer.attentions.1", "transformer.ffns.1"]


def test_a_missing_site_names_the_nearest():
    with pytest.raises(
        RefusedError, match=r"'qurey' matches nothing in a bert model \(did you mean 'query'.*it has query"
    ):
        virtual_anatomy("bert").modules(["qurey"])


@pytest.mark.parametrize(("model_type", "part"), [("xlnet", "layers"), ("perceiver", "head")])
def test_what_can_not_be_told_is_refused(model_type, part):
    names = {
        "xlnet": ["transformer.layer.0.rel_attn.q", "logits_proj.weight"],
        "perceiver": ["perceiver.encoder.self_attends.0.attention.self.query.weight", "perceiver.decoder.x.weight"],
    }
    with pytest.raises(RefusedError, match=f"can't tell the {part} of a '{model_type}'"):
        anatomy_of(
            type("Config", (), {"model_type": model_type}),
            names[model_type],
            {"xlnet": "transformer"}.get(model_type, model_type),
        )


TABLES = ("bert", "roberta", "xlm-roberta", "camembert", "mpnet", "distilbert", "electra", "albert", "ibert", "luke")
TABLES += ("markuplm", "longformer", "data2vec-text", "gpt2", "opt", "biogpt", "bart")


@pytest.mark.parametrize("model_type", TABLES)
def test_longest_input_is_what_the_position_table_reads(model_type):
    config = small(model_type)
    model = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)](config).eval()
    longest = longest_input(config.to_dict())
    assert longest is not None and 36 <= longest <= 40

    def read(length: int):
        inputs = torch.full((1, length), 10)
        inputs[:, -1] = 2
        with torch.no_grad():
            model(input_ids=inputs, attention_mask=torch.ones_like(inputs))

    read(longest)
    with pytest.raises((IndexError, RuntimeError)):
        read(longest + 1)


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 0}, 513),
        ({"model_type": "mpnet", "max_position_embeddings": 514, "relative_attention_num_buckets": 32}, 512),
        ({"model_type": "t5", "n_positions": 512, "relative_attention_num_buckets": 32}, None),
        ({"model_type": "gemma3", "text_config": {"max_position_embeddings": 4096}}, 4096),
        ({"model_type": "bloom"}, None),
    ],
)
def test_longest_input_of_a_configuration(config, longest):
    assert longest_input(config) == longest


REFUSED = {"ctrl", "funnel", "jetmoe", "perceiver", "xlnet"}
NO_UP_AND_DOWN = {"gpt_oss", "minimax", "mixtral", "phimoe", "qwen3_moe", "squeezebert", "zamba", "zamba2", "reformer"}
NO_ATTENTION = {"fnet", "zamba", "zamba2"}


@pytest.mark.slow
@pytest.mark.parametrize("model_type", MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
def test_every_architecture(model_type):
    """A new transformers release that brings an architecture pewb does not know fails here."""
    try:
        model = virtual(small(model_type, only_layers=True))
    except (TypeError, KeyError, AttributeError, ImportError, NotImplementedError) as error:
        pytest.skip(f"its default configuration can't be shrunk: {error}")
    if model_type in REFUSED:
        with pytest.raises(RefusedError):
            anatomy(model)
        return
    found = anatomy(model)
    for site in ("query", "value"):
        assert model_type in NO_ATTENTION or found.modules([site])
    for site in ("up", "down"):
        assert model_type in NO_UP_AND_DOWN or found.modules([site])
    source = inspect.getsource(type(model).forward) + "".join(
        inspect.getsource(one.forward)
        for one in type(model).__mro__
        if one.__name__ == "GenericForSequenceClassification"
    )
    reads_last = "last_non_pad_token" in source or "sequence_lengths" in source
    assert found.is_encoder is not (reads_last or found.is_encoder_decoder)
    assert all(list(model.get_submodule(part).parameters()) for part in found.head)
