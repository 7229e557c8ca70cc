"""What any client can read is taken, and nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.readable import MOST_DEPTH, MOST_DIGITS, why_unreadable

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values)
def test_usual_data_is_readable(value: object) -> None:
    assert why_unreadable(json.dumps(value).encode()) is None


@pytest.mark.parametrize(
    "data",
    [
        "9" * MOST_DIGITS,
        "-" + "9" * MOST_DIGITS,
        json.dumps("9" * 60_000),
        json.dumps('\\"' + "9" * 60_000),
        "[" * MOST_DEPTH + "]" * MOST_DEPTH,
        json.dumps("[" * 60_000),
        json.dumps([{"a": []}] * 6000),
        json.dumps(["\\", "[" * 600, '"', "9" * 5000]),
    ],
    ids=lambda data: data[:10],
)
def test_what_python_can_read_is_readable(data: str) -> None:
    json.loads(data)
    assert why_unreadable(data.encode()) is None


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("9" * (MOST_DIGITS + 1), "digits"),
        ('{"a":"\\\\","b":[-' + "1" * 60_000 + "]}", "digits"),
        ("[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1), "in one another"),
        ('{"\\"":' * (MOST_DEPTH + 1) + "1" + "}" * (MOST_DEPTH + 1), "in one another"),
        ('[{"a":[' * 200 + "]}]" * 200, "in one another"),
    ],
    ids=lambda data: data[:10],
)
def test_what_some_client_cannot_read_is_not(data: str, why: str) -> None:
    assert why in (why_unreadable(data.encode()) or "")
