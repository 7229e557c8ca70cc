"""Whatever a message holds comes out as it went in."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.payload import decode, encode

keys = st.text(max_size=3) | st.sampled_from(
    ["__bytes__", "__bytes___", "__bytes__x", "__bytes", "__float__", "__float___", "__float"]
)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
)


@given(st.dictionaries(keys, values, max_size=4))
def test_what_goes_in_comes_out(message: dict[str, object]) -> None:
    assert decode(encode(message)) == message


def not_json(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON: a browser could not read it")


@given(st.dictionaries(keys, values, max_size=4))
def test_it_is_json_by_the_book(message: dict[str, object]) -> None:
    """Sockets that follow the group get it as it is."""
    json.loads(encode(message), parse_constant=not_json)


def test_not_a_number_comes_out_too() -> None:
    assert math.isnan(decode(encode({"x": [math.nan]}))["x"][0])
    json.loads(encode({"x": math.nan}), parse_constant=not_json)


CIRCLE: list[object] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "message",
    ["text", [1], None, {"type": {1, 2}}, {"x": CIRCLE}, {"x": 10**5000}],
    ids=["text", "list", "None", "set", "circle", "huge number"],
)
def test_only_dicts_of_json_and_bytes_go_in(message: object) -> None:
    with pytest.raises(TypeError):
        encode(message)  # type: ignore[arg-type]
