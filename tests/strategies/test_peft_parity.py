"""Every strategy that PEFT implements trains as a plain PEFT + transformers loop does: the same losses, step by step."""

import pytest
import torch
from accelerate import Accelerator
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
)
from peft.optimizers import create_loraplus_optimizer
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, get_scheduler

from pewb import assembly
from pewb.batching import Collated
from pewb.device import Computing
from pewb.measurement.memory import PhaseMemory
from pewb.recipe import Quantization, Training
from pewb.reporting import Silent
from pewb.strategies import strategies
from pewb.training.loop import Trained, train
from tests.conftest import SENTENCES
from tests.encoding import encode

LABELS = ["negative", "positive"]
CLASSES = [LABELS.index(label) for _, label in SENTENCES]
NUM_STEPS = 20
RATE = 1e-2
TRAINING = Training(
    epochs=NUM_STEPS,
    batch_size=len(SENTENCES),  # one batch an epoch: its order does not matter
    max_tokens=16,
    learning_rate=RATE,
    schedule="cosine",
    warmup_ratio=0.1,
    dropout=0.0,
    weight_decay=0.1,
)
TOLERANCE = 1e-5

QUERY_VALUE = {"bert": ["query", "value"], "llama": ["q_proj", "v_proj"]}
HEAD = {"bert": ["classifier", "pooler"], "llama": ["score"]}
FEED_FORWARD = {"bert": r".*\d\.output\.dense", "llama": r".*down_proj"}
KEY_VALUE = {"bert": "key|value", "llama": "k_proj|v_proj"}


def ia3(architecture):
    down = FEED_FORWARD[architecture]
    return IA3Config(target_modules=f".*({KEY_VALUE[architecture]})|{down}", feedforward_modules=down)


def lora(**settings):
    return lambda architecture: LoraConfig(r=4, lora_alpha=8, target_modules=QUERY_VALUE[architecture], **settings)


def on_query_value(kind, **settings):
    return lambda architecture: kind(target_modules=QUERY_VALUE[architecture], **settings)


RANK = {"rank": 4, "alpha": 8}
METHODS = {
    "lora": ({"kind": "lora", **RANK}, lora()),
    "lora rslora": ({"kind": "lora", "variant": "rslora", **RANK}, lora(use_rslora=True)),
    "lora dora": ({"kind": "lora", "variant": "dora", **RANK}, lora(use_dora=True)),
    "lora pissa": ({"kind": "lora", "variant": "pissa", **RANK}, lora(init_lora_weights="pissa")),
    "lora olora": ({"kind": "lora", "variant": "olora", **RANK}, lora(init_lora_weights="olora")),
    "lora top 1": ({"kind": "lora", "top_layers": 1, **RANK}, lora(layers_to_transform=[1])),
    "adalora": (
        {"kind": "adalora", "rank": 6, "target_rank": 4, "alpha": 8, "initial_share": 0.2, "final_share": 0.3},
        on_query_value(
            AdaLoraConfig,
            init_r=6,
            target_r=4,
            lora_alpha=8,
            tinit=4,
            tfinal=6,
            total_step=NUM_STEPS,
            orth_reg_weight=0.1,
        ),
    ),
    "vera": ({"kind": "vera", "rank": 16}, on_query_value(VeraConfig, r=16)),
    "loha": ({"kind": "loha", **RANK}, on_query_value(LoHaConfig, r=4, alpha=8)),
    "lokr": ({"kind": "lokr", **RANK}, on_query_value(LoKrConfig, r=4, alpha=8)),
    "oft": ({"kind": "oft", "block_size": 8}, on_query_value(OFTConfig, oft_block_size=8)),
    "ia3": ({"kind": "ia3"}, ia3),
    "prefix_tuning": (
        {"kind": "prefix_tuning", "num_virtual_tokens": 4},
        lambda _: PrefixTuningConfig(num_virtual_tokens=4),
    ),
    "prompt_tuning": (
        {"kind": "prompt_tuning", "num_virtual_tokens": 4},
        lambda _: PromptTuningConfig(num_virtual_tokens=4, prompt_tuning_init="SAMPLE_VOCAB"),
    ),
    "p_tuning": (
        {"kind": "p_tuning", "num_virtual_tokens": 4, "encoder_width": 16},
        lambda _: PromptEncoderConfig(num_virtual_tokens=4, encoder_hidden_size=16),
    ),
    "peft": (
        {
            "kind": "peft",
            "config": {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["query", "value"]},
        },
        lora(),
    ),
}
PROMPTS = ("prompt_tuning", "p_tuning")
"""pewb puts these elsewhere than PEFT does."""


@pytest.fixture(scope="module")
def lively_backbone(tiny_backbone, tmp_path_factory):
    """Return a function from an architecture's name to a tiny backbone whose weights are large enough to learn in 20 steps."""
    made = {}

    def build(architecture):
        if architecture not in made:
            source, made[architecture] = tiny_backbone(architecture), tmp_path_factory.mktemp(f"lively-{architecture}")
            model = AutoModel.from_pretrained(source)
            with torch.no_grad():
                for one in model.parameters():
                    if one.ndim > 1:
                        one.mul_(5)
            model.save_pretrained(made[architecture])
            AutoTokenizer.from_pretrained(source).save_pretrained(made[architecture])
        return made[architecture]

    return build


def losses_of_pewb(folder, strategy, texts, training=TRAINING):
    """Return the losses that pewb's assembly and loop tell."""
    kind = strategies()[strategy["kind"]](**strategy)
    computing = Computing(torch.device("cpu"), "fp32", torch.float32)
    made = assembly.load("tiny", folder, LABELS, kind, Quantization(), training, computing, seed=0)
    assembly.insert(made, False, 0)
    data = encode(made.tokenizer, [(text,) for text in texts], CLASSES, training.max_tokens)
    trained = Trained()
    train(
        made.model,
        made.strategy,
        Collated(made.tokenizer, data, torch.device("cpu")),
        training,
        0,
        Accelerator(cpu=True),
        lambda: 0.0,
        PhaseMemory(torch.device("cpu")),
        Silent(),
        trained,
    )
    return [loss for _, loss in trained.loss]


def plain_model(folder, architecture, config):
    """Return transformers' model with PEFT's adapter, both drawn from the same seed as pewb's."""
    torch.manual_seed(0)
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} if architecture == "bert" else {}
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=2, dtype=torch.float32, use_cache=False, **dropout
    )
    model.config.pad_token_id = 0 if architecture == "bert" else 4
    config.task_type = "SEQ_CLS"
    config.modules_to_save = HEAD[architecture]
    torch.manual_seed(0)
    return get_peft_model(model, config)


def plain_inputs(folder, architecture, texts):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer(texts, padding=True, return_tensors="pt") | {"labels": torch.tensor(CLASSES)}


def adamw(model):
    trained = [one for one in model.parameters() if one.requires_grad]
    matrices = [one for one in trained if min(one.shape) > 1 and one.ndim > 1]
    vectors = [one for one in trained if min(one.shape) == 1 or one.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=RATE)


def losses_of_a_plain_loop(model, forward, optimizer):
    """Return the cross-entropies of 20 steps; what PEFT adds to the model's own loss is in the gradient."""
    schedule = get_scheduler("cosine", optimizer, num_warmup_steps=2, num_training_steps=NUM_STEPS)
    labels = torch.tensor(CLASSES)
    model.train()
    losses = []
    for step in range(1, NUM_STEPS + 1):
        output = forward()
        losses.append(torch.nn.functional.cross_entropy(output.logits, labels).item())
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_([one for one in model.parameters() if one.requires_grad], 1.0)
        optimizer.step()
        schedule.step()
        if hasattr(model.base_model, "rankallocator"):
            model.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    return losses


@pytest.mark.parametrize("architecture", ["bert", "llama"])
@pytest.mark.parametrize("name", [name for name in METHODS if name not in PROMPTS])
def test_losses_are_those_of_a_plain_loop(name, architecture, lively_backbone):
    folder = lively_backbone(architecture)
    strategy, config = METHODS[name]
    texts = [text for text, _ in SENTENCES]
    model = plain_model(folder, architecture, config(architecture))
    inputs = plain_inputs(folder, architecture, texts)
    plain = losses_of_a_plain_loop(model, lambda: model(**inputs), adamw(model))
    ours = losses_of_pewb(folder, strategy, texts)
    assert len(ours) == NUM_STEPS
    assert ours == pytest.approx(plain, abs=TOLERANCE)
    assert max(ours) - min(ours) > 1e-2, "nothing was learnt, so that nothing was compared"


@pytest.mark.parametrize("name", PROMPTS)
def test_losses_of_a_prompt_before_a_decoder(name, lively_backbone):
    """Without padding, PEFT too has the prompt next to the text."""
    folder = lively_backbone("llama")
    strategy, config = METHODS[name]
    texts = [" ".join(text.split()[:2]) for text, _ in SENTENCES]
    model = plain_model(folder, "llama", config("llama"))
    inputs = plain_inputs(folder, "llama", texts)
    assert inputs["attention_mask"].all()
    plain = losses_of_a_plain_loop(model, lambda: model(**inputs), adamw(model))
    assert losses_of_pewb(folder, strategy, texts) == pytest.approx(plain, abs=TOLERANCE)


@pytest.mark.parametrize("name", PROMPTS)
def test_losses_of_a_prompt_behind_cls(name, lively_backbone):
    """PEFT's prompt, put behind [CLS] by hand: the text's embeddings are cut after their first token."""
    folder = lively_backbone("bert")
    strategy, config = METHODS[name]
    texts = [text for text, _ in SENTENCES]
    model = plain_model(folder, "bert", config("bert"))
    inputs = plain_inputs(folder, "bert", texts)
    count = strategy["num_virtual_tokens"]

    def forward():
        words = model.word_embeddings(inputs["input_ids"])
        prompt = model.get_prompt(batch_size=len(texts))
        mask = inputs["attention_mask"]
        return model.base_model(
            inputs_embeds=torch.cat([words[:, :1], prompt, words[:, 1:]], dim=1),
            attention_mask=torch.cat([mask.new_ones(len(texts), count), mask], dim=1),
            labels=inputs["labels"],
        )

    plain = losses_of_a_plain_loop(model, forward, adamw(model))
    assert losses_of_pewb(folder, strategy, texts) == pytest.approx(plain, abs=TOLERANCE)


def test_every_strategy_of_pefts_is_compared():
    from pewb.strategies.peft_engine import PeftStrategy

    compared = {strategy["kind"] for strategy, _ in METHODS.values()}
    assert compared == {name for name, kind in strategies().items() if issubclass(kind, PeftStrategy)}
    variants = {strategy.get("variant", "plain") for strategy, _ in METHODS.values() if strategy["kind"] == "lora"}
    assert variants | {"loftq"} == {settings["variant"] for settings in strategies()["lora"].variants()}


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_lora_plus_is_pefts(architecture, lively_backbone):
    folder = lively_backbone(architecture)
    strategy, config = METHODS["lora"]
    texts = [text for text, _ in SENTENCES]
    model = plain_model(folder, architecture, config(architecture))
    inputs = plain_inputs(folder, architecture, texts)
    optimizer = create_loraplus_optimizer(
        model, torch.optim.AdamW, lr=RATE, loraplus_lr_ratio=4.0, loraplus_weight_decay=0.1
    )
    plain = losses_of_a_plain_loop(model, lambda: model(**inputs), optimizer)
    training = TRAINING.model_copy(update={"lora_plus_ratio": 4.0})
    ours = losses_of_pewb(folder, strategy, texts, training)
    assert ours == pytest.approx(plain, abs=TOLERANCE)
    assert ours[-1] != pytest.approx(losses_of_pewb(folder, strategy, texts)[-1], abs=1e-3)
