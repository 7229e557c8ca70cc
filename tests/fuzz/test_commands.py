"""Whatever a client says as a command or in its URL is answered by the protocol; nothing is raised."""

from __future__ import annotations

import asyncio
import json
import logging
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.frames import Opcode

from shards.consumers import GroupConsumer
from shards.log.log import Page, Place
from shards.settings import Settings
from shards.subjects import Subjects
from shards.tokens import KeyFile
from tests.server.test_handoff_frames import REQUEST, Host, frame, frames, turn

NAMES = st.sampled_from(["room", "", "a b", "ä", "g" * 101, "\x00", "../x"])
NUMBERS = st.sampled_from([0, 1, -1, 100, 1001, 10**18, 2**63, 2**64, 10**400, 1.5, 1e308, -0.0, True, None])
KEYS = st.sampled_from(["type", "group", "id", "data", "since", "limit", "events", "epoch", "offset"]) | st.text()
TYPES = st.sampled_from(["subscribe", "unsubscribe", "publish", "history", "presence", "ping", "welcome", ""])
VALUES: st.SearchStrategy[Any] = st.recursive(
    NAMES | NUMBERS | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
PLACES = st.fixed_dictionaries({"epoch": NAMES | VALUES, "offset": NUMBERS})
COMMANDS = st.fixed_dictionaries(
    {"type": TYPES},
    optional={
        "group": NAMES | VALUES,
        "id": NAMES | VALUES,
        "data": VALUES,
        "since": PLACES | VALUES,
        "limit": NUMBERS | VALUES,
        "events": st.booleans() | VALUES,
    },
).map(json.dumps)
ODD = st.sampled_from(
    [
        "[" * 20_000,
        '{"type":' * 5_000,
        '{"type":"publish","group":"room","id":"1","data":' + '{"a":' * 3_000 + "1" + "}" * 3_001,
        '{"type":"publish","group":"room","id":"1","data":' + "9" * 10_000 + "}",
        '{"type":"publish","group":"room","id":"\\ud800","data":1}',
        '{"type":"publish","group":"room","id":"1","data":"\\ud800"}',
        '{"type":"subscribe","group":"room","since":{"epoch":"e","offset":' + "9" * 5000 + "}}",
        '{"type":"ping","type":"publish"}',
        "\ufeff{}",
        "NaN",
    ]
)
TEXTS = COMMANDS | VALUES.map(json.dumps) | st.text(max_size=30) | ODD

CODES = {
    *("bad_json", "bad_message", "bad_name", "bad_id", "bad_limit", "bad_place", "too_large", "already_subscribed"),
    *("not_subscribed", "too_many_groups", "rate_limited"),
}


class Hub:
    """Joins at once; what it is told is what the hub is told."""

    def join(self, group: str, member: Any, since: Place | None = None, **_: Any) -> None:
        assert since is None or 0 <= since.offset < 10**18
        member.on_subscribed(group, Place("e", 0), False)

    def leave(self, group: str, member: Any) -> None:
        pass


class Log:
    """Takes everything, and has nothing."""

    def append(self, group: str, session: str, id: str, body: bytes, answered: Any) -> None:
        json.loads(b"{" + body[1:])
        answered(Place("e", 1))

    def read(self, group: str, after: int, limit: int, answered: Any, most_bytes: int) -> None:
        answered(Page(epoch="e", head=0, entries=[]))


async def present(group: str) -> Any:
    return SimpleNamespace(count=0, members=[])


def nothing(*_: Any) -> None:
    pass


WORKER = SimpleNamespace(
    plane=SimpleNamespace(
        settings=Settings(rate_limit=0),
        hub=Hub(),
        log=Log(),
        presence=SimpleNamespace(of=present),
        attendance=SimpleNamespace(watch=nothing, unwatch=nothing),
    ),
    tokens=KeyFile(""),
    good_keys=lambda: None,
    subjects=Subjects(Settings(rate_limit=0)),
)
rooms = GroupConsumer.as_asgi()


async def room(scope: Any, receive: Any, send: Any, _heard: list[Any]) -> None:
    """A group consumer on a worker without Redis."""
    scope["state"]["shards.worker"] = WORKER
    group = scope["path"].removeprefix("/ws/").rstrip("/")
    scope["url_route"] = {"kwargs": {"group": group} if group else {}}
    await rooms(scope, receive, send)


async def talk(request: bytes, texts: list[str]) -> tuple[bytes, list[dict[str, Any]], int | None]:
    """Connect and say something; give the answer to the request, what was said, and the code of a close."""
    host = Host(room, most=4 * 65536)
    await host.feed(request)
    await turn()
    for text in texts:
        await host.feed(frame(Opcode.TEXT, text.encode("utf-8", "surrogatepass")))
        await turn()
    await turn()
    said = frames(host.written) if host.written.startswith(b"HTTP/1.1 101") else []
    await host.end()
    closes = [int.from_bytes(payload[:2], "big") for head, payload in said if head == 0x88]
    answers = [json.loads(payload) for head, payload in said if head == 0x81]
    return bytes(host.written).partition(b"\r\n")[0], answers, closes[0] if closes else None


@pytest.fixture(autouse=True)
def _an_exception_in_the_app_is_seen(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.ERROR)
    yield
    assert "Traceback" not in caplog.text


PLAIN = REQUEST.replace(b"GET /ws/room/?token=T", b"GET /ws/").replace(b"Sec-WebSocket-Protocol: a, b\r\n", b"")


@settings(max_examples=150)
@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_any_text_is_answered_or_ends_in_the_close_that_is_for_it(texts: list[str]) -> None:
    texts = [text for text in texts if text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)]
    _, answers, code = asyncio.run(talk(PLAIN, [*texts, '{"type":"ping"}']))
    assert code is None
    assert answers[0]["type"] == "welcome"
    assert answers[-1] == {"type": "pong"}, "it lives, and is in step"
    assert len(answers) <= 2 + len(texts)
    assert {answer["code"] for answer in answers if answer["type"] == "error"} <= CODES


@settings(max_examples=20)
@given(st.lists(st.text(max_size=5).filter(lambda text: not text.isdigit()), min_size=30, max_size=40))
def test_who_says_nothing_but_nonsense_is_closed_with_1008(texts: list[str]) -> None:
    _, answers, code = asyncio.run(talk(PLAIN, texts))
    assert code == 1008
    assert len(answers) == 22, "a welcome, and 20 errors at once, and the one for which it was closed"


QUERIES = st.lists(
    st.tuples(
        st.sampled_from(["epoch", "offset", "session", "token", "events", "x", ""]),
        st.text(max_size=12) | st.sampled_from(["-1", "0", "9" * 18, "9" * 19, "1e3", "٣", "\x00", "s" * 101]),
    ),
    max_size=5,
).map(lambda pairs: "&".join(f"{quote(name)}={quote(text, errors='replace')}" for name, text in pairs))
RAW = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30)


@settings(max_examples=200)
@example("epoch=%ff&offset=1")
@example("epoch=&offset=")
@example("&&==%&session=%00")
@given(QUERIES | RAW)
def test_a_place_a_session_and_a_token_may_be_anything(query: str) -> None:
    request = PLAIN.replace(b"GET /ws/", b"GET /ws/room/?" + query.replace("#", "").encode())
    status, answers, code = asyncio.run(talk(request, []))
    assert code is None
    if status.startswith(b"HTTP/1.1 403 "):
        assert "session" in query or "token" in query
        return
    assert status.startswith(b"HTTP/1.1 101 "), status
    kinds = [answer["type"] for answer in answers]
    assert kinds in (["welcome", "subscribed"], ["welcome", "error", "subscribed"])
    assert [answer["code"] for answer in answers if answer["type"] == "error"] in ([], ["bad_place"])


@settings(max_examples=100)
@example("http://[")
@example("https://test@evil")
@example("http://\u212b")
@given(st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_categories=["Cc"]), min_size=1, max_size=20))
def test_a_page_of_any_origin_but_our_own_is_refused_and_costs_nothing_more(origin: str) -> None:
    # In lower case, as the HTTP server gives them.
    told = b"host: test\r\norigin: " + origin.encode()
    request = PLAIN.replace(b"Host: test", told)
    status, _, _ = asyncio.run(talk(request, []))
    assert status.startswith(b"HTTP/1.1 403 ")
