"""Tokens: what is granted is signed, and nothing else is accepted."""

from __future__ import annotations

import base64
import itertools
import json
import time
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest

from shards.errors import UsageError
from shards.tokens import BadToken, Grant, KeyFile, grant_of, sign, verify

KEY, OTHER = "k" * 48, "o" * 48
SOON = int(time.time()) + 3600


def claims(**said: Any) -> str:
    """Make a token as somebody else might, in any language."""
    return jwt.encode({"groups": ["a"], "exp": SOON} | said, KEY, "HS256")


def test_what_is_signed_is_read() -> None:
    grant = grant_of(["room:*", "news"], ["subscribe"], "billing")
    assert verify(sign(grant, SOON, KEY), [KEY]) == grant


def test_others_may_leave_out_what_has_a_default() -> None:
    assert verify(claims(), [KEY]) == Grant(("a",))
    assert verify(claims(groups="room:*"), [KEY]) == Grant(("room:*",))


@pytest.mark.parametrize(
    ("pattern", "group", "covered"),
    [
        ("room:1", "room:1", True),
        ("room:1", "room:12", False),
        ("room:*", "room:12", True),
        ("room:*", "Room:12", False),
        ("room:*", "a-room:12", False),
        ("*", "anything", True),
        ("a*z", "abcz", True),
        ("a*z", "abc", False),
        ("a.c", "abc", False),
    ],
)
def test_an_asterisk_stands_for_any_characters_and_nothing_else_is_special(
    pattern: str, group: str, covered: bool
) -> None:
    grant = grant_of([pattern], ["publish"])
    assert grant.allows("publish", group) is covered
    assert not grant.allows("subscribe", group)


def none_at_all() -> str:
    """Make a token that says of itself that it needs no signature."""
    parts = [{"alg": "none", "typ": "JWT"}, {"groups": ["a"], "exp": SOON}]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "a.b.c",
        "é",
        none_at_all(),
        jwt.encode({"groups": ["a"], "exp": SOON}, OTHER, "HS256"),
        jwt.encode({"groups": ["a"], "exp": SOON}, KEY * 2, "HS512"),
        claims(exp=int(time.time()) - 1),
        claims(exp="soon"),
        jwt.encode({"groups": ["a"]}, KEY, "HS256"),
        jwt.encode({"exp": SOON}, KEY, "HS256"),
        claims(groups=[]),
        claims(groups=[1]),
        claims(groups={"a": 1}),
        claims(groups=["a b"]),
        claims(groups=["[ab]"]),
        claims(may=[]),
        claims(may=["rule"]),
        claims(may="publish"),
        claims(sub=7),
        claims(sub="s" * 257),
        claims(nbf=SOON),
    ],
    # Times are in the tokens: names made of them would differ from process to process.
    ids=itertools.count(),
)
def test_anything_else_is_refused_without_being_repeated(token: str) -> None:
    with pytest.raises(BadToken) as refused:
        verify(token, [KEY])
    assert len(token) < 10 or token not in str(refused.value)


def test_what_an_earlier_release_hands_over_ends_some_time() -> None:
    """It keeps neither when a token expires nor which key has signed it."""
    carried = msgspec.json.decode(b'{"groups":["a"],"may":["publish"],"subject":"s"}', type=Grant)
    once = carried.with_an_end(1000.0)
    assert (once, once.expires) == (carried, 4600.0)
    assert once.with_an_end(2000.0).expires == 4600.0, "the next one gives it no more time"
    read = verify(claims(), [KEY])
    assert read.with_an_end(1000.0) is read


def test_without_keys_no_token_is_good() -> None:
    with pytest.raises(BadToken):
        KeyFile("").verify(claims())


@pytest.mark.parametrize(
    ("groups", "may"), [([], ["publish"]), (["a/b"], ["publish"]), (["a"], []), (["a"], ["shout"]), (["a" * 101], [])]
)
def test_a_grant_that_makes_no_sense_is_wrong_usage(groups: list[str], may: list[str]) -> None:
    with pytest.raises(UsageError):
        grant_of(groups, may)


def test_keys_are_rotated_by_writing_a_new_one_before_the_old(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(KEY + "\n")
    keys = KeyFile(path)
    old, expires = keys.sign(Grant(("a",)), 60)
    assert time.time() + 50 < expires < time.time() + 70
    path.write_text(f"{OTHER}\n{KEY}\n")
    new, _ = keys.sign(Grant(("b",)), 60)
    assert (keys.verify(old).groups, keys.verify(new).groups) == (("a",), ("b",))
    path.write_text(OTHER + "\n")
    assert keys.verify(new).groups == ("b",)
    with pytest.raises(BadToken):
        keys.verify(old)


@pytest.mark.parametrize("text", ["", "\n", "short", f"{KEY}\nshort"])
def test_keys_that_are_none_sign_nothing_and_verify_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(UsageError):
        KeyFile(path).sign(Grant(("a",)), 60)
    with pytest.raises(BadToken):
        KeyFile(path).verify(claims())
    path.unlink()
    with pytest.raises(BadToken):
        KeyFile(path).verify(claims())
