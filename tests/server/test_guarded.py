"""Who may do what is the app's word, for every command that touches a group."""

from __future__ import annotations

import pytest

from tests.replica import ROOT, Replica
from tests.server.test_wire import enter

ENVIRON = {"SHARDS_APP": "guarded:application", "SHARDS_APP_DIR": str(ROOT / "tests" / "apps" / "guarded")}


@pytest.mark.parametrize(
    "command",
    [
        {"type": "subscribe", "group": "secret"},
        {"type": "history", "group": "secret"},
        {"type": "presence", "group": "secret"},
        {"type": "publish", "group": "secret", "id": "1", "data": 1},
        {"type": "publish", "group": "open-notices", "id": "1", "data": 1},
    ],
    ids=lambda command: f"{command['type']} {command['group']}",
)
async def test_what_the_app_forbids_is_refused(service: list[Replica], command: dict[str, object]) -> None:
    client = await enter(service[0].ws)
    await client.say(**command)
    error = await client.hear()
    assert (error["type"], error["code"]) == ("error", "forbidden")
    await client.close()


async def test_what_the_app_allows_is_done(service: list[Replica]) -> None:
    client = await enter(service[0].ws)
    await client.say(type="subscribe", group="open-room")
    assert (await client.hear())["type"] == "subscribed"
    await client.say(type="publish", group="open-room", id="1", data=1)
    assert (await client.hear_all(2)).keys() == {"ack", "message"}
    await client.close()


async def test_who_comes_and_goes_is_told_where_the_app_says_so(service: list[Replica]) -> None:
    watcher, other = await enter(service[0].ws), await enter(service[0].ws)
    for client, events in ((watcher, True), (other, False)):
        for group in ("open-quiet", "open-room"):
            await client.say(type="subscribe", group=group, events=events)
            assert (await client.hear())["type"] == "subscribed"
    joined = await watcher.hear()
    await other.close()
    left = await watcher.hear()
    assert [(frame["type"], frame["group"]) for frame in (joined, left)] == [
        ("join", "open-room"),
        ("leave", "open-room"),
    ]
    await watcher.close()
