import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pewb.errors import InputError
from pewb.units import format_bytes, format_count, format_seconds, parse_bytes, parse_count, parse_seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("8GiB", 8 * 2**30),
        (" 500 MB ", 500 * 10**6),
        ("1.5kib", 1536),
        (".5 KiB", 512),
        ("42", 42),
        ("42 b", 42),
        (42, 42),
        ("2tb", 2 * 10**12),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_sizes_are_read(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    "text", ["", "GiB", "8 pigs", "1.2.3GiB", ".", "-1", -1, "8GiB more", "1e9", "nan", "²GiB", True]
)
def test_what_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(InputError, match="8GiB"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "–"),
        (0, "0.0 KiB"),
        (512, "0.5 KiB"),
        (2**20 - 1, "1.0 MiB"),
        (1536 * 2**10, "1.5 MiB"),
        (2**30 - 1, "1.00 GiB"),
        (5 * 2**28, "1.25 GiB"),
    ],
)
def test_sizes_are_written(count, text):
    assert format_bytes(count) == text


@given(st.integers(0, 2**50))
def test_a_written_size_reads_back_nearly(count):
    assert abs(parse_bytes(format_bytes(count)) - count) <= max(52, 0.05 * count)
    assert not re.match(r"1024", format_bytes(min(count, 2**39)))


@pytest.mark.parametrize(("count", "text"), [(None, "–"), (0, "0"), (887042, "887,042")])
def test_counts_are_written(count, text):
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.04, "0.0 s"),
        (9.97, "10 s"),
        (48.2, "48 s"),
        (59.7, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7620, "2 h 07 min"),
    ],
)
def test_durations_are_written(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("text", "count"), [("300k", 300_000), ("1.5M", 1_500_000), ("1_000", 1000), ("2b", 2 * 10**9)]
)
def test_counts_are_read(text, count):
    assert parse_count(text) == count


@pytest.mark.parametrize(("text", "seconds"), [("30min", 1800), ("2 h", 7200), ("90s", 90), ("1.5m", 90)])
def test_durations_are_read(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "few", "-1", "1e9", "10 apples"])
def test_what_is_no_count_or_duration_is_refused_with_an_example(text):
    with pytest.raises(InputError, match="300k"):
        parse_count(text)
    with pytest.raises(InputError, match="30min"):
        parse_seconds(text)
