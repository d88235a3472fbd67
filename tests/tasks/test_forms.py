"""Files of every form become examples, and faults in them are told with their row and the way out."""

import json

import pytest

from pewb.errors import InputError
from pewb.tasks import (
    CausalLm,
    ExtractiveQa,
    MultipleChoice,
    Seq2Seq,
    TextClassification,
    TextRegression,
    TokenClassification,
    read_examples,
)
from tests.tasks.conftest import csv_of

CONLL = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP B-MISC

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER
"""
SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Films",
            "paragraphs": [
                {
                    "context": "The film was shot in Rome in 1953.",
                    "qas": [
                        {"id": "1", "question": "Where?", "answers": [{"text": "Rome", "answer_start": 21}]},
                        {"id": "2", "question": "When?", "answers": [{"text": "1953", "answer_start": 29}]},
                        {"id": "3", "question": "By whom?", "is_impossible": True, "answers": []},
                    ],
                }
            ],
        }
    ],
}


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def files(folder, content, ending="jsonl"):
    for name in ("train", "validation", "test"):
        (folder / f"{name}.{ending}").write_text(content, encoding="utf-8")
    return {name: f"{name}.{ending}" for name in ("train", "validation", "test")}


def read(folder, family, content, ending="jsonl", **keys):
    return read_examples(family(**keys, **files(folder, content, ending)), folder, {})


def test_columns_of_conll(tmp_path):
    examples = read(tmp_path, TokenClassification, CONLL, "conll", words=0, tags=-1)
    assert examples.train.texts == [("EU", "rejects", "German"), ("Peter", "Blackburn")]
    named = [[examples.labels[tag] for tag in row] for row in examples.train.labels]
    assert named == [["B-ORG", "O", "B-MISC"], ["B-PER", "I-PER"]]
    assert examples.facts()["test_words"] == 5


def test_lists_of_words_with_numbered_tags(tmp_path):
    rows = [{"tokens": ["a", "film"], "ner": [0, 1]}, {"tokens": ["good"], "ner": [0]}]
    examples = read(tmp_path, TokenClassification, jsonl(*rows), words="tokens", tags="ner", labels=["O", "B-WORD"])
    assert examples.train.labels == [[0, 1], [0]]
    assert examples.labels == ["O", "B-WORD"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"words": ["a", "film"], "tags": ["O"]}, "2 words and 1 tags in sentence 1"),
        ({"words": "a film", "tags": "O O"}, 'no list in the column.*format = "conll"'),
        ({"words": ["a", " "], "tags": ["O", "O"]}, "empty entry in row 1, place 2"),
    ],
)
def test_faults_of_tags(row, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read(tmp_path, TokenClassification, jsonl(row))


def test_a_ragged_conll_file_is_told_with_its_line(tmp_path):
    with pytest.raises(InputError, match="line 4 has 3 columns, and the first has 4"):
        read(
            tmp_path,
            TokenClassification,
            CONLL.replace("rejects VBZ B-VP O", "rejects VBZ O"),
            "conll",
            words=0,
            tags=-1,
        )


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_squads_own_form_and_its_flat_form_are_the_same(ending, tmp_path):
    nested = read(tmp_path, ExtractiveQa, json.dumps(SQUAD), "json")
    flat = [
        {
            "question": q["question"],
            "context": p["context"],
            "answers": {key: [a[key] for a in q["answers"]] for key in ("text", "answer_start")},
        }
        for article in SQUAD["data"]
        for p in article["paragraphs"]
        for q in p["qas"]
    ]
    again = read(tmp_path, ExtractiveQa, jsonl(*flat))
    assert nested.train == again.train
    assert nested.train.labels == [[(21, "Rome")], [(29, "1953")], []]
    assert nested.facts()["unanswerable_share"] == pytest.approx(1 / 3)


def test_an_answer_is_looked_for_nearby_and_missed_if_it_is_not_there(tmp_path):
    row = {"question": "Where?", "context": "Rome, not Rome", "answers": {"text": ["Rome"], "answer_start": [9]}}
    assert read(tmp_path, ExtractiveQa, jsonl(row)).train.labels == [[(10, "Rome")]]
    row["answers"]["text"] = ["Paris"]
    with pytest.raises(InputError, match="'Paris' in row 1, which is not in its context"):
        read(tmp_path, ExtractiveQa, jsonl(row))


def test_choices_in_every_form(tmp_path):
    arc = {"q": "Which?", "choices": {"text": ["sun", "moon"], "label": ["A", "B"]}, "answerKey": "B"}
    by_letter = read(tmp_path, MultipleChoice, jsonl(arc), prompt="q", label="answerKey")
    hellaswag = {"prompt": "Which?", "choices": ["sun", "moon"], "label": "1"}
    by_number = read(tmp_path, MultipleChoice, jsonl(hellaswag))
    copa = "prompt,first,second,label\nWhich?,sun,moon,moon\n"
    by_text = read(tmp_path, MultipleChoice, copa, "csv", choices=["first", "second"])
    for examples in (by_letter, by_number, by_text):
        assert examples.train.texts == [("Which?", "sun", "moon")]
        assert examples.train.labels == [1]
    with pytest.raises(InputError, match="label 'C' in row 1, which is none of its choices"):
        read(tmp_path, MultipleChoice, jsonl(hellaswag | {"label": "C"}))


def choices_of(folder, *rows):
    content = jsonl(*({"prompt": "Which?", "choices": choices, "label": label} for choices, label in rows))
    return read(folder, MultipleChoice, content).train.labels


def test_labels_of_choices_mean_the_same_in_a_whole_column(tmp_path):
    numbers = ["2", "3", "1"]
    assert choices_of(tmp_path, (numbers, "2"), (["a", "b"], "0")) == [2, 0], "places, for 0 is no text"
    assert choices_of(tmp_path, (numbers, "2"), (["7", "9"], "9")) == [0, 1], "texts, for 9 is no place"
    assert choices_of(tmp_path, (["B", "A"], "B"), (["x", "y"], "A")) == [1, 0], "letters, for A is no text"
    with pytest.raises(InputError, match="'2' in row 1, which may be a choice's text as well as its place"):
        choices_of(tmp_path, (numbers, "2"), (["0", "1"], "1"))
    with pytest.raises(InputError, match="they seem to count from 1, and pewb counts from 0"):
        choices_of(tmp_path, (["a", "b"], "1"), (["a", "b"], "2"))
    with pytest.raises(InputError, match=r"of the 20 rows .* none has the label 0"):
        choices_of(tmp_path, *[(["a", "b", "c"], "1"), (["a", "b", "c"], "2")] * 10)
    with pytest.raises(InputError, match=r"'B' in row 2.* meant in another way than in most rows"):
        choices_of(tmp_path, (numbers, "0"), (["x", "y"], "B"), (["x", "y"], "1"))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (["a", None], "a choice in row 1 that is no text"),
        ({"text": ["a", "b"], "label": ["A"]}, "2 choices and 1 labels in row 1"),
        ({"text": "ab"}, "no list of choices in row 1"),
    ],
)
def test_faults_of_choices(choices, message, tmp_path):
    with pytest.raises(InputError, match=message):
        choices_of(tmp_path, (choices, "A"))


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"text": "Rome", "answer_start": 0}, [(0, "Rome")]),
        ({"text": None, "answer_start": None}, []),
        ({"text": [], "answer_start": []}, []),
        (["not", "Rome", " "], [(6, "not"), (0, "Rome")]),
        ([], []),
        ({"text": ["Rome"], "answer_start": ["x"]}, None),
        ([{"text": "Rome", "answer_start": 10}], [(10, "Rome")]),
        ("Rome", [(0, "Rome")]),
        (None, []),
        ([1], None),
        ({"text": ["Rome"], "answer_start": [-1]}, None),
        ({"text": [None], "answer_start": [0]}, None),
        ([{"answer": "Rome"}], None),
    ],
)
def test_cells_of_answers(answers, expected, tmp_path):
    row = {"question": "Where?", "context": "Rome, not Rome", "answers": {"text": ["Rome"], "answer_start": [0]}}
    rows = jsonl(row, row | {"answers": answers})
    if expected is None:
        with pytest.raises(InputError, match="no table or list of answers in row 2"):
            read(tmp_path, ExtractiveQa, rows)
    else:
        assert read(tmp_path, ExtractiveQa, rows).train.labels[1] == expected


def test_questions_about_one_context_are_never_divided(tmp_path):
    answers = {"text": ["Rome"], "answer_start": [0]}
    rows = [{"question": f"{q}?", "context": f"Rome {c}", "answers": answers} for c in range(60) for q in range(3)]
    (tmp_path / "all.jsonl").write_text(jsonl(*rows))
    examples = read_examples(ExtractiveQa(data="all.jsonl"), tmp_path, {})
    contexts = [{texts[1] for texts in split.texts} for split in (examples.train, examples.validation, examples.test)]
    assert sum(map(len, contexts)) == 60
    assert len(set.union(*contexts)) == 60


def test_rows_with_paragraphs_are_not_squads(tmp_path):
    rows = jsonl(*({"paragraphs": text, "label": text[0]} for text in ("a film", "bad plot")))
    assert read(tmp_path, TextClassification, rows, "json", text="paragraphs").train.texts == [
        ("a film",),
        ("bad plot",),
    ]


def test_conll_with_tabs_comments_and_odd_spaces(tmp_path):
    content = "# id 12 domain=en\nNew\u00a0York\tB-X\nis  big\tO\n\n# text = # it is\n#\tO\nfilm\tO\n"
    examples = read(tmp_path, TokenClassification, content, "conll", words=0, tags=-1)
    assert examples.train.texts == [("New\u00a0York", "is  big"), ("#", "film")]
    told = "# a comment\nA\tB_X\nb\tO\n\n# another one\nc\tO\n"
    assert read(tmp_path, TokenClassification, told, "conll", words=0, tags=-1).train.texts == [("A", "b"), ("c",)]
    with pytest.raises(InputError, match="if it is a comment, remove it"):
        read(tmp_path, TokenClassification, "# a comment here\nA X O\nb Y O\n", "conll", words=0, tags=-1)


def test_messages_in_parts_and_what_is_no_text(tmp_path):
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "film"}]
    rows = [{"role": "user", "content": parts}, {"role": "assistant", "content": "good"}]
    examples = read(tmp_path, CausalLm, jsonl({"messages": rows}), messages="messages")
    assert examples.train.texts == [("a film", "good")]
    for content in ([{"type": "image", "url": "x"}], None, 3, {"text": "a"}):
        rows[0]["content"] = content
        with pytest.raises(InputError, match=r"no list of messages in row 1.*which is text"):
            read(tmp_path, CausalLm, jsonl({"messages": rows}), messages="messages")


def test_roles_by_any_usual_name(tmp_path):
    rows = jsonl({"messages": [{"role": "Human", "content": "a"}, {"role": "AI", "content": "b"}]})
    assert read(tmp_path, CausalLm, rows, messages="messages").train.labels == [("user", "assistant")]
    with pytest.raises(InputError, match="whose roles are user, expert; remove the row, or call the role assistant"):
        read(tmp_path, CausalLm, rows.replace("AI", "Expert"), messages="messages")


@pytest.mark.parametrize("label", [{"a": 1, "b": 0}, [None], "['a', 'b']", "[]"])
def test_what_is_no_list_of_classes_is_refused(label, tmp_path):
    rows = jsonl({"text": "x", "label": ["a", "b"]}, {"text": "y", "label": label})
    with pytest.raises(InputError, match=r"has no list of classes in row 2|a list written as text in row 2"):
        read(tmp_path, TextClassification, rows, multi_label=True)


def test_tables_in_a_template_are_no_text(tmp_path):
    rows = jsonl({"a": {"b": "x"}, "completion": "y"})
    assert read(tmp_path, CausalLm, rows, prompt="say {a.b}").train.texts == [("say x", "y")]
    with pytest.raises(InputError, match=r"holds no text in 'a', but lists or tables \(the first in row 1\)"):
        read(tmp_path, CausalLm, rows, prompt="say {a}")


def test_an_empty_cell_does_not_change_how_the_others_numbers_are_written(tmp_path):
    for years, told in (
        ((1999, None, 2001), ["in 1999 it", "in it", "in 2001 it"]),
        ((4.0, 3.5), ["in 4.0 it", "in 3.5 it"]),
    ):
        rows = [{"year": year, "completion": "y"} for year in years]
        texts = read(tmp_path, CausalLm, jsonl(*rows), prompt="in {year} it").train.texts
        assert [prompt for prompt, _ in texts] == told


def test_sets_of_classes_in_every_form(tmp_path):
    lists = jsonl({"text": "a", "label": ["x", "y"]}, {"text": "b", "label": []}, {"text": "c", "label": ["y"]})
    cells = "text,label\na,x; y\nb,\nc,y\n"
    columns = "text,x,y\na,1,1\nb,0,0\nc,0,1\n"
    found = [
        read(tmp_path, TextClassification, lists, multi_label=True),
        read(tmp_path, TextClassification, cells, "csv", multi_label=True, separator=";"),
        read(tmp_path, TextClassification, columns, "csv", label=["x", "y"]),
    ]
    for examples in found:
        assert examples.labels == ["x", "y"]
        assert examples.train.labels == [[1, 1], [0, 0], [0, 1]]
        assert examples.facts()["majority_share"] == pytest.approx(2 / 3)
        assert "several classes" not in str(examples.warnings)
    mistaken = read(tmp_path, TextClassification, cells, "csv", multi_label=True)
    assert any("if 'x; y' is more than one, set task.separator" in told for told in mistaken.warnings)
    with pytest.raises(InputError, match="the value '2' in a column of a class"):
        read(tmp_path, TextClassification, columns.replace("c,0", "c,2"), "csv", label=["x", "y"])


def test_numbers_and_what_is_none(tmp_path):
    rows = csv_of([("a", "1.5"), ("b", "-2")])
    examples = read(tmp_path, TextRegression, rows, "csv")
    assert examples.train.labels == [1.5, -2.0]
    assert (examples.facts()["mean"], examples.facts()["deviation"]) == (-0.25, 1.75)
    with pytest.raises(InputError, match="'good', which is no number"):
        read(tmp_path, TextRegression, rows.replace("-2", "good"), "csv")
    with pytest.raises(InputError, match=r"the train split has the number 1\.5"):
        read(tmp_path, TextRegression, rows.replace("-2", "1.5"), "csv")


def test_texts_of_several_columns_and_of_fields(tmp_path):
    rows = [
        {"instruction": "Add.", "input": "", "output": "2"},
        {"instruction": "Add.", "input": "1 and 1", "output": "2"},
    ]
    task = {"prompt": "{instruction}\n\n{input}\n\nAnswer: ", "completion": "output"}
    texts = read(tmp_path, CausalLm, jsonl(*rows), **task).train.texts
    assert texts == [("Add.\n\nAnswer: ", "2"), ("Add.\n\n1 and 1\n\nAnswer: ", "2")]
    pair = jsonl({"translation": {"en": "good", "de": "gut"}})
    task = {"prompt": "German: {translation.en}", "completion": "{translation.de}"}
    assert read(tmp_path, Seq2Seq, pair, **task).train.texts == [("German: good", "gut")]
    with pytest.raises(InputError, match=r"no column 'instruktion'.*did you mean 'instruction'"):
        read(tmp_path, CausalLm, jsonl(*rows), prompt="{instruktion}", completion="output")


def test_messages_with_any_names_for_the_roles(tmp_path):
    ours = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    theirs = {"messages": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}
    for row in (ours, theirs):
        split = read(tmp_path, CausalLm, jsonl(row), messages="messages").train
        assert (split.texts, split.labels) == ([("Hi", "Hello")], [("user", "assistant")])
    with pytest.raises(InputError, match="no answer of an assistant in row 1"):
        read(tmp_path, CausalLm, jsonl({"messages": ours["messages"][:1]}), messages="messages")


def test_chats_with_one_system_prompt_are_divided(tmp_path):
    said = [("system", "You help."), ("user", "Hi {}"), ("assistant", "Hello")]
    rows = [
        {"messages": [{"role": role, "content": text.format(number)} for role, text in said]} for number in range(100)
    ]
    (tmp_path / "all.jsonl").write_text(jsonl(*rows))
    examples = read_examples(CausalLm(messages="messages", data="all.jsonl"), tmp_path, {})
    assert min(len(examples.train), len(examples.validation), len(examples.test)) > 0


def test_classes_that_are_named_may_be_many(tmp_path):
    names = [f"class {number}" for number in range(25)]
    content = "text,label\n" + "".join(f"text {number},{names[number % 25]}\n" for number in range(75))
    assert read(tmp_path, TextClassification, content, "csv", labels=names).labels == names
    with pytest.raises(InputError, match="does not look like a label"):
        read(tmp_path, TextClassification, content, "csv")


TURNS = [
    ("e1", "Ann", " Hi. "),
    ("e1", "Bob", "Hello,\nAnn."),
    ("e1", "", "(laughs)"),
    ("e1", "Ann", "Well?"),
    ("e2", "Cid", "So."),
    ("e2", "Ann", "Yes."),
]


def test_turns_of_conversations(tmp_path):
    keys = {"turn": "line", "speaker": "who", "conversation": "episode", "context": 1}
    content = csv_of(TURNS, ("episode", "who", "line"))
    split = read(tmp_path, CausalLm, content, "csv", **keys).train
    assert split.texts == [
        ("Ann: Hi.\nBob:", " Hello, Ann."),
        ("Bob: Hello, Ann.\nAnn:", " Well?"),
        ("Cid: So.\nAnn:", " Yes."),
    ]
    with pytest.raises(InputError, match=r"goes on in row \d+, after another; sort the rows by conversation"):
        read(tmp_path, CausalLm, csv_of([*TURNS, TURNS[0]], ("episode", "who", "line")), "csv", **keys)


def test_answers_in_a_tree_of_turns(tmp_path):
    rows = [
        {"id": "1", "up": None, "role": "prompter", "text": "Hi", "tree": "1"},
        {"id": "2", "up": "1", "role": "assistant", "text": "Hello", "tree": "1"},
        {"id": "3", "up": "1", "role": "assistant", "text": "Good day", "tree": "1"},
        {"id": "4", "up": "2", "role": "prompter", "text": "Well?", "tree": "1"},
        {"id": "5", "up": "4", "role": "assistant", "text": "Well.", "tree": "1"},
    ]
    keys = {"turn": "text", "speaker": "role", "conversation": "tree", "identifier": "id", "parent": "up"}
    split = read(tmp_path, CausalLm, jsonl(*rows), **keys).train
    assert split.texts == [("Hi", "Hello"), ("Hi", "Good day"), ("Hi", "Hello", "Well?", "Well.")]
    assert split.labels[2] == ("user", "assistant", "user", "assistant")
    assert CausalLm(**keys).form == "chat"
    numbered = [row | {"id": int(row["id"]), "up": row["up"] and int(row["up"])} for row in rows]
    assert read(tmp_path, CausalLm, jsonl(*numbered), **keys).train == split
    with pytest.raises(InputError, match="answer each other in a ring"):
        read(tmp_path, CausalLm, jsonl(rows[0] | {"up": "2"}, rows[1]), **keys)
    with pytest.raises(InputError, match="answers '9', which is not there"):
        read(tmp_path, CausalLm, jsonl(*rows, rows[1] | {"id": "6", "up": "9"}), **keys)


def test_a_conversation_is_never_divided(tmp_path):
    rows = [(f"e{number // 5}", "AB"[number % 2], f"line {number}") for number in range(400)]
    (tmp_path / "all.csv").write_text(csv_of(rows, ("episode", "who", "line")))
    task = CausalLm(turn="line", speaker="who", conversation="episode", data="all.csv")
    examples = read_examples(task, tmp_path, {})
    episodes = [
        {int(texts[1].split()[-1]) // 5 for texts in split.texts}
        for split in (examples.train, examples.validation, examples.test)
    ]
    assert all(episodes)
    assert sum(map(len, episodes)) == 80 == len(set.union(*episodes))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"turn": "a"}, "turn, speaker and conversation go together"),
        ({"prompt": "a", "messages": "b"}, "give one of prompt, messages and turn"),
        ({"context": 3}, "context counts turns"),
        ({"parent": "a"}, "identifier and parent go together"),
        ({"answer": "("}, "is no regular expression"),
    ],
)
def test_keys_that_make_no_sense_together(keys, message):
    with pytest.raises(ValueError, match=message):
        CausalLm(**keys)


def test_blank_lines_of_plain_text_are_no_examples(tmp_path):
    split = read(tmp_path, CausalLm, jsonl({"text": ""}, {"text": "a film"}, {"text": " \n"}), completion="text").train
    assert split.texts == [("a film",)]
