"""Files as people have them: quotes, byte-order marks, no header line, shards, and what is wrong with them."""

import json
import re

import pandas
import pytest

from pewb.errors import InputError
from pewb.tasks.tables import column, files_of, read_table


def table_of(path, content, format=None, header=True):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table([path], format, header)


def test_csv_with_byte_order_mark_quotes_and_line_breaks(tmp_path):
    content = '\ufefftext,label\r\n"one, ""two""",0\r\n"first\nsecond",1\r\n  spaced  ,NA\r\n'
    table = table_of(tmp_path / "a.csv", content)
    assert list(table.columns) == ["text", "label"]
    assert list(table["text"]) == ['one, "two"', "first\nsecond", "  spaced  "]
    assert list(table["label"]) == ["0", "1", "NA"]


def test_tsv_has_no_quoting(tmp_path):
    table = table_of(tmp_path / "a.tsv", 'text\tlabel\n"a stray quote\t0\nsaid "no" , twice\t1\n')
    assert list(table["text"]) == ['"a stray quote', 'said "no" , twice']


def test_tsv_without_a_header_line_numbers_its_columns(tmp_path):
    table = table_of(tmp_path / "a.tsv", "one long string of cliches\t0\nif you 've ever\t1\n", header=False)
    assert list(column(table, 0, "text", "a.tsv")) == ["one long string of cliches", "if you 've ever"]
    assert list(column(table, 1, "label", "a.tsv")) == ["0", "1"]


def test_a_column_with_a_name_can_be_numbered(tmp_path):
    table = table_of(tmp_path / "a.csv", "id,text\n7,fine\n")
    assert list(column(table, 1, "text", "a.csv")) == ["fine"]


RECORDS = [{"text": "good", "label": 1}, {"text": "bad", "label": 0}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", "".join(json.dumps(record) + "\n" for record in RECORDS)),
        ("a.ndjson", "\ufeff" + "".join(json.dumps(record) + "\r\n" for record in RECORDS)),
        ("a.json", json.dumps(RECORDS, indent=1)),
    ],
)
def test_json(tmp_path, name, content):
    table = table_of(tmp_path / name, content)
    assert list(table["text"]) == ["good", "bad"]
    assert list(table["label"]) == [1, 0]


def test_json_texts_that_look_like_dates_or_numbers_stay_as_they_are(tmp_path):
    table = table_of(tmp_path / "a.jsonl", '{"date": "2020-01-01", "text": "0012"}\n')
    assert table.iloc[0].to_list() == ["2020-01-01", "0012"]


def test_parquet(tmp_path):
    pandas.DataFrame(RECORDS).to_parquet(tmp_path / "a.parquet")
    assert read_table([tmp_path / "a.parquet"], None, True)["label"].to_list() == [1, 0]


def test_shards_are_read_in_the_order_of_their_names(tmp_path):
    for number in (2, 0, 1):
        (tmp_path / f"train-{number}.csv").write_text(f"text\n{number}\n")
    paths = files_of(tmp_path, "train-*.csv", "train")
    assert read_table(paths, None, True)["text"].to_list() == ["0", "1", "2"]
    assert files_of(tmp_path, str(tmp_path / "train-*.csv"), "train") == paths


def test_shards_of_different_shape_are_refused(tmp_path):
    (tmp_path / "a-0.csv").write_text("text,label\ngood,1\n")
    (tmp_path / "a-1.csv").write_text("sentence,label\nbad,0\n")
    with pytest.raises(InputError, match=r"a-1.csv: its columns \(sentence, label\) are not those of .*a-0.csv"):
        read_table(files_of(tmp_path, "a-*.csv", "train"), None, True)


def test_a_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "train.tsv").write_text("x")
    with pytest.raises(InputError, match=r"task.train: no file 'trian.tsv' in .* \(did you mean 'train.tsv'\?\)"):
        files_of(tmp_path, "trian.tsv", "train")
    with pytest.raises(InputError, match=r"task.test: no file 'nowhere/\*.csv'.*a pattern such as"):
        files_of(tmp_path, "nowhere/*.csv", "test")
    with pytest.raises(InputError, match=r"task\.test: no file"):
        files_of(tmp_path.parent, tmp_path.name, "test")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\ncaf\xe9,1\n".encode("latin-1"), r"not UTF-8 text \(byte 0xe9 at 14\); save it as UTF-8"),
        ("a.tsv", "text\tlabel\ncaf\xe9\t1\n".encode("latin-1"), "not UTF-8 text"),
        ("a.jsonl", '{"text": "caf\xe9"}\n'.encode("latin-1"), "not UTF-8 text"),
        ("a.csv", "text,label\ngood,1\n".encode("utf-16"), "not UTF-8 text.*iconv -f utf-16"),
        ("a.csv", "", "is empty; name a file"),
        ("a.csv", "\n\n", "can't be read as csv"),
        ("a.csv", "text,label\ngood,1\nbad,0,extra\n", "Expected 2 fields in line 3, saw 3; mend the file"),
        ("a.csv", "text,label\ngood,film,1\n", "Expected 2 fields in line 2, saw 3"),
        ("a.csv", 'text,label\n"never closed,1\nbad,0\n', "can't be read as csv"),
        ("a.jsonl", '{"text": "good"}\n{"text": \n', "can't be read as jsonl"),
        ("a.json", "5", "can't be read as jsonl"),
        ("a.json", '"text"', "can't be read as jsonl"),
        ("a.parquet", "PAR1 no", "can't be read as parquet"),
        ("a.xlsx", "x", "'.xlsx' is not a table pewb reads; use .csv"),
        ("a", "x", "or set task.format"),
    ],
)
def test_a_bad_file_is_an_input_error(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message):
        table_of(tmp_path / name, content)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("sentence,label\ngood,1\n", "sentense", r"did you mean 'sentence'\?\); it has sentence, label"),
        ("sentence,label\ngood,1\n", 2, "has no column '2'; it has sentence, label"),
        ("sentence,label\ngood,1\n", -1, "has no column '-1'"),
        ("a fine film,1\na bad film,0\n", "text", "no header line: set header = false and number the columns"),
        ("text;label\ngood;1\n", "text", "separated by ';': save it with commas"),
        ("text\tlabel\ngood\t1\n", "text", r"separated by '\\t': set format = \"tsv\""),
        ("text,text\ngood,bad\n", "text", "has 2 columns 'text'; give the number of one"),
        (",".join(f"column{number}" for number in range(20)) + "\n", "text", "column11 and 8 more"),
        ("x" * 500 + ",label\n", "text", "it has " + "x" * 40 + "…, label"),
    ],
)
def test_a_missing_column_says_what_there_is(tmp_path, content, name, message):
    with pytest.raises(InputError, match="^task.text: a.csv " + r".*".join(["", message])) as caught:
        column(table_of(tmp_path / "a.csv", content), name, "text", "a.csv")
    assert len(str(caught.value)) < 400


def test_names_for_a_file_without_a_header_line(tmp_path):
    table = table_of(tmp_path / "a.tsv", "good\t1\n", header=False)
    with pytest.raises(InputError, match=re.escape("header = false columns have numbers, 0 to 1")):
        column(table, "text", "text", "a.tsv")


def test_a_short_line_has_a_gap(tmp_path):
    assert table_of(tmp_path / "a.csv", "text,label\ngood\n")["label"].isna().to_list() == [True]
