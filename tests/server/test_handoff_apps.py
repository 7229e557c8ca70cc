"""Apps of every kind, whose clients are handed over: what each may rely on."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from shards.server.handoff.window import MOST
from tests.replica import ROOT, Replica
from tests.server.test_handoff import activate, handed, moving, until
from tests.server.test_wire import enter

ENVIRON = {"SHARDS_APP": "moving:application", "SHARDS_APP_DIR": str(ROOT / "tests" / "apps" / "moving")}


async def open_at(replica: Replica, path: str) -> ClientConnection:
    return await connect(f"ws://127.0.0.1:{replica.port}/{path}/", compression=None, max_queue=None)


async def heard(client: ClientConnection) -> str:
    return str(await asyncio.wait_for(client.recv(), 60))


async def test_members_of_a_channel_group_miss_nothing_and_hear_nothing_twice(service: list[Replica]) -> None:
    """Async, sync and raw consumers, while somebody talks all the time."""
    old, new = service
    members = [await open_at(old, kind) for kind in ("room", "sync", "raw", "room", "sync", "raw")]
    talker = await open_at(new, "room")
    said = 0
    stop = asyncio.Event()

    async def talk() -> None:
        nonlocal said
        while not stop.is_set():
            await talker.send(f"{said}")
            said += 1
            assert await heard(talker) == f"{said - 1}"

    talking = asyncio.create_task(talk())
    async with moving(old, new, 6):
        pass
    stop.set()
    await talking
    for member in members:
        assert [await heard(member) for _ in range(said)] == [str(number) for number in range(said)]
    await members[0].send("and back")
    assert [await heard(member) for member in (*members, talker)] == ["and back"] * 7
    for member in (*members, talker):
        await member.close()


async def test_a_consumer_takes_along_what_it_wants_to(service: list[Replica]) -> None:
    old, new = service
    client = await open_at(old, "counts")
    await client.send("one")
    assert json.loads(await heard(client)) == [1, False]
    async with moving(old, new, 1):
        pass
    await client.send("two")
    assert json.loads(await heard(client)) == [2, True]
    await client.close()


async def test_a_group_consumer_takes_along_what_it_wants_to_as_often_as_it_moves(service: list[Replica]) -> None:
    old, new = service
    client = await enter(old.ws)
    for giver, taker in ((old, new), (new, old)):
        async with moving(giver, taker, 1):
            pass
    for moves, kind in ((1, "ack"), (2, "error")):
        await client.say(type="publish", group=f"moved:{moves}", id=str(moves), data=1)
        assert (await client.hear())["type"] == kind
    await client.close()


async def test_what_a_client_says_while_its_app_is_busy_is_answered_once(service: list[Replica]) -> None:
    old, new = service
    client = await open_at(old, "slow")
    async with moving(old, new, 1):
        for number in range(5):
            await client.send(str(number))
    assert [await heard(client) for _ in range(5)] == ["0", "1", "2", "3", "4"]
    await client.close()


async def last_words(client: ClientConnection) -> str:
    """Say something, and give the last that is heard until the client is closed."""
    last = ""
    with suppress(ConnectionClosed):
        await client.send("still here")
        while True:
            last = await heard(client)
    return last


@pytest.mark.parametrize(
    ("kind", "result"),
    [
        ("stays", "unfit"),
        ("toomuch", "unfit"),
        ("stuck", "failed"),
        ("broken", "failed"),
        ("picky", "refused"),
        ("late", "refused"),
    ],
)
async def test_who_may_not_move_goes_on_until_it_is_drained(service: list[Replica], kind: str, result: str) -> None:
    old, new = service
    before = handed(old, result)
    # They are closed at one a second: of several, the last is still there when it is asked.
    clients = [await open_at(old, kind) for _ in range(4)]
    old.order("draining", 10_000, (new.name,), alone=True)
    try:
        await until(lambda: handed(old, result) >= before + 4)
        said = await asyncio.gather(*(last_words(client) for client in clients))
        assert kind != "picky" or "still here" in said
        codes = [client.close_code for client in clients]
        assert codes == [1012] * 4
    finally:
        await activate(old)


async def test_who_has_no_end_of_work_keeps_nobody_else_from_moving(service: list[Replica]) -> None:
    """More of them than are on their way at a time, and each would be waited for."""
    old, new = service
    busy = [await open_at(old, "busy") for _ in range(20 * MOST)]
    idle = [await open_at(old, "counts") for _ in range(4)]
    before = handed(new, "taken")
    for client in busy:
        await client.send("begin")
    old.order("draining", 60_000, (new.name,), alone=True)
    try:
        await until(lambda: handed(new, "taken") >= before + len(idle), seconds=15)
        for client in idle:
            await client.send("one")
            assert json.loads(await heard(client)) == [1, True]
            await client.close()
    finally:
        await activate(old)
        for client in busy:
            client.transport.abort()


async def test_a_replica_that_is_stopped_hands_its_sockets_to_its_color(service: list[Replica]) -> None:
    old, _new = service
    for replica in service:
        await activate(replica)
    client = await open_at(old, "counts")
    await client.send("one")
    assert json.loads(await heard(client)) == [1, False]
    await asyncio.to_thread(old.stop)
    try:
        await client.send("two")
        assert json.loads(await heard(client)) == [2, True]
        await client.close()
    finally:
        await asyncio.to_thread(old.start)
