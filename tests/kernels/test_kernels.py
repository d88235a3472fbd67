"""The faster ways give what the usual ones give."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from pewb.kernels.attention import _attended, _in_pieces, attend_plainly, attention
from pewb.kernels.dropout import QuickDropout, draw_quickly, noise
from pewb.kernels.recompute import keep_less, recomputed
from tests.training.test_parity import CPU, assembled

HEADS = SimpleNamespace(num_key_value_groups=1, is_causal=False, training=True)


def tensors(kv_heads=4, dtype=torch.float32):
    torch.manual_seed(0)
    query = torch.randn(2, 4, 7, 8, dtype=dtype, requires_grad=True)
    key, value = (torch.randn(2, kv_heads, 7, 8, dtype=dtype, requires_grad=True) for _ in range(2))
    return query, key, value


@pytest.mark.parametrize("probability", [0.1, 0.5, 1e-6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_keeps_the_expectation(probability, dtype):
    """Of a million numbers, so that the share that is dropped is known to three standard errors."""
    torch.manual_seed(0)
    drawn = noise(torch.empty(1_000_003, dtype=dtype), probability)
    dropped = drawn == 0
    rounded = max(1, round(probability * 2**16)) / 2**16
    error = 3 * (rounded * (1 - rounded) / len(drawn)) ** 0.5
    assert dropped.float().mean().item() == pytest.approx(rounded, abs=error)
    assert drawn.dtype == dtype
    assert set(drawn.unique().tolist()) == {0.0, torch.tensor(1 / (1 - rounded), dtype=dtype).item()}
    together = (dropped[1:] & dropped[:-1]).float().mean().item()
    assert together == pytest.approx(rounded**2, abs=1e-3), "neighbours are independent"


def test_dropout_is_seeded_and_off_in_evaluation():
    module = nn.Sequential(nn.Dropout(0.3), nn.Dropout(0.0))
    draw_quickly(module)
    assert all(type(one) is QuickDropout for one in module)
    given = torch.ones(64, requires_grad=True)
    outputs = []
    for _ in range(2):
        torch.manual_seed(5)
        outputs.append(module(given))
    assert torch.equal(*outputs)
    assert 0 < (outputs[0] == 0).sum() < 64
    [gradient] = torch.autograd.grad(outputs[0].sum(), given)
    assert torch.equal(gradient, outputs[0]), "of ones, the gradient is the noise"
    assert torch.equal(module.eval()(given), given)


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("kind", ["causal", "padded", "additive", "everything", "one query"])
def test_attention_is_transformers_own(kind, kv_heads):
    """In bfloat16, where the plain way is taken, to its rounding; outputs and gradients."""
    module = SimpleNamespace(num_key_value_groups=4 // kv_heads, is_causal=kind == "causal", training=True)
    padded = torch.ones(2, 1, 7, 7, dtype=torch.bool)
    padded[0, ..., 5:] = False
    additive = torch.zeros(2, 1, 7, 7).masked_fill(~padded, torch.finfo(torch.float32).min)
    mask = {"padded": padded, "additive": additive}.get(kind)
    query, key, value = tensors(kv_heads, torch.bfloat16)
    if kind == "one query":
        query, mask = query[:, :, :1], padded[:, :, :1]
    expected, _ = sdpa_attention_forward(
        module, query.float(), key.float(), value.float(), mask, scaling=0.3, is_causal=kind == "causal"
    )
    found, _ = attention(module, query, key, value, mask, scaling=0.3)
    torch.testing.assert_close(found.float(), expected, rtol=0.03, atol=0.03)
    for one, other in zip(
        torch.autograd.grad(expected.square().sum(), (key, value)),
        torch.autograd.grad(found.float().square().sum(), (key, value)),
        strict=True,
    ):
        torch.testing.assert_close(other, one, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("kind", ["causal", "padded", "additive", "everything"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_long_texts_are_the_same_though_their_weights_are_not_kept(kind, dropout, monkeypatch):
    """In float32, to rounding; a few examples at a time, two heads of queries to one of keys."""
    monkeypatch.setattr("pewb.kernels.attention._PIECE_BYTES", 2 * 4 * 7 * 7 * 4)
    torch.manual_seed(0)
    query = torch.randn(3, 7, 4, 2).transpose(1, 2).requires_grad_()
    key, value = (torch.randn(3, 7, 2, 2).transpose(1, 2).requires_grad_() for _ in range(2))
    padded = torch.ones(3, 1, 7, 7, dtype=torch.bool)
    padded[1, ..., 5:] = False
    causal = torch.ones(7, 7, dtype=torch.bool).tril()
    additive = torch.zeros(3, 1, 7, 7).masked_fill(~padded, torch.finfo(torch.float32).min)
    mask = {"padded": padded, "additive": additive, "causal": causal}.get(kind)
    drawn = noise(torch.empty(3, 4, 7, 7), dropout) if dropout else None
    plain = _attended(query, key, value, mask, 0.3, drawn)
    spared = _in_pieces(query, key, value, mask, 0.3, drawn)
    torch.testing.assert_close(spared, plain)
    wanted = torch.randn_like(plain)
    for one, other in zip(
        torch.autograd.grad(spared, (query, key, value), wanted),
        torch.autograd.grad(plain, (query, key, value), wanted),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_the_weights_of_long_texts_are_not_kept():
    """Of 40 tokens in heads of 8, nothing as large as the weights waits for the backward; of 20 it does."""
    kept = {}
    for length in (20, 40):
        query, key, value = (torch.randn(2, 4, length, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda one, sizes=sizes: sizes.append(one.numel()), lambda one: one
        ):
            attention(HEADS, query, key, value, None)
        kept[length] = max(sizes) >= 2 * 4 * length**2
    assert kept == {20: True, 40: False}


def test_attention_drops_weights():
    """With values of one, an output is the sum of the weights that were kept, over the share that is kept."""
    query, key, _ = tensors()
    torch.manual_seed(0)
    found, _ = attention(HEADS, query, key, torch.ones(2, 4, 7, 8), None, dropout=0.5)
    torch.manual_seed(0)
    weights = functional.softmax(query @ key.transpose(2, 3) / 8**0.5, -1)
    kept = (weights * noise(weights, 0.5)).sum(-1)
    torch.testing.assert_close(found[..., 0].transpose(1, 2), kept)


def test_a_row_that_may_look_at_nothing_is_no_nan():
    query, key, value = tensors(dtype=torch.bfloat16)
    found, _ = attention(HEADS, query, key, value, torch.zeros(2, 1, 7, 7, dtype=torch.bool))
    assert found.isfinite().all()


@pytest.mark.parametrize("architecture", ["bert", "roberta", "deberta-v2", "llama", "gpt2", "t5"])
def test_the_model_says_what_transformers_model_says(architecture, tiny_backbone):
    """The last layer's one row, the attention and the dropout together: logits and gradients in float32."""
    from transformers import AutoModelForSequenceClassification

    from pewb.batching import Collated
    from pewb.recipe import Training
    from pewb.strategies.full import Full

    training = Training(max_tokens=16, learning_rate=1e-3)
    made, data = assembled(tiny_backbone(architecture), Full(), training)
    plain = AutoModelForSequenceClassification.from_pretrained(tiny_backbone(architecture), dtype=torch.float32)
    plain.config.pad_token_id = made.model.config.pad_token_id
    plain.load_state_dict(made.model.state_dict())
    inputs, labels = Collated(made.tokenizer, data, CPU)(range(len(data)))
    outcomes = []
    for model in (plain.eval(), made.model.eval()):
        logits = model(**inputs).logits
        functional.cross_entropy(logits, labels).backward()
        outcomes.append((logits, {name: one.grad for name, one in model.named_parameters() if one.grad is not None}))
    torch.testing.assert_close(outcomes[1], outcomes[0], rtol=1e-4, atol=1e-6)


def test_norms_and_gates_of_a_decoder_are_computed_again(tiny_backbone):
    """Gradients of every weight are those of the usual way, and what is kept is less."""
    from transformers import AutoModelForCausalLM

    outcomes = []
    for is_spared in (False, True):
        torch.manual_seed(0)  # the head is new
        model = AutoModelForCausalLM.from_pretrained(tiny_backbone("llama"), dtype=torch.bfloat16)
        if is_spared:
            keep_less(model)
        kept = {}
        ids = torch.arange(48).view(2, 24) % model.config.vocab_size

        def keep(tensor, kept=kept):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
            logits = model(input_ids=ids).logits
        logits.float().square().mean().backward()
        outcomes.append((logits, {name: one.grad for name, one in model.named_parameters()}, sum(kept.values())))
    (plain, gradients, most), (spared, same, less) = outcomes
    assert torch.equal(plain, spared)
    torch.testing.assert_close(same, gradients)
    assert less < most


def test_a_gated_part_that_does_more_stays_as_it_is():
    from transformers import SeedOssConfig
    from transformers.models.seed_oss.modeling_seed_oss import SeedOssMLP

    module = SeedOssMLP(SeedOssConfig(hidden_size=8, intermediate_size=16, residual_dropout=0.5))
    keep_less(module)
    assert "forward" not in vars(module), "it has a dropout"


def test_attention_that_asks_for_its_name_keeps_it():
    from transformers import DeepseekV32Config
    from transformers.models.deepseek_v32.modeling_deepseek_v32 import DeepseekV32Model

    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 8,
        "intermediate_size": 8,
    }
    with torch.device("meta"):
        model = DeepseekV32Model(
            DeepseekV32Config(**sizes, n_routed_experts=2, num_experts_per_tok=1, n_group=1, topk_group=1)
        )
    attend_plainly(model)
    assert model.config._attn_implementation == "sdpa"


def test_what_is_computed_again_knows_autocast_and_what_needs_no_gradient():
    weight = torch.randn(4, 4, requires_grad=True)
    given, frozen = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4)
    types = []

    def product(one, other):
        output = one @ weight + other
        types.append(output.dtype)
        return output

    with torch.autocast("cpu", torch.bfloat16):
        found = recomputed(product, given, frozen, parameters=[weight])
        expected = given @ weight + frozen
    wanted = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, (given, weight), wanted), torch.autograd.grad(expected, (given, weight), wanted)
    )
    assert types == [torch.float32, torch.float32]
    with torch.no_grad():
        assert not recomputed(product, given, frozen, parameters=[weight]).requires_grad
