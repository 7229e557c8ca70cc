"""Whatever is shown as a token is a grant of what was signed, or `BadToken`; nothing else is raised."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shards.tokens import VERBS, BadToken, Grant, KeyFile, grant_of

KEY = "k" * 48


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyFile:
    path = tmp_path_factory.mktemp("keys") / "tokens"
    path.write_text(KEY)
    return KeyFile(path)


def plain(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def signed(header: str, claims: str) -> str:
    """Sign anything at all, as one who has the key and a bug may."""
    said = f"{plain(header.encode())}.{plain(claims.encode())}"
    return f"{said}.{plain(hmac.new(KEY.encode(), said.encode(), hashlib.sha256).digest())}"


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
HEADER = '{"alg":"HS256","typ":"JWT"}'
headers = st.just(HEADER) | st.fixed_dictionaries(
    {"alg": st.just("HS256") | values},
    optional={"typ": values, "kid": values, "b64": values, "crit": values, "cty": values, "enc": values},
).map(json.dumps)
times = st.sampled_from([2**40, 0, 1e300, float("inf"), float("nan"), -1, "2000000000", None, True, 10**400]) | values
claims = st.fixed_dictionaries(
    {"exp": times},
    optional={
        "groups": st.just("room:*") | st.just(["a"]) | values,
        "may": st.just(["publish"]) | values,
        "sub": st.text(max_size=5) | values,
        "nbf": times,
        "iat": times,
        "aud": values,
        "iss": values,
        "jti": values,
    },
).map(json.dumps)


@example("\ud800.a.b")
@example(signed(HEADER, '{"groups":["a"],"exp":1e999}'))
@example(signed(HEADER, "[" * 100_000))
@example(signed("[" * 100_000, "{}"))
@example(signed(HEADER, '{"groups":["a"],"exp":1' + "0" * 400 + "}"))
@example(signed(HEADER, '{"groups":["a"],"exp":' + "9" * 5000 + "}"))
@given(st.text(st.characters()) | st.text("abc.=-_", max_size=60) | st.builds(signed, headers, claims))
def test_anything_is_a_grant_or_a_bad_token(keys: KeyFile, token: str) -> None:
    try:
        grant = keys.verify(token)
    except BadToken as bad:
        assert len(token) < 10 or token not in str(bad)
        return
    assert grant == grant_of(grant.groups, grant.may, grant.subject), "it is one that could have been made"


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_token_of_which_anything_was_changed_is_bad_or_means_the_same(keys: KeyFile, at: int, by: int) -> None:
    grant = Grant(("room:*",), frozenset(VERBS), "somebody")
    token, _ = keys.sign(grant, 60)
    changed = bytearray(token.encode())
    changed[at % len(changed)] ^= by
    with contextlib.suppress(BadToken):
        # The last bits of base64 may mean nothing.
        assert keys.verify(changed.decode("latin-1")) == grant
