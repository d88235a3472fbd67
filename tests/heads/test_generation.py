"""What a model writes is what it would write alone, and is held against what was wanted as the libraries do it."""

import pytest
import torch

from pewb import assembly
from pewb.errors import InputError, RefusedError
from pewb.evaluation.written import answer_in, written_metrics
from pewb.generation import Written, check_generation, check_room, generate
from pewb.recipe import Generation
from pewb.reporting import Silent
from pewb.strategies import strategies
from pewb.tasks import CausalLm, TextClassification
from tests.heads.families import FAMILIES
from tests.heads.test_families import Made, folder_of, training_of

CPU = torch.device("cpu")
GREEDY = Generation(max_new_tokens=6)


def written(made, generation=GREEDY, batch_size=8, model=None):
    return generate(
        model or made.assembled.model,
        made.assembled.tokenizer,
        made.task,
        made.judged.data,
        generation,
        CPU,
        batch_size,
        torch.no_grad,
        Silent(),
        "writing",
    )


def trained(form, architecture, strategy, tiny_language_model, epochs=40, rate=1e-2):
    training = training_of(rate, epochs=epochs)
    made = Made(form, folder_of(form, architecture, None, tiny_language_model), strategy, training)
    assembly.insert(made.assembled, False, 0)
    made.fit(training)
    return made


@pytest.mark.parametrize(
    ("form", "architecture"), [("causal_lm", "llama"), ("causal_lm", "gpt2"), ("chat", "llama"), ("seq2seq", "t5")]
)
def test_what_was_learned_by_heart_is_written(form, architecture, tiny_language_model):
    made = trained(form, architecture, strategies()["full"](), tiny_language_model)
    texts = written(made)
    assert texts == written(made, batch_size=1), "in a batch as alone"
    losses = made.predicted()
    told = Written.of(losses, texts, made.task, made.judged.data)
    assert told.metrics()["exact_match"].value == 1
    assert told.metrics()["loss"] == losses.metrics()["loss"]
    assert told.warnings() == []
    assert told.table().columns == ["loss", "tokens", "wanted", "written"]
    if form != "chat":
        assert {row[-1] for row in told.table().rows} == {"it was good"}


@pytest.mark.parametrize(
    "strategy", ["lora", "prompt_tuning", "p_tuning", "prefix_tuning", "ia3", "bottleneck_adapter"]
)
@pytest.mark.parametrize(("form", "architecture"), [("causal_lm", "llama"), ("seq2seq", "t5")])
def test_every_kind_of_strategy_writes_as_it_predicts(form, architecture, strategy, tiny_language_model):
    """Each token that is written greedily is the likeliest of a forward pass without a cache."""
    keys = {"num_virtual_tokens": 4} if strategy in ("prompt_tuning", "p_tuning", "prefix_tuning") else {}
    try:
        made = trained(form, architecture, strategies()[strategy](**keys), tiny_language_model, epochs=4, rate=3e-2)
    except RefusedError as error:
        assert "does not fit" in str(error)
        return
    model, tokenizer = made.assembled.model, made.assembled.tokenizer
    row = made.judged.data.features[2]
    is_decoder = form == "causal_lm"
    prompt = (
        [token for token, label in zip(row["input_ids"], row["labels"], strict=False) if label == -100]
        if is_decoder
        else row["input_ids"]
    )
    model.eval()
    expected: list[int] = []
    with torch.no_grad():
        for _ in range(GREEDY.max_new_tokens):
            if is_decoder:
                logits = model(input_ids=torch.tensor([prompt + expected])).logits
            else:
                logits = model(
                    input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[0, *expected]])
                ).logits
            expected.append(int(logits[0, -1].argmax()))
            if expected[-1] == tokenizer.eos_token_id:
                break
    assert written(made)[2] == tokenizer.decode(expected, skip_special_tokens=True).strip()


def test_of_the_backbones_own_settings_none_counts(tiny_language_model):
    made = trained("causal_lm", "llama", strategies()["full"](), tiny_language_model)
    texts = written(made)
    own = made.assembled.model.generation_config
    own.min_length, own.no_repeat_ngram_size, own.suppress_tokens = 40, 1, [16]
    assert written(made) == texts


def test_there_must_be_room_for_what_is_written(tiny_language_model):
    made = Made("causal_lm", tiny_language_model("gpt2"), strategies()["lora"](), training_of(1e-3))
    longest = max(made.judged.data.lengths)
    check_room(made.task, made.judged.data, Generation(max_new_tokens=64 - longest), 64, 0)
    check_room(made.task, made.judged.data, Generation(max_new_tokens=640), None, 0)
    with pytest.raises(InputError, match=f"allowed: up to {64 - longest - 4}, or lower"):
        check_room(made.task, made.judged.data, Generation(max_new_tokens=64 - longest), 64, 4)


def test_drawn_texts_are_seeded(tiny_language_model):
    training = training_of(1e-2)
    made = Made("causal_lm", tiny_language_model("llama"), strategies()["lora"](), training)
    drawn = Generation(max_new_tokens=6, temperature=1.0, top_p=0.9)
    assert written(made, drawn) == written(made, drawn)
    assert written(made, drawn) != written(made, drawn.model_copy(update={"seed": 1}))
    with pytest.raises(ValueError, match="tokens are drawn only with a temperature"):
        Generation(top_p=0.9)


def test_plain_text_and_classes_have_nothing_to_be_written():
    for task, message in (
        (CausalLm(), "plain text has no prompt"),
        (TextClassification(), "has no text to be written"),
    ):
        with pytest.raises(InputError, match=message):
            check_generation(task)
    check_generation(FAMILIES["chat"][0])


@pytest.mark.parametrize(
    ("text", "pattern", "answer"),
    [
        ("so 6 * 7 = 42\n#### 42", r"####\s*(-?[\d,.]+)", "42"),
        ("#### 1,234.", r"####\s*(-?[\d,.]+)", "1234"),
        ("3 then 4", r"\d", "4"),
        ("no number", r"\d", ""),
        ("  plain \n", None, "plain"),
    ],
)
def test_answers_in_texts(text, pattern, answer):
    assert answer_in(text, pattern) == answer


def test_metrics_are_the_libraries_own():
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer

    written_texts = ["the cat sat on the mat", "a dull film", "", "the plots were good\nand great"]
    wanted = ["the cat is on the mat", "a very dull film", "nothing", "the plot was good\nand great"]
    found = written_metrics(written_texts, wanted, is_translated=True)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeLsum"], use_stemmer=True)
    scores = [scorer.score(one, other) for one, other in zip(wanted, written_texts, strict=True)]
    for theirs, ours in (("rouge1", "rouge_1"), ("rouge2", "rouge_2"), ("rougeLsum", "rouge_l")):
        assert found[ours].value == pytest.approx(sum(score[theirs].fmeasure for score in scores) / 4)
    assert found["sacrebleu"].value == pytest.approx(sacrebleu.corpus_bleu(written_texts, [wanted]).score)
    assert found["chrf"].value == pytest.approx(sacrebleu.corpus_chrf(written_texts, [wanted]).score)
    assert found["exact_match"].value == 0
    assert found["length_ratio"].value == pytest.approx(15 / 17)
    assert all(metric.low <= metric.value <= metric.high for metric in found.values())
