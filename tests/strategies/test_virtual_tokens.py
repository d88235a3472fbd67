"""Prefix and prompt tuning on encoders: the virtual tokens are read, learn, and leave the rest where it was."""

import pytest
import torch

from pewb import assembly
from tests.strategies.test_conformance import batch, fit, load, logits, method_called, one_by_one

ENCODERS = ("bert", "roberta")
NUM_VIRTUAL_TOKENS = 4


def inserted(folder, strategy: str) -> assembly.Assembly:
    """Return a backbone with `strategy`; its matrices are ten times what is drawn, so that attention matters."""
    assembled = load(folder, method_called(strategy))
    with torch.no_grad():
        for parameter in assembled.model.parameters():
            parameter.mul_(10 if parameter.dim() == 2 else 1)
    assembly.insert(assembled, False, 0)
    return assembled


def virtual_tokens(assembled: assembly.Assembly) -> torch.nn.Parameter:
    """Return what is trained of the virtual tokens, (virtual tokens, width)."""
    return assembled.model.prompt_encoder["default"].embedding.weight


def seen_by_backbone(assembled: assembly.Assembly) -> dict:
    """Return what the backbone is called with, and the hidden states that it gives, in one forward."""
    seen = {}

    def watch(_module, _positional, arguments, outputs) -> None:
        seen.update(arguments, last_hidden_state=outputs[0], outputs=outputs)

    backbone = assembled.model.base_model.get_submodule(assembled.anatomy.base)
    handle = backbone.register_forward_hook(watch, with_kwargs=True)
    seen["logits"] = logits(assembled)
    handle.remove()
    return seen


@pytest.mark.parametrize("strategy", ["prefix_tuning", "prompt_tuning", "mam"])
@pytest.mark.parametrize("architecture", ENCODERS)
def test_gradients_reach_every_virtual_token(architecture, strategy, tiny_backbone):
    assembled = inserted(tiny_backbone(architecture), strategy)
    inputs, labels = batch(assembled)
    torch.nn.functional.cross_entropy(assembled.model(**inputs).logits, labels).backward()
    gradient = virtual_tokens(assembled).grad
    assert gradient.shape[0] == NUM_VIRTUAL_TOKENS
    assert (gradient.abs().amax(dim=1) > 1e-4).all()
    if strategy != "prompt_tuning":  # keys and values of every layer
        parts = gradient.view(NUM_VIRTUAL_TOKENS, 2 * 2, -1)
        assert (parts.abs().amax(dim=2) > 1e-5).all()


@pytest.mark.parametrize("strategy", ["prefix_tuning", "prompt_tuning"])
@pytest.mark.parametrize("architecture", ENCODERS)
def test_virtual_tokens_alone_learn(architecture, strategy, tiny_backbone):
    """With the head frozen as it was drawn, the loss falls by the virtual tokens' doing."""
    assembled = inserted(tiny_backbone(architecture), strategy)
    for parameter in assembled.model.parameters():
        parameter.requires_grad_(parameter is virtual_tokens(assembled))
    trained = fit(assembled, method_called(strategy), epochs=15)
    losses = [loss for _, loss in trained.loss]
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])


@pytest.mark.parametrize("strategy", ["prefix_tuning", "prompt_tuning", "mam"])
@pytest.mark.parametrize("architecture", ENCODERS)
def test_the_head_reads_cls(architecture, strategy, tiny_backbone):
    assembled = inserted(tiny_backbone(architecture), strategy)
    inputs, _ = batch(assembled)
    seen = seen_by_backbone(assembled)
    if strategy == "prompt_tuning":
        embeddings = assembled.model.base_model.get_input_embeddings()
        cls = embeddings(inputs["input_ids"][:, 0])
        torch.testing.assert_close(seen["inputs_embeds"][:, 0], cls)
        torch.testing.assert_close(seen["inputs_embeds"][0, 1 : 1 + NUM_VIRTUAL_TOKENS], virtual_tokens(assembled))
        expected = inputs["input_ids"].shape[1] + NUM_VIRTUAL_TOKENS
        assert seen["last_hidden_state"].shape[1] == (1 if architecture in ("bert", "roberta") else expected)
    else:
        assert torch.equal(seen["input_ids"], inputs["input_ids"])
        assert seen["last_hidden_state"].shape[1] == inputs["input_ids"].shape[1]
    first = seen["last_hidden_state"][:, 0]
    model = assembled.model.base_model
    with torch.no_grad():
        read = model.classifier(seen["outputs"][1]) if architecture == "bert" else model.classifier(first[:, None])
        if architecture == "bert":
            torch.testing.assert_close(seen["outputs"][1], model.get_submodule("bert.pooler")(first[:, None]))
    torch.testing.assert_close(read, seen["logits"])


@pytest.mark.parametrize("strategy", ["prefix_tuning", "prompt_tuning"])
def test_masks_and_token_types_grow_along(strategy, tiny_backbone):
    """A second sentence keeps its token type, a virtual token has the first's, and padding stays masked."""
    assembled = inserted(tiny_backbone("bert"), strategy)
    tokenizer = assembled.tokenizer
    pairs = tokenizer(
        ["good film", "a bad film"],
        ["it was great", "dull"],
        padding=True,
        return_token_type_ids=True,
        return_tensors="pt",
    )
    assert pairs["token_type_ids"].any()
    seen = {}
    backbone = assembled.model.base_model.get_submodule("bert")
    backbone.register_forward_pre_hook(lambda _module, _positional, given: seen.update(given), with_kwargs=True)
    with torch.no_grad():
        assembled.model(**pairs)
    added = 0 if strategy == "prefix_tuning" else NUM_VIRTUAL_TOKENS
    tokens = pairs["input_ids"].shape[1]
    assert seen["attention_mask"].shape == (2, tokens + NUM_VIRTUAL_TOKENS)
    assert torch.equal(seen["attention_mask"].sum(1).long(), pairs["attention_mask"].sum(1) + NUM_VIRTUAL_TOKENS)
    assert seen["token_type_ids"].shape == (2, tokens + added)
    assert torch.equal(seen["token_type_ids"][:, 1 + added :], pairs["token_type_ids"][:, 1:])
    assert not seen["token_type_ids"][:, : 1 + added].any()


@pytest.mark.parametrize("strategy", ["prefix_tuning", "prompt_tuning", "mam"])
@pytest.mark.parametrize("architecture", [*ENCODERS, "llama", "gpt2"])
def test_padding_and_earlier_forwards_leave_no_trace(architecture, strategy, tiny_backbone):
    """Batched or alone, first or again, after training too: the cache that carries the prefix is made anew each time."""
    assembled = inserted(tiny_backbone(architecture), strategy)
    fit(assembled, method_called(strategy), epochs=2)
    first = logits(assembled)
    torch.testing.assert_close(one_by_one(assembled), first, rtol=1e-4, atol=1e-5)
    assert torch.equal(logits(assembled), first)
    caches = [seen_by_backbone(assembled).get("past_key_values") for _ in range(2)]
    assert caches == [None, None] if strategy == "prompt_tuning" else caches[0] is not caches[1]


class PrefixAttention(torch.nn.Module):
    """BERT's self-attention with a prefix in plain torch: softmax(Q [P_k; K]ᵀ / √d) [P_v; V]."""

    def __init__(self, attention, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.attention = attention
        self.keys = torch.nn.Parameter(keys.clone())
        self.values = torch.nn.Parameter(values.clone())
        self.mask = None

    def forward(self, hidden, *_positional, **_arguments):
        heads, width = self.keys.shape[0], self.keys.shape[2]
        batch_size, tokens, _ = hidden.shape
        query, key, value = (
            projection(hidden).view(batch_size, tokens, heads, width).transpose(1, 2)
            for projection in (self.attention.query, self.attention.key, self.attention.value)
        )
        key = torch.cat([self.keys.expand(batch_size, -1, -1, -1), key], dim=2)
        value = torch.cat([self.values.expand(batch_size, -1, -1, -1), value], dim=2)
        scores = query @ key.transpose(2, 3) / width**0.5
        is_prefix = self.mask.new_ones(batch_size, self.keys.shape[1])
        visible = torch.cat([is_prefix, self.mask], dim=1).bool()[:, None, None, :]
        weights = scores.masked_fill(~visible, -torch.inf).softmax(dim=-1)
        return (weights @ value).transpose(1, 2).reshape(batch_size, tokens, -1), weights


def by_hand(assembled: assembly.Assembly) -> torch.nn.Module:
    """Return plain BERT with the prefix of `assembled` in its attentions; it and the head are trainable."""
    from transformers import BertForSequenceClassification

    wrapped = assembled.model.base_model
    model = BertForSequenceClassification(wrapped.config)
    weights = {
        name.replace(".modules_to_save.default", ""): tensor
        for name, tensor in wrapped.state_dict().items()
        if ".original_module." not in name
    }
    model.load_state_dict(weights)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(("classifier.", "bert.pooler.")))
    heads = wrapped.config.num_attention_heads
    prefix = virtual_tokens(assembled).detach()
    prefix = prefix.view(NUM_VIRTUAL_TOKENS, len(model.bert.encoder.layer), 2, heads, -1).permute(1, 2, 3, 0, 4)
    for layer, (keys, values) in zip(model.bert.encoder.layer, prefix, strict=True):
        layer.attention.self = PrefixAttention(layer.attention.self, keys, values)
    return model


def by_hand_logits(model, inputs) -> torch.Tensor:
    for layer in model.bert.encoder.layer:
        layer.attention.self.mask = inputs["attention_mask"]
    positions = torch.arange(inputs["input_ids"].shape[1]) + NUM_VIRTUAL_TOKENS
    return model(**inputs, position_ids=positions[None]).logits


def losses_of(model, compute, inputs, labels) -> list[float]:
    """Return the losses of 20 steps of AdamW on one half of the batch and the other by turns."""
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], 1e-2, weight_decay=0)
    model.train()
    losses = []
    for step in range(20):
        half = slice(step % 2, None, 2)
        loss = torch.nn.functional.cross_entropy(
            compute({name: tensor[half] for name, tensor in inputs.items()}), labels[half]
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_prefix_tuning_is_attention_with_a_prefix_by_hand(tiny_backbone):
    assembled = inserted(tiny_backbone("bert"), "prefix_tuning")
    reference = by_hand(assembled)
    inputs, labels = batch(assembled)
    expected = losses_of(reference, lambda part: by_hand_logits(reference, part), inputs, labels)
    ours = losses_of(assembled.model, lambda part: assembled.model(**part).logits, inputs, labels)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    assert ours[-1] < ours[0]
