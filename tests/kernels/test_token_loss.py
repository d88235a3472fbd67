"""The loss in pieces is the plain loss, and never holds all logits."""

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, Gemma2Config

from pewb.batching import IGNORED
from pewb.heads.causal_lm import NextTokens
from pewb.kernels import token_loss
from pewb.kernels.token_loss import summed_token_loss, token_losses
from pewb.measurement.memory import LiveTensors
from pewb.tasks import CausalLm

ROWS, HIDDEN, VOCABULARY = 400, 16, 700


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(token_loss, "_PIECE_BYTES", 4 * VOCABULARY * 70)


def parts(dtype=torch.float32, trained=True):
    torch.manual_seed(0)
    head = torch.nn.Linear(HIDDEN, VOCABULARY, dtype=dtype).requires_grad_(trained)
    states = torch.randn(ROWS, HIDDEN, dtype=dtype, requires_grad=True)
    return states, head, torch.randint(VOCABULARY, (ROWS,))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("trained", [True, False])
def test_losses_and_gradients_are_those_of_all_logits_at_once(trained, smoothing):
    states, head, targets = parts(trained=trained)
    wanted = [states, *(head.parameters() if trained else [])]
    plain = functional.cross_entropy(head(states), targets, reduction="sum", label_smoothing=smoothing)
    loss = summed_token_loss(states, head, targets, smoothing)
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(torch.autograd.grad(loss / 7, wanted), torch.autograd.grad(plain / 7, wanted))
    each = functional.cross_entropy(head(states), targets, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(token_losses(states, head, targets, smoothing), each.detach())


def test_under_autocast_it_rounds_as_the_plain_loss_does():
    states, head, targets = parts()
    with torch.autocast("cpu", torch.bfloat16):
        plain = functional.cross_entropy(head(states).float(), targets, reduction="sum")
        loss = summed_token_loss(states, head, targets)
    torch.testing.assert_close(loss, plain)
    wanted = [states, head.weight]
    found, expected = torch.autograd.grad(loss, wanted), torch.autograd.grad(plain, wanted)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


def test_all_logits_are_never_there_at_once():
    states, head, targets = parts(trained=False)
    with LiveTensors([states, *head.parameters(), targets]) as mode:
        before = mode.live_bytes
        summed_token_loss(states, head, targets).backward()
    assert mode.peak_bytes - before < 4 * ROWS * VOCABULARY


def test_a_model_that_does_more_to_its_logits_is_asked_for_them():
    """Gemma 2 caps them: what its head reads does not tell the loss."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        final_logit_softcapping=0.5,
    )
    model = AutoModelForCausalLM.from_config(config)
    ids = torch.randint(3, 50, (2, 9))
    labels = ids.clone()
    labels[0, :5] = IGNORED
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for _ in range(2):
        loss = NextTokens(CausalLm()).losses(model, inputs, labels)
        expected = model(**inputs, labels=labels).loss * (labels[:, 1:] != IGNORED).sum()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
