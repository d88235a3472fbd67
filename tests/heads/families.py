"""A few small examples of every form of task, in words that the tiny backbones know."""

from pewb.tasks import (
    CausalLm,
    ExtractiveQa,
    MultipleChoice,
    Seq2Seq,
    Split,
    TextClassification,
    TextRegression,
    TokenClassification,
)

TEXTS = [
    "a good film",
    "the plot was bad and dull",
    "great cast and a good story",
    "the film is very bad",
    "it was a great film",
    "a dull story",
]
TAGS = ["O", "B-WORD", "I-WORD"]


def _tag(word, before):
    named = ("film", "plot", "cast", "story")
    return 1 if word in named else 0


def _answer(context):
    word = next(word for word in context.split() if word in ("film", "plot", "cast", "story"))
    return [(context.index(word), word)]


CHAT_TEMPLATE = (
    "{% for message in messages %}{{ 'the ' if message['role'] == 'user' else 'it ' }}{{ message['content'] }}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}it {% endif %}"
)

FAMILIES = {
    "text_classification": (
        TextClassification(),
        ["bad", "good"],
        Split([(text,) for text in TEXTS], [1, 0, 1, 0, 1, 0]),
    ),
    "multi_label": (
        TextClassification(multi_label=True),
        ["film", "good", "dull"],
        Split(
            [(text,) for text in TEXTS], [[int(word in text) for word in ("film", "good", "dull")] for text in TEXTS]
        ),
    ),
    "text_regression": (
        TextRegression(),
        [],
        Split([(text,) for text in TEXTS], [3.0, -2.5, 3.5, -2.0, 4.0, -1.5]),
    ),
    "token_classification": (
        TokenClassification(),
        TAGS,
        Split([tuple(text.split()) for text in TEXTS], [[_tag(word, None) for word in text.split()] for text in TEXTS]),
    ),
    "extractive_qa": (
        ExtractiveQa(),
        [],
        Split([("it is", text) for text in TEXTS], [_answer(text) for text in TEXTS]),
    ),
    "multiple_choice": (
        MultipleChoice(),
        [],
        Split([(text, "good", "bad") for text in TEXTS], [0, 1, 0, 1, 0, 1]),
    ),
    "causal_lm": (CausalLm(prompt="prompt"), [], Split([(text, "it was good") for text in TEXTS])),
    "chat": (
        CausalLm(messages="messages"),
        [],
        Split([(text, "good", "film", "bad") for text in TEXTS], [("user", "assistant", "user", "assistant")] * 6),
    ),
    "seq2seq": (Seq2Seq(), [], Split([(text, "it was good") for text in TEXTS])),
}
"""Task, classes and examples, by the name of the form."""

ARCHITECTURES = {
    "multiple_choice": ("llama", "gpt2"),
    "causal_lm": ("llama", "gpt2"),
    "chat": ("llama",),
    "seq2seq": ("t5",),
    "token_classification": ("bert", "roberta", "llama"),
    "extractive_qa": ("bert", "llama"),
}
"""What each form is tried on; the others on an encoder, a decoder and an encoder-decoder."""
OF_TEXTS = ("bert", "llama", "t5")
