"""One connection's order, where a server, or whoever is told what it says, does not do as it should."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from shards.log.copied import Gate
from shards.log.link import Link, LinkLost, Reply


class Wire:
    """A connection to a server whose every word the test says."""

    def __init__(self) -> None:
        self.lost = 0
        self.pushed: list[bytes] = []
        self.dropped = False
        self.link = Link(self.heard, self.count)
        self.link.connection_made(cast(asyncio.Transport, self))

    def heard(self, channel: bytes, payload: bytes) -> None:
        self.pushed.append(payload)

    def count(self, link: Link) -> None:
        self.lost += 1

    def write(self, data: bytes) -> None:
        pass

    def abort(self) -> None:
        if not self.dropped:
            self.dropped = True
            asyncio.get_running_loop().call_soon(self.link.connection_lost, None)

    def says(self, data: bytes) -> None:
        self.link.data_received(data)


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_after_an_answer_that_is_none_no_other_is_believed() -> None:
    wire, told = Wire(), dict[str, list[Reply]](a=[], b=[], c=[])

    def doubt(reply: Reply) -> None:
        told["a"].append(reply)
        wire.link.abort()

    wire.link.send(doubt, "A")
    wire.link.send(told["b"].append, "B")
    wire.link.send(told["c"].append, "C")
    wire.says(b"+OK\r\n:7\r\n-OOM\r\n")
    await turn()
    assert told["a"] == [b"OK"]
    assert [type(told[name][0]) for name in "bc"] == [LinkLost, LinkLost]
    assert (len(told["b"]), len(told["c"]), wire.lost) == (1, 1, 1)


async def test_a_subscription_that_is_refused_is_nobody_elses_answer() -> None:
    wire, told = Wire(), list[Reply]()
    wire.link.send_pushed("SUBSCRIBE", "x", "y")
    wire.link.send(told.append, "A")
    wire.says(b"-NOPERM no channels for you\r\n:7\r\n")
    await turn()
    assert [type(one) for one in told] == [LinkLost]
    assert wire.lost == 1


async def test_pushes_that_confirm_take_their_place_among_the_answers() -> None:
    wire, told = Wire(), list[Reply]()
    wire.link.send(told.append, "A")
    wire.link.send_pushed("SUBSCRIBE", "x", "y")
    wire.link.send(told.append, "B")
    wire.link.send_pushed("UNSUBSCRIBE", "x")
    wire.link.send(told.append, "C")
    wire.says(b":1\r\n>3\r\n+subscribe\r\n+x\r\n:1\r\n>3\r\n+message\r\n+x\r\n+hi\r\n>3\r\n+subscribe\r\n+y\r\n:2\r\n")
    wire.says(b":2\r\n>3\r\n+unsubscribe\r\n+x\r\n:1\r\n:3\r\n")
    assert told == [1, 2, 3]
    assert wire.pushed == [b"hi"]
    assert not wire.dropped


async def test_one_that_fails_when_it_is_told_costs_nobody_else_the_word(caplog: pytest.LogCaptureFixture) -> None:
    wire, told = Wire(), list[Reply]()

    def fails(reply: Reply) -> None:
        raise RuntimeError("an app's")

    wire.link.send(fails, "A")
    wire.link.send(told.append, "B")
    wire.link.send(fails, "C")
    wire.link.send(told.append, "D")
    wire.says(b":1\r\n")
    await turn()
    assert [type(one) for one in told] == [LinkLost, LinkLost]
    assert wire.lost == 1
    assert "an app's" in caplog.text


@pytest.mark.parametrize("fault", ["nonsense", "one who is told fails"])
async def test_what_waits_for_a_copy_is_told_where_the_answer_is_none(fault: str) -> None:
    wire, told = Wire(), list[Reply]()
    gate = Gate(wire.link, wire.heard)

    def fails(reply: Reply) -> None:
        if not isinstance(reply, LinkLost):
            raise RuntimeError("an app's")

    wire.link.send(gate.after(fails if fault != "nonsense" else told.append), "A")
    wire.link.send(gate.after(told.append), "B")
    await turn()
    wire.says(b":1\r\n:2\r\n+PONG\r\n" + (b"+OK\r\n" if fault == "nonsense" else b":1\r\n"))
    await turn()
    assert told and all(isinstance(one, LinkLost) for one in told), told
    assert len(told) == (2 if fault == "nonsense" else 1)
    assert wire.dropped
