"""The dialects of others against a real server that makes mistakes: each one is counted, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns

import pytest

from shards.load.client import Room
from shards.load.connection import Connection, Shared
from shards.load.dialects import DIALECTS
from shards.load.ledger import Tally
from shards.load.plain import PlainRoom, payload
from tests.load.plain_server import PlainServer, running
from tests.load.server import running as running_shards
from tests.load.server import until
from tests.load.test_main import load, patient


@dataclass
class Pair:
    """Two clients of one group, and their server."""

    server: PlainServer
    shared: Shared
    room: PlainRoom
    clients: list[Connection]

    def publish(self, count: int) -> None:
        for number in range(count):
            self.clients[number % 2].publish(monotonic_ns())


@asynccontextmanager
async def pair(dialect: str = "plain", looping: bool = False, **options: object) -> AsyncIterator[Pair]:
    kind = DIALECTS[dialect]
    make = kind.looping if looping else kind.client
    async with running(packets=dialect == "socketio", **options) as server:
        shared, room = Shared(server.url), PlainRoom("room")
        two = Pair(server, shared, room, [make(shared, room, source) for source in (None, "127.0.0.2")])
        for client in two.clients:
            await client.connect()
        await until(lambda: len(server.sockets) == 2)
        try:
            yield two
        finally:
            shared.stopping = True
            shared.looping = False
            for client in two.clients:
                client.close()


@pytest.mark.parametrize("dialect", ["plain", "socketio"])
async def test_all_well(dialect: str) -> None:
    async with pair(dialect) as two:
        two.publish(10)
        await until(lambda: not two.room.ledger.unsettled())
        assert two.room.ledger.tally() == Tally(published=10, ackless=10, expected=20, delivered=20)
        assert two.shared.delivered == len(two.shared.latencies) == 20
        assert 0 < min(two.shared.latencies) <= max(two.shared.latencies) < 5_000_000_000
        assert not two.shared.errors
        assert two.server.pongs == (2 if dialect == "socketio" else 0)


def test_a_payload_is_as_long_as_ours() -> None:
    assert len(payload(0, 0, 1)) == len(payload(4999, 10**6, monotonic_ns())) == 64


async def test_a_message_that_comes_too_late_is_counted() -> None:
    async with pair() as two:
        two.clients[0].publish(monotonic_ns() - 2_000_000_000)
        two.clients[1].publish(monotonic_ns())
        await until(lambda: not two.room.ledger.unsettled())
        assert [account.tally.late for account in two.room.ledger.accounts()] == [1, 1]


async def test_a_dropped_message_is_lost() -> None:
    async with pair(deliver=lambda s, number, text: [] if (s, number) == (1, 3) else [text]) as two:
        two.publish(6)
        expected = Tally(published=6, ackless=6, expected=12, delivered=11, lost=1)
        await until(lambda: two.room.ledger.tally() == expected)
        assert two.room.ledger.unsettled()


async def test_a_doubled_message_is_a_duplicate() -> None:
    async with pair(deliver=lambda s, number, text: [text] * (1 + ((s, number) == (1, 3)))) as two:
        two.publish(6)
        expected = Tally(published=6, ackless=6, expected=12, delivered=12, duplicated=1)
        await until(lambda: two.room.ledger.tally() == expected)


async def test_one_publishers_messages_out_of_turn_are_reordered() -> None:
    held: list[str] = []

    def swap(socket: int, number: int, text: str) -> list[str]:
        if socket == 1 and not held:
            held.append(text)
            return []
        return [text, held[0]] if (socket, number) == (1, 1) else [text]

    async with pair(deliver=swap) as two:
        for _ in range(3):
            two.clients[0].publish(monotonic_ns())
        expected = Tally(published=3, ackless=3, expected=6, delivered=6, reordered=1)
        await until(lambda: two.room.ledger.tally() == expected)


async def test_two_publishers_messages_may_come_in_any_order() -> None:
    async with pair() as two:
        one, other = (client.member for client in two.clients)  # type: ignore[attr-defined]
        two.room.ledger.publish(0), two.room.ledger.publish(1)
        assert all([one.message(0, 0), one.message(1, 1), other.message(1, 1), other.message(0, 0)])
        assert two.room.ledger.tally() == Tally(published=2, ackless=2, expected=4, delivered=4)


async def test_garbage_is_counted_and_survived() -> None:
    async with pair(deliver=lambda s, number, text: ["[9,9,9]", "{", text] if s else [text]) as two:
        two.publish(2)
        await until(lambda: two.shared.errors["protocol"] == 4)
        assert two.room.ledger.tally().delivered == 4


async def test_what_was_missed_meanwhile_is_lost() -> None:
    async with pair() as two:
        await two.server.sockets[1].close(1012)
        two.clients[0].publish(monotonic_ns())
        await until(lambda: two.shared.reconnects == 1)
        two.clients[0].publish(monotonic_ns())
        expected = Tally(published=2, ackless=2, expected=4, delivered=3, lost=1)
        await until(lambda: two.room.ledger.tally() == expected)


@pytest.mark.parametrize("dialect", ["plain", "socketio"])
async def test_a_closed_loop_goes_round_until_it_is_stopped(dialect: str) -> None:
    async with pair(dialect, looping=True) as two:
        two.clients[1].close()
        two.shared.looping = True
        two.clients[0].publish(monotonic_ns())
        await until(lambda: two.shared.delivered >= 50)
        two.shared.looping = False
        two.server.groups.clear()
        published = two.room.ledger.published
        two.clients[0].publish(monotonic_ns())
        await until(lambda: len(two.server.texts) == published + 1)
        assert two.room.ledger.published == published + 1


async def test_a_closed_loop_of_our_own_protocol() -> None:
    async with running_shards() as server:
        shared, room = Shared(server.url), Room("room")
        client = DIALECTS["shards"].looping(shared, room, None)
        await client.connect()
        await until(lambda: len(server.sockets) == 1)
        shared.looping = True
        client.publish(monotonic_ns())
        await until(lambda: shared.delivered >= 50)
        shared.looping, shared.stopping = False, True
        await until(lambda: not room.ledger.unsettled())
        assert room.ledger.tally().lost == 0
        client.close()


async def test_a_run_against_a_server_of_others(tmp_path: Path) -> None:
    small = ("--connections", "20", "--rate", "1000", "--duration", "1.5", "--processes", "1")
    async with running() as server:
        status, said = await load(patient(tmp_path), "run", "--url", server.url, "--dialect", "plain", *small)
    document = json.loads((tmp_path / "reports" / "run.json").read_text())
    assert (status, document["verdict"]) == (0, "pass"), document
    assert said == "run: pass — reports/run.json and run.html"
    messages = document["messages"]
    assert messages["expected"] == messages["delivered"] == 10 * messages["published"] > 0
    assert messages["publishers"] == 20
    assert "unacked" not in {target["name"] for target in document["targets"]}


async def test_a_dialect_of_others_needs_an_address(tmp_path: Path) -> None:
    status, said = await load(tmp_path, "run", "--dialect", "socketio")
    assert status == 2
    assert said.startswith("error: --dialect socketio is for a server of others: say where it is")
