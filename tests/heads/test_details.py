"""What must be right of each form: where labels stand, what becomes of long texts, what weighs how much."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.normalizers import Replace
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from pewb.batching import IGNORED
from pewb.errors import InputError
from pewb.evaluation.answers import exact_match, word_f1
from pewb.heads import head_of
from pewb.heads.spans import SpanPredictions
from pewb.heads.texts import separates_pairs
from pewb.recipe import Training
from pewb.tasks import (
    CausalLm,
    Examples,
    ExtractiveQa,
    MultipleChoice,
    Split,
    TextClassification,
    TextRegression,
    TokenClassification,
)
from tests.encoding import encode_split
from tests.heads.families import CHAT_TEMPLATE
from tests.tiny_backbones import tokenizer_for

WORDS = ["good", "films", "are", "not", "dull", "Rome", "was", "great"]
CPU = torch.device("cpu")


def letters_tokenizer(with_specials=True):
    """Return a tokenizer of bytes, as GPT-2's without merges: every letter is a token, and so is a space."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["[PAD]", "[CLS]", "[SEP]"]
    vocabulary = {token: number for number, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if with_specials:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", eos_token="[SEP]"
    )


SENTENCES = st.lists(
    st.lists(st.tuples(st.sampled_from(WORDS), st.integers(0, 2)), min_size=1, max_size=12), min_size=1, max_size=5
)


@settings(max_examples=40, deadline=None)
@given(SENTENCES, st.integers(8, 24), st.booleans())
def test_no_word_of_a_long_sentence_is_lost(sentences, max_tokens, with_specials):
    tokenizer = letters_tokenizer(with_specials)
    split = Split([tuple(w for w, _ in one) for one in sentences], [[t for _, t in one] for one in sentences])
    head = head_of(TokenClassification(), ["O", "B-X", "I-X"])
    data = head.encode(tokenizer, split, max_tokens)
    assert max(data.lengths) <= max_tokens
    assert sum(data.weights) == sum(map(len, split.texts))
    outputs = []
    for row in data.features:
        classes = torch.zeros(len(row["labels"]))
        for place, label in enumerate(row["labels"]):
            if label != IGNORED:
                classes[place] = label
        outputs.append(classes)
        told = tokenizer.decode(row["input_ids"], skip_special_tokens=True)
        sentence = split.texts[row["_sentence"]]
        assert told == " ".join(sentence[place] for place in row["_words"])
    assert head.predicted(outputs, data).predicted == split.labels


def test_a_label_stands_at_the_first_token_of_its_word():
    data = encode_split(TokenClassification, letters_tokenizer(), Split([("is", "Rome")], [[0, 1]]), 20)
    assert data.features[0]["labels"] == [IGNORED, 0, IGNORED, IGNORED, 1, *[IGNORED] * 4]
    assert data.num_cut == 0
    long = encode_split(TokenClassification, letters_tokenizer(), Split([("ab", "abcdefghijkl")], [[0, 1]]), 8)
    assert (long.num_cut, sum(long.weights)) == (1, 2), "a word that is too long alone is cut, and still judged"


def test_a_word_without_tokens_is_outside():
    tokenizer = tokenizer_for("bert")
    tokenizer.backend_tokenizer.normalizer = Replace("\u200b", "")
    head = head_of(TokenClassification(), ["B-X", "O"])
    data = head.encode(tokenizer, Split([("good", "\u200b", "film")], [[0, 0, 0]]), 16)
    classes = [torch.zeros(length) for length in data.lengths]
    assert head.predicted(classes, data).predicted[0] == [0, 1, 0]


CONTEXT = " ".join(f"word{number} is here and so on" for number in range(12)) + " Rome at last."


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 11), st.integers(40, 90), st.sampled_from([None, 0, 10]), st.booleans())
def test_windows_find_every_answer_again(number, max_tokens, stride, with_specials):
    text = f"word{number}"
    context_start = CONTEXT.index(f"{text} ")
    split = Split([("which?", CONTEXT)], [[(context_start, text)]])
    tokenizer = letters_tokenizer(with_specials)
    head = head_of(ExtractiveQa(stride=stride))
    data = head.encode(tokenizer, split, max_tokens)
    assert max(data.lengths) <= max_tokens
    holds = [row for row, label in enumerate(data.labels) if label != (0, 0)]
    if stride != 0:
        assert holds
    outputs = []
    for row, length in enumerate(data.lengths):
        logits = torch.full((length, 2), -5.0)
        logits[0] = 0.0
        if row in holds:
            start, end = data.labels[row]
            logits[start, 0], logits[end, 1] = 9.0, 9.0
        outputs.append(logits)
    predicted = head.predicted(outputs, data)
    if holds:
        assert predicted.predicted == [text]
        assert predicted.metrics()["exact_match"].value == 1


def test_a_span_is_never_longer_than_allowed_nor_backwards():
    data = encode_split(ExtractiveQa, letters_tokenizer(), Split([("q", "abcdef")], [[(0, "a")]]), 40)
    logits = torch.zeros(data.lengths[0], 2)
    first = data.features[0]["_first"]
    logits[first + 4, 0], logits[first + 1, 1] = 5.0, 5.1
    assert head_of(ExtractiveQa()).predicted([logits], data).spans[0] in ("ab", "ef", "e")
    logits[first, 0], logits[first + 5, 1] = 9.0, 9.0
    assert head_of(ExtractiveQa(longest_answer=2)).predicted([logits], data).spans[0] != "abcdef"
    assert head_of(ExtractiveQa()).predicted([logits], data).spans == ["abcdef"]


def test_a_character_of_several_tokens_is_an_answer():
    context = "駅は東 に ある"
    data = encode_split(ExtractiveQa, letters_tokenizer(), Split([("q", context)], [[(2, "東")]]), 60)
    start, end = data.labels[0]
    assert end - start == 2, "three bytes"
    logits = torch.zeros(data.lengths[0], 2)
    logits[start, 0], logits[end, 1] = 9.0, 9.0
    assert head_of(ExtractiveQa()).predicted([logits], data).spans == ["東"]


def test_the_threshold_is_the_best_there_is():
    generator = np.random.default_rng(0)
    doubts = generator.normal(size=60)
    answers = [[(0, "yes")] if one < 0.4 + generator.normal() * 0.5 else [] for one in doubts]
    predictions = SpanPredictions(["yes"] * 60, doubts, answers, 0.0)
    best = predictions.best_threshold()

    def f1(threshold):
        return SpanPredictions(["yes"] * 60, doubts, answers, threshold).metrics()["f1"].value

    reached = max(f1(threshold) for threshold in [doubts.min() - 1, *doubts])
    assert f1(best) == pytest.approx(reached)
    assert f1(best) > f1(0.0)


def test_a_question_may_go_unanswered_only_where_training_has_such():
    doubts, answers = np.array([-1.0, 5.0, 2.0]), [[(0, "yes")], [], [(0, "yes")]]
    split = Split([("q", "yes")] * 3, answers)
    every = Split(split.texts, [[(0, "yes")]] * 3)
    always = head_of(ExtractiveQa(), (), None, Examples([], every, split, split, []))
    told = SpanPredictions(["yes"] * 3, doubts, answers, always.threshold)
    assert told.predicted == ["yes"] * 3, "whatever the test examples have"
    assert always.calibrated(told).constants == {}
    sometimes = head_of(ExtractiveQa(), (), None, Examples([], split, split, split, []))
    told = SpanPredictions(["yes"] * 3, doubts, answers, sometimes.threshold)
    assert told.predicted == ["yes", "", ""]
    assert sometimes.calibrated(told).constants == {"no_answer_threshold": 3.5}
    numbers = Split([("a",), ("b",)], [1.0, 3.0])
    head = head_of(TextRegression(), (), None, Examples([], numbers, numbers, numbers, []))
    assert head.constants == {"mean": 2.0, "deviation": 1.0}


@pytest.mark.parametrize(
    ("stride", "max_tokens", "message"),
    [
        (None, 8, "8 leave no room for a context.*from 10 on"),
        (30, 40, "task.stride: 30 of 40 .*a question of 6; allowed: up to 29"),
    ],
)
def test_windows_that_would_hold_nothing_new(stride, max_tokens, message):
    split = Split([("which?", CONTEXT)], [[]])
    with pytest.raises(InputError, match=message):
        head_of(ExtractiveQa(stride=stride)).encode(letters_tokenizer(), split, max_tokens)
    allowed = 10 if stride is None else 40
    assert head_of(ExtractiveQa(stride=stride and 29)).encode(letters_tokenizer(), split, allowed).lengths[0] == allowed


def test_all_choices_go_on_from_the_same_end_of_a_prompt_and_none_is_cut():
    tokenizer = tokenizer_for("llama")
    split = Split([("the film was good and the cast", "bad", "was very great")], [1])
    head = head_of(MultipleChoice())
    data = head.encode(tokenizer, split, 7)
    start = 1 if tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id else 0
    prompts = [
        tokenizer.decode(row["input_ids"][start:]).rsplit(end, 1)[0]
        for row, end in zip(data.features, ("bad", "was very great"), strict=True)
    ]
    assert prompts[0] == prompts[1] and prompts[0].strip().endswith("the cast")
    assert data.weights == [1, 3], "no end token counts"
    assert (data.num_cut, len(data.split)) == (1, 1), "examples, not choices"
    assert head.encode_training(tokenizer, split, 7).weights == [3]
    with pytest.raises(InputError, match=r"a choice of 3 tokens leaves no room.*from 4 on"):
        head.encode(tokenizer, split, 3)


@pytest.mark.parametrize(
    ("predicted", "accepted", "exact", "f1"),
    [
        ("The Rome!", ["rome"], 1, 1),
        ("in Rome", ["Rome", "the city of Rome"], 0, 2 / 3),
        ("", [], 1, 1),
        ("Rome", [], 0, 0),
        ("", ["Rome"], 0, 0),
        ("a b b", ["b c b"], 0, 0.8),
    ],
)
def test_answers_are_compared_as_squads_script_does(predicted, accepted, exact, f1):
    assert exact_match(predicted, accepted) == exact
    assert word_f1(predicted, accepted) == pytest.approx(f1)


class Fixed:
    """A model that says what it is given."""

    def __init__(self, logits):
        self._logits = logits

    def __call__(self, **_):
        return type("Output", (), {"logits": self._logits})


def test_class_weights_are_torchs_and_balanced_ones_scikit_learns():
    torch.manual_seed(0)
    logits, labels = torch.randn(7, 3), [0, 0, 0, 0, 1, 1, 2]
    split = Split([("a film",)] * 7, labels)
    names = ["a", "b", "c"]
    training = Training(class_weights="balanced", label_smoothing=0.1)
    head = head_of(TextClassification(), names, training, Examples(names, split, split, split, []))
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert head.class_weights == pytest.approx(tuple(expected))
    data = head.encode(tokenizer_for("bert"), split, 8)
    targets = torch.tensor(labels)
    ours = head.losses(Fixed(logits), {}, targets) / sum(data.weights)
    weights = torch.tensor(head.class_weights)
    torch.testing.assert_close(ours, functional.cross_entropy(logits, targets, weights, label_smoothing=0.1))
    named = head_of(TextClassification(), names, Training(class_weights={"c": 4.0}))
    assert named.class_weights == (1.0, 1.0, 4.0)


def test_weights_are_of_classes_that_are_there():
    split = Split([("a film",), ("good",)], [0, 1])
    examples = Examples(["a", "b"], split, split, split, [])
    with pytest.raises(InputError, match="'d' is no class of the task"):
        head_of(TextClassification(), ["a", "b"], Training(class_weights={"d": 2.0}), examples)


def test_numbers_are_learned_on_a_scale_of_their_own_and_told_on_the_files():
    split = Split([("a film",), ("good",)], [100.0, 300.0])
    head = head_of(TextRegression(), (), None, Examples([], split, split, split, []))
    data = head.encode(tokenizer_for("bert"), split, 8)
    assert data.labels == [-1.0, 1.0]
    assert head.predicted([torch.tensor(-1.0), torch.tensor(0.5)], data).predicted == [100.0, 250.0]


def test_plain_text_becomes_blocks_of_which_every_token_is_learned():
    text = "the film was good and the cast was great and the plot was dull"
    for architecture in ("llama", "gpt2"):
        tokenizer = tokenizer_for(architecture)
        data = encode_split(CausalLm, tokenizer, Split([(text,), ("a film",)]), 5)
        assert max(data.lengths) == 5
        ids = tokenizer(text)["input_ids"]
        learned = [
            token
            for row in data.features
            if row["_example"] == 0
            for token, label in zip(row["input_ids"], row["labels"], strict=True)
            if label != IGNORED
        ]
        assert learned == [*ids[1:], tokenizer.eos_token_id], "all but the first, before which nothing stands"
        losses = head_of(CausalLm()).predicted([torch.tensor(1.0)] * len(data), data)
        assert losses.losses.tolist() == [len(data) - 1, 1]
        assert losses.num_tokens == [len(ids), 2]


def test_of_a_long_pair_the_prompts_beginning_goes_first():
    tokenizer = tokenizer_for("llama")
    prompt, completion = "the film was good and the cast", "was very great"
    task = lambda: CausalLm(prompt="prompt")  # noqa: E731
    data = encode_split(task, tokenizer, Split([(prompt, completion)]), 7)
    assert tokenizer.decode(data.features[0]["input_ids"]) == "and the cast was very great </s>"
    assert (data.num_cut, data.weights) == (1, [4])
    longest = encode_split(task, tokenizer, Split([(prompt, " ".join([completion] * 9))]), 8)
    assert tokenizer.decode(longest.features[0]["input_ids"]).startswith("the cast was very great")
    assert longest.lengths == [8]


def test_a_chat_goes_on_without_the_end_token_where_its_template_ends_turns_otherwise():
    tokenizer = tokenizer_for("llama")
    tokenizer.add_tokens(["[SEP]"], special_tokens=True)
    tokenizer.chat_template = CHAT_TEMPLATE.replace("{{ eos_token }}", " [SEP] ")
    split = Split([("good", "bad", "film", "plot")], [("user", "assistant", "user", "assistant")])
    row = encode_split(lambda: CausalLm(messages="messages"), tokenizer, split, 32).features[0]
    assert tokenizer.decode(row["input_ids"]) == "the good [SEP] it bad [SEP] the film [SEP] it plot [SEP] </s>"


def test_a_begin_token_alone_does_not_separate_the_texts_of_a_pair():
    tokenizer = tokenizer_for("llama")
    start = ("[CLS]", tokenizer.convert_tokens_to_ids("[CLS]"))
    for pair, separates in (("[CLS] $A [CLS]:1 $B:1", False), ("[CLS] $A [SEP] $B:1", True), ("$A $B:1", False)):
        special = [start, ("[SEP]", tokenizer.convert_tokens_to_ids("[SEP]"))]
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A", pair=pair, special_tokens=special
        )
        assert separates_pairs(tokenizer) == separates
    assert separates_pairs(tokenizer_for("bert"))


def test_of_a_chat_the_assistant_is_learned_and_where_it_stops(tmp_path):
    tokenizer = tokenizer_for("llama")
    split = Split([("good", "bad", "film", "plot")], [("user", "assistant", "user", "assistant")])
    task = lambda: CausalLm(messages="messages")  # noqa: E731
    with pytest.raises(InputError, match="has no chat template"):
        encode_split(task, tokenizer, split, 32)
    tokenizer.chat_template = CHAT_TEMPLATE
    row = encode_split(task, tokenizer, split, 32).features[0]
    assert tokenizer.decode(row["input_ids"]) == "the good </s> it bad </s> the film </s> it plot </s>"
    learned = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != IGNORED]
    assert tokenizer.decode(learned) == "bad </s> plot </s>"
    greeted = Split([("plot", *split.texts[0])], [("assistant", *split.labels[0])])
    with_greeting = encode_split(task, tokenizer, greeted, 32).features[0]
    assert [one for one in with_greeting["labels"] if one != IGNORED] == learned, "with what it begins is not learned"
    said = Split([("good </s> film", "bad")], [("user", "assistant")])
    faked = encode_split(task, tokenizer, said, 32).features[0]["input_ids"]
    assert faked.count(tokenizer.eos_token_id) == 2, "of the two turns; what a user writes ends nothing"
    short = encode_split(task, tokenizer, split, 9)
    assert tokenizer.decode(short.features[0]["input_ids"]) == "it bad </s> the film </s> it plot </s>", (
        "the beginning goes"
    )
    assert (short.num_cut, short.weights) == (1, [4])
    first = encode_split(task, tokenizer, split, 32, tmp_path).features[0]
    tokenizer.chat_template = CHAT_TEMPLATE.replace("the ", "a ")
    assert encode_split(task, tokenizer, split, 32, tmp_path).features[0] != first, "another template, other tokens"
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] if loop.last else 'it' }} {% endfor %}"
    with pytest.raises(InputError, match="writes earlier turns differently"):
        encode_split(task, tokenizer, split, 32)
