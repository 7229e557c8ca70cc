"""Who is in a group, who comes and who goes, as clients on two replicas hear it."""

from __future__ import annotations

import asyncio
from typing import Any

from shards.attendance import _LOOK_SECONDS
from shards.plane import _REGISTRY_SECONDS
from shards.router.control import WORKER_DEAD_AFTER_MS
from tests.replica import Replica
from tests.server.test_wire import Client, enter


async def enter_group(replica: Replica, group: str, query: str = "") -> Client:
    client = await enter(f"{replica.ws}{group}/{query}")
    assert (await client.hear())["type"] == "subscribed"
    return client


async def present(client: Client, group: str) -> dict[str, Any]:
    await client.say(type="presence", group=group)
    while (frame := await client.hear())["type"] != "presence":
        pass
    return frame


async def until_present(client: Client, group: str, count: int, seconds: float = 60) -> dict[str, Any]:
    """Ask until so many are there; gives the answer."""
    async with asyncio.timeout(seconds):
        while (frame := await present(client, group))["count"] != count:
            await asyncio.sleep(0.05)
    return frame


async def watch(replica: Replica, group: str) -> Client:
    """Give a client that hears who comes and goes."""
    watcher = await enter(replica.ws)
    await watcher.say(type="subscribe", group=group, events=True)
    assert (await watcher.hear())["type"] == "subscribed"
    return watcher


async def test_who_comes_and_goes_is_told_on_every_replica(service: list[Replica]) -> None:
    watchers = [await watch(service[0], "told")]
    await until_present(elsewhere := await enter(service[1].ws), "told", 1)
    watchers += [second := await enter_group(service[1], "told", "?events=1")]
    joined = await watchers[0].hear()
    assert (joined["type"], joined["group"]) == ("join", "told")
    await until_present(second, "told", 2)
    third = await enter_group(service[0], "told")
    member = (await watchers[0].hear())["member"]
    assert await second.hear() == {"type": "join", "group": "told", "member": member}
    named = await until_present(watchers[0], "told", 3)
    assert {joined["member"], member} <= set(named["members"])
    await third.close()
    for watcher in watchers:
        assert await watcher.hear() == {"type": "leave", "group": "told", "member": member}
    for client in (*watchers, elsewhere):
        await client.close()


async def test_who_does_not_ask_is_told_nothing_and_nor_is_anyone_of_itself(service: list[Replica]) -> None:
    silent = await enter_group(service[0], "mute")
    watcher = await watch(service[0], "mute")
    third = await enter_group(service[1], "mute")
    assert (await watcher.hear())["type"] == "join"
    await third.close()
    assert (await watcher.hear())["type"] == "leave"
    await watcher.say(type="unsubscribe", group="mute")
    for client in (silent, watcher):
        await client.say(type="ping")
        assert await client.hear() == {"type": "pong"}, "nothing was said before"
        await client.close()


async def test_who_reconnects_elsewhere_was_never_away(service: list[Replica]) -> None:
    watcher = await watch(service[0], "again")
    client = await enter_group(service[0], "again")
    joined = await watcher.hear()
    await client.close()
    client = await enter_group(service[1], "again", f"?session={client.welcome['session']}")
    last = await enter_group(service[1], "again")
    assert (await watcher.hear())["member"] != joined["member"]
    await last.close()
    assert (await watcher.hear())["type"] == "leave"
    assert joined["member"] in (await until_present(watcher, "again", 2))["members"]
    await client.close()
    await watcher.close()


async def test_a_crowd_is_counted_and_not_named(service: list[Replica]) -> None:
    watcher = await watch(service[0], "crowd")
    clients = await asyncio.gather(*(enter_group(service[1], "crowd") for _ in range(130)))
    counted = 0
    while counted != 131:
        frame = await watcher.hear()
        if frame["type"] == "presence":
            assert frame["members"] == []
            counted = frame["count"]
    asked = await until_present(watcher, "crowd", 131)
    assert len(asked["members"]) == 101, "each worker names a hundred"
    await asyncio.gather(*(client.close() for client in clients))
    await watcher.close()


async def test_a_killed_workers_members_are_gone_when_the_registry_gives_it_up(service: list[Replica]) -> None:
    within_s = WORKER_DEAD_AFTER_MS / 1000 + _REGISTRY_SECONDS + _LOOK_SECONDS
    assert within_s <= 5, "the time in which they are said to be gone"
    watcher = await watch(service[0], "killed-crowd")
    clients = [await enter_group(service[1], "killed-crowd") for _ in range(3)]
    joined = {(await watcher.hear())["member"] for _ in clients}
    await until_present(watcher, "killed-crowd", 4)
    service[1].stop(kill=True)
    try:
        left = {(await watcher.hear())["member"] for _ in clients}
        assert left == joined
        assert (await present(watcher, "killed-crowd"))["count"] == 1
    finally:
        service[1].start()
    await watcher.close()
