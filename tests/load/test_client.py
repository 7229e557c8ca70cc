"""The client against a real server that makes mistakes: each one is counted, and nothing else is."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic_ns
from types import SimpleNamespace
from typing import Any

import pytest

from shards.load import connection
from shards.load.client import Client, Room
from shards.load.connection import CONNECT_ERRORS, Shared, reason
from shards.load.ledger import Tally
from tests.load.server import Server, running, until


class Pair:
    """Two clients of one group, and their server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.shared = Shared(server.url)
        self.room = Room("room")
        self.clients = [Client(self.shared, self.room), Client(self.shared, self.room, "127.0.0.2")]

    async def publish(self, count: int) -> None:
        for number in range(count):
            self.clients[number % 2].publish(monotonic_ns())

    async def settled(self) -> Tally:
        await until(lambda: not self.room.ledger.unsettled())
        return self.room.ledger.tally()


@asynccontextmanager
async def pair(**options: object) -> AsyncIterator[Pair]:
    async with running(**options) as server:
        made = Pair(server)
        for client in made.clients:
            await client.connect()
        await until(lambda: len(server.sockets) == 2)
        try:
            yield made
        finally:
            made.shared.stopping = True
            for client in made.clients:
                client.close()


async def test_all_well() -> None:
    async with pair() as two:
        await two.publish(10)
        assert await two.settled() == Tally(published=10, acked=10, expected=20, delivered=20)
        assert two.shared.delivered == len(two.shared.latencies) == 20
        assert 0 < min(two.shared.latencies) <= max(two.shared.latencies) < 5_000_000_000
        assert not two.shared.errors
        assert two.shared.open == 2
        assert two.server.sockets[1].remote_address[0] == "127.0.0.2"


async def test_a_dropped_message_is_lost() -> None:
    async with pair(deliver=lambda s, offset, frame: [] if (s, offset) == (1, 3) else [frame]) as two:
        await two.publish(5)
        assert await two.settled() == Tally(published=5, acked=5, expected=10, delivered=9, lost=1, jumps=1)


async def test_a_doubled_message_is_a_duplicate() -> None:
    async with pair(deliver=lambda s, offset, frame: [frame] * (1 + ((s, offset) == (1, 3)))) as two:
        await two.publish(5)
        assert await two.settled() == Tally(published=5, acked=5, expected=10, delivered=10, duplicated=1)


async def test_swapped_messages_are_reordered() -> None:
    held: list[str] = []

    def swap(socket: int, offset: int, frame: str) -> list[str]:
        if (socket, offset) == (1, 3):
            held.append(frame)
            return []
        return [frame, held.pop()] if socket == 1 and held else [frame]

    async with pair(deliver=swap) as two:
        await two.publish(5)
        expected = Tally(published=5, acked=5, expected=10, delivered=10, reordered=1, jumps=1)
        await two.settled()
        await until(lambda: two.room.ledger.tally() == expected)


async def test_a_loss_a_duplicate_and_a_swap_are_each_found_with_the_client_they_hit() -> None:
    """Three clients of one group, and a server that drops 2 for the first, doubles 3 for the next, swaps 4 and 5."""
    held: list[str] = []

    def lie(socket: int, offset: int, frame: str) -> list[str]:
        if (socket, offset) == (0, 2):
            return []
        if (socket, offset) == (1, 3):
            return [frame, frame]
        if (socket, offset) == (2, 4):
            held.append(frame)
            return []
        return [frame, held.pop()] if socket == 2 and held else [frame]

    async with pair(deliver=lie) as two:
        third = Client(two.shared, two.room)
        await third.connect()
        two.clients.append(third)
        await until(lambda: len(two.server.sockets) == 3)
        for _ in range(6):
            two.clients[0].publish(monotonic_ns())
        await until(lambda: two.shared.delivered == 17)
        books = two.room.ledger.accounts()
        assert [account.examples for account in books] == [
            ["lost: offset 2, id 1"],
            ["duplicated: offset 3, id 2"],
            ["reordered: offset 4, id 3, after offset 5"],
        ]
        assert [account.tally.faults for account in books] == [1 + 1, 1, 1 + 1], "a jump each with the loss and swap"


async def test_a_message_that_comes_too_late_is_counted_with_who_got_it() -> None:
    async with pair() as two:
        two.clients[0].publish(monotonic_ns() - 2_000_000_000)
        two.clients[1].publish(monotonic_ns())
        tally = await two.settled()
        assert (tally.late, tally.delivered, tally.faults) == (2, 4, 0)
        assert [account.tally.late for account in two.room.ledger.accounts()] == [1, 1]


async def test_a_closed_loop_would_have_left_out_all_but_one_message_of_a_stall() -> None:
    """Coordinated omission, in counts: 20 messages are due in a stall, 10 of each client; it would have sent 2."""
    async with pair(stall=(3, 0.2)) as two:
        await two.publish(2)
        await two.settled()
        assert len(two.shared.naive) == 2
        await two.publish(20)
        await two.settled()
        assert len(two.shared.latencies) == 2 * 22
        assert len(two.shared.naive) == 4
        assert sum(latency > 100_000_000 for latency in two.shared.latencies[4:]) == 2 * 20
        assert sum(latency > 100_000_000 for latency in two.shared.naive[2:]) == 2


@pytest.mark.parametrize(
    "frame",
    [
        *("{", "[]", '{"type":"surprise"}'),
        '{"type":"message","group":"room","offset":1,"id":"x","data":{"t":1}}',
        # But for its group it would be the one that is due.
        '{"type":"message","group":"other","offset":3,"id":"2","data":{"t":1}}',
    ],
)
async def test_garbage_is_counted_and_survived(frame: str) -> None:
    async with pair(deliver=lambda s, offset, real: [frame, real] if (s, offset) == (1, 3) else [real]) as two:
        await two.publish(5)
        assert (await two.settled()).delivered == 10
        assert two.shared.errors == {"protocol": 1}
        assert two.shared.examples["protocol"]


async def test_a_hint_moves_the_client_and_nothing_is_lost() -> None:
    async with pair() as two:
        await two.publish(4)
        await two.server.say(two.server.sockets[1], type="reconnect", within_ms=50)
        await two.publish(4)
        await until(lambda: two.shared.reconnects == 1)
        await two.publish(4)
        assert await two.settled() == Tally(published=12, acked=12, expected=24, delivered=24)
        assert two.server.sessions == [None, None, "s1"]
        assert two.shared.closed_by_server == 0
        assert two.shared.open == 2


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 4000])
async def test_a_close_brings_the_client_back(code: int) -> None:
    async with pair() as two:
        await two.publish(4)
        await two.server.sockets[1].close(code)
        await two.publish(4)
        await until(lambda: two.shared.reconnects == 1)
        assert await two.settled() == Tally(published=8, acked=8, expected=16, delivered=16)
        assert two.shared.closed_by_server == 1


async def test_a_cut_connection_brings_the_client_back() -> None:
    async with pair() as two:
        two.server.sockets[0].transport.abort()
        await until(lambda: two.shared.reconnects == 1)
        await two.publish(4)
        assert (await two.settled()).delivered == 8


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 1010])
async def test_a_close_for_a_violation_is_final(code: int) -> None:
    async with pair() as two:
        await two.server.sockets[1].close(code)
        await until(lambda: two.shared.open == 1)
        assert two.shared.errors == {f"closed for good with {code}": 1}
        assert not two.clients[1].subscribed


async def test_what_was_due_without_a_socket_is_as_late_as_its_publisher_was_away() -> None:
    """Coordinated omission: both count from when it began, however many attempts to come back fail, and though what
    was due is sent, and the last attempt made, much later."""
    async with pair() as two:
        two.server.refuse = 503
        await two.server.sockets[0].close(1012)
        await until(lambda: not two.clients[0].subscribed)
        due = monotonic_ns()
        two.clients[0].publish(due)
        await until(lambda: monotonic_ns() > due + 1_000_000_000 and two.shared.errors.total() >= 2)
        two.server.refuse = None
        assert (await two.settled()).delivered == 2
        assert min(two.shared.latencies) >= 1_000_000_000
        assert min(away for _, away in two.shared.away) >= 1_000_000_000


async def test_who_can_not_come_back_tries_less_and_less_often_but_never_waits_over_5_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However long the server was away, 5 s after its return all clients have tried again."""
    delays: list[tuple[float, float]] = []

    def at_once(least: float, most: float) -> float:
        delays.append((least, most))
        return 0.0

    async with pair() as two:
        monkeypatch.setattr(connection, "random", SimpleNamespace(uniform=at_once))
        two.server.refuse = 503
        await two.server.sockets[1].close(1012)
        await until(lambda: len(delays) > 12)
        two.server.refuse = None
        await until(lambda: two.shared.reconnects == 1)
        assert [most for _, most in delays[:4]] == [0.1, 0.2, 0.4, 0.8]
        assert {most for _, most in delays[10:]} == {5.0}
        assert {least for least, _ in delays} == {0}


async def test_what_was_not_acked_is_sent_again_with_the_same_id() -> None:
    async with pair(mute=2) as two:
        await two.publish(2)
        await until(lambda: two.server.mute == 0)
        for socket in two.server.sockets[:2]:
            await socket.close(1012)
        await until(lambda: two.shared.reconnects == 2)
        assert await two.settled() == Tally(published=2, acked=2, expected=4, delivered=4)


async def test_what_has_piled_up_is_sent_no_faster_than_the_service_takes_it() -> None:
    """Else some are refused, and those behind them lie before them in the log."""
    async with pair(mute=300, limit=(1000, 1000)) as two:
        for _ in range(300):
            two.clients[0].publish(monotonic_ns())
        await until(lambda: two.server.mute == 0)
        two.server.limit = (100, 200)
        await two.server.sockets[0].close(1012)
        await until(lambda: two.shared.reconnects == 1)
        two.clients[0].publish(monotonic_ns())
        await until(lambda: len(two.server.log) == 301)
        tally = await two.settled()
        assert (tally.delivered, tally.faults) == (602, 0)
        assert not two.shared.errors


async def cut_off(two: Pair, number: int) -> None:
    """Close a client's socket, and wait until it is back."""
    before = two.shared.reconnects
    await two.server.sockets[number].close(1012)
    await until(lambda: two.shared.reconnects == before + 1)


async def test_a_message_whose_ack_was_lost_is_sent_again_and_delivered_once() -> None:
    async with pair(silent=1) as two:
        await two.publish(1)
        await until(lambda: len(two.server.log) == 1)
        await cut_off(two, 0)
        await cut_off(two, 1)
        assert await two.settled() == Tally(published=1, acked=1, expected=2, delivered=2)


async def test_a_server_that_forgets_ids_duplicates_what_is_sent_again() -> None:
    async with pair(silent=1, forget=True) as two:
        await two.publish(1)
        await until(lambda: len(two.server.log) == 1)
        await cut_off(two, 1)
        await cut_off(two, 0)
        expected = Tally(published=1, acked=1, expected=4, delivered=4, duplicated=2)
        await until(lambda: two.room.ledger.tally() == expected)


async def test_a_resume_too_late_loses() -> None:
    async with pair(shift=1) as two:
        await two.publish(2)
        await two.settled()
        await two.server.sockets[1].close(1012)
        two.clients[0].publish(monotonic_ns())
        two.clients[0].publish(monotonic_ns())
        await until(lambda: two.shared.reconnects == 1 and not two.room.ledger.unsettled())
        assert two.room.ledger.tally() == Tally(published=4, acked=4, expected=8, delivered=7, lost=1, jumps=1)


async def test_a_resume_too_early_duplicates() -> None:
    async with pair(shift=-1) as two:
        await two.publish(2)
        await two.settled()
        await cut_off(two, 1)
        await until(lambda: two.room.ledger.tally().duplicated == 1)
        assert two.room.ledger.tally() == Tally(published=2, acked=2, expected=4, delivered=4, duplicated=1)


async def test_an_acked_message_that_nobody_gets_is_lost_for_all() -> None:
    async with pair(deliver=lambda s, offset, frame: [] if offset == 3 else [frame]) as two:
        await two.publish(3)
        await until(lambda: two.room.ledger.tally().acked == 3)
        assert two.room.ledger.unsettled()
        assert two.room.ledger.tally() == Tally(published=3, acked=3, expected=6, delivered=4, lost=2)


async def test_who_was_asked_to_move_later_comes_back_at_once_when_cut_off() -> None:
    async with pair() as two:
        await two.server.say(two.server.sockets[1], type="reconnect", within_ms=60_000_000)
        await two.publish(2)
        await two.settled()
        await cut_off(two, 1)
        assert len(two.shared.away) == 1
        assert 0 < two.shared.away[0][1] < 10_000_000_000
        await two.publish(2)
        assert (await two.settled()).delivered == 8


async def test_a_server_that_forgets_where_it_was_says_so_or_loses() -> None:
    async with pair(recover=False) as two:
        await two.publish(2)
        await two.settled()
        await two.server.sockets[1].close(1012)
        two.clients[0].publish(monotonic_ns())
        await until(lambda: two.shared.reconnects == 1)
        tally = await two.settled()
        assert tally.lost == 0
        assert tally.expected == tally.delivered + tally.skipped == 6


async def test_a_publish_that_is_refused_is_told_and_tried_again() -> None:
    async with pair(mute=1) as two:
        two.clients[0].publish(monotonic_ns())
        await until(lambda: two.server.mute == 0)
        await two.server.say(two.server.sockets[0], type="error", code="rate_limited", message="slow down", id="0")
        tally = await two.settled()
        assert tally.delivered == 2
        assert two.shared.errors == {"publish refused: rate_limited": 1}
        assert min(two.shared.latencies) >= 500_000_000, "from when it was due, not from when it was sent again"


@pytest.mark.parametrize(
    "about", [{}, {"id": "0"}, {"id": "7"}, {"id": "x"}], ids=["none", "acked", "not yet", "alien"]
)
async def test_an_error_frame_that_refuses_nothing_under_way_is_counted(about: dict[str, str]) -> None:
    async with pair() as two:
        await two.publish(1)
        await two.settled()
        await two.server.say(two.server.sockets[0], type="error", code="bad_message", message="what?", **about)
        await until(lambda: two.shared.errors == {"error frame bad_message": 1})


async def test_a_subscription_that_is_refused_fails_the_attempt_at_once_and_is_tried_again_by_who_had_it() -> None:
    async with pair() as two:
        two.server.closed = 2
        with pytest.raises(CONNECT_ERRORS) as caught:
            await Client(two.shared, two.room).connect()
        assert reason(caught.value) == "not subscribed: unavailable"
        await cut_off(two, 1)
        assert two.shared.errors == {"reconnect failed: not subscribed: unavailable": 1}
        assert two.shared.open == 2


async def test_a_client_that_has_no_file_left_to_come_back_with_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair() as two:
        real, left = connection.ws_connect, [2]

        async def full(*arguments: Any, **options: Any) -> Any:
            if left[0]:
                left[0] -= 1
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return await real(*arguments, **options)

        monkeypatch.setattr(connection, "ws_connect", full)
        await cut_off(two, 1)
        assert two.shared.errors == {"reconnect failed: Too many open files": 2}


@pytest.mark.parametrize("status", [403, 503])
async def test_a_refused_upgrade_names_its_status(status: int) -> None:
    async with running(refuse=status) as server:
        shared = Shared(server.url)
        with pytest.raises(CONNECT_ERRORS) as caught:
            await Client(shared, Room("room")).connect()
        assert reason(caught.value) == f"HTTP {status}"
        assert shared.open == 0


async def test_the_urls_query_is_kept() -> None:
    shared = Shared("ws://h:1/ws/?token=t")
    assert shared.group_url("g", {}) == "ws://h:1/ws/g/?token=t"
    assert shared.group_url("g", {"offset": 5}) == "ws://h:1/ws/g/?token=t&offset=5"


async def test_an_address_may_say_where_the_group_goes() -> None:
    assert Shared("ws://h:1/echo?room={group}").group_url("g", {}) == "ws://h:1/echo?room=g"
    assert Shared("ws://h:1/{group}/sub").group_url("g", {"offset": 5}) == "ws://h:1/g/sub?offset=5"
