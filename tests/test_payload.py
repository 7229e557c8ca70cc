"""Whatever a message holds comes out as it went in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.payload import decode, encode

keys = st.text(max_size=3) | st.sampled_from(["__bytes__", "__bytes___", "__bytes__x", "__bytes"])
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
)


@given(st.dictionaries(keys, values, max_size=4))
def test_what_goes_in_comes_out(message: dict[str, object]) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize("message", ["text", [1], None, {"type": {1, 2}}])
def test_only_dicts_of_json_and_bytes_go_in(message: object) -> None:
    with pytest.raises(TypeError):
        encode(message)  # type: ignore[arg-type]
