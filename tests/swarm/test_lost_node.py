"""Commands while a node is gone: what needs not wait for it goes on elsewhere, and they say what does."""

from __future__ import annotations

import asyncio
import re
import secrets
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shards.fleet.engines.docker.stack import FLEET_LABEL
from shards.ports import free_port
from tests.contract.engines import SwarmCommands, fleets
from tests.fleet import sites
from tests.fleet.clients import crowd
from tests.fleet.runner import finish, steady
from tests.fleet.sites import Site
from tests.swarm.lab import Lab, Node

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(900)]

STEADY_S = 120.0
ENDS_S = 150.0
"""Within which a promote gives up that waits for a replica of a node that is lost."""
QUICKLY_S = 60.0
"""Within which a command says what it does not wait for; the machine may be many times slower than usual."""


@pytest.fixture
def commands(swarm_lab: Lab, tmp_path: Path) -> Iterator[SwarmCommands]:
    """Commands for a fleet that was never started."""
    for made in fleets("swarm", tmp_path / "fleets", free_port(()), f"t-{secrets.token_hex(4)}", swarm_lab):
        assert isinstance(made, SwarmCommands)
        yield made


@asynccontextmanager
async def meanwhile(away: AbstractContextManager[None]) -> AsyncIterator[None]:
    """Have a node be away, while clients go on."""
    await asyncio.to_thread(away.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(away.__exit__, None, None, None)


def nodes_of(parts: Sequence[dict[str, Any]]) -> set[str]:
    return {one["node"] for one in parts}


def on(parts: Sequence[dict[str, Any]], node: Node) -> dict[str, Any]:
    """Find the part that is on a node."""
    return next(one for one in parts if one["node"] == node.name)


def begun(commands: SwarmCommands, line: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a command, and wait until it says something that begins so."""
    command = commands.start(*arguments)
    assert command.stderr is not None
    said = ""
    for said in command.stderr:
        if said.startswith(line):
            return command
    raise AssertionError(f"inv {' '.join(arguments)} ended: {said}")


def killed_after(commands: SwarmCommands, line: str, *arguments: str) -> None:
    """Run a command, and kill it as soon as it says something that begins so."""
    command = begun(commands, line, *arguments)
    command.send_signal(signal.SIGKILL)
    finish(command)


async def test_a_promote_does_not_wait_for_an_edge_on_a_node_that_is_gone(
    commands: SwarmCommands, swarm_lab: Lab
) -> None:
    await asyncio.to_thread(commands.ok, "up", "--replicas", "1", "--shards", "1", "--edges", "3")
    before = await asyncio.to_thread(commands.until, steady, STEADY_S)
    lost = swarm_lab.nodes[2]
    assert nodes_of(before["replicas"]) | nodes_of(before["shards"]) == {swarm_lab.manager.name}
    async with crowd(commands.url, 20) as ledger:
        async with meanwhile(swarm_lab.killed(lost)):
            await asyncio.to_thread(commands.ok, "promote")
            after = await asyncio.to_thread(commands.status)
            assert after["active_color"] != before["active_color"]
            assert on(after["edges"], lost)["name"] == on(before["edges"], lost)["name"], "nobody has started it"
            await asyncio.to_thread(commands.ok, "restart", after["replicas"][0]["name"])
        await asyncio.to_thread(commands.until, steady, STEADY_S)
    assert (ledger.failures, ledger.faults, ledger.connects) == ([], [], 20)


async def test_a_promote_whose_node_leaves_before_the_switch_ends_and_the_old_color_serves(
    commands: SwarmCommands, swarm_lab: Lab
) -> None:
    await asyncio.to_thread(commands.ok, "up", "--replicas", "3", "--shards", "1", "--edges", "1")
    before = await asyncio.to_thread(commands.until, steady, STEADY_S)
    old, lost = before["active_color"], swarm_lab.nodes[2]
    assert lost.name in nodes_of(before["replicas"])
    assert lost.name not in nodes_of(before["shards"]) | nodes_of(before["edges"])
    async with crowd(commands.url, 30) as ledger:
        promote = await asyncio.to_thread(begun, commands, "starting 3 replicas", "promote")
        async with meanwhile(swarm_lab.left(lost)):
            ended = await asyncio.to_thread(finish, promote, ENDS_S)
            assert ended.code == 1
            why = rf"{lost.name}, where it shall run, is gone .*; {old} serves as before, \w+ was taken away$"
            assert re.search(why, ended.last), ended.stderr
            assert "Traceback" not in ended.stderr
            after = await asyncio.to_thread(commands.status)
            assert (after["active_color"], {one["color"] for one in after["replicas"]}) == (old, {old})
            await asyncio.to_thread(commands.ok, "promote")
            healed = await asyncio.to_thread(commands.until, steady, STEADY_S)
            assert healed["active_color"] != old
            assert lost.name not in nodes_of(healed["replicas"])
        await asyncio.to_thread(commands.ok, "promote")
        assert (await asyncio.to_thread(commands.status))["active_color"] == old
    assert ledger.faults == [], "whoever was on the node comes back with its place"


@pytest.mark.parametrize("verb", ["promote", "rollback"])
async def test_a_node_that_is_lost_after_the_switch_holds_up_neither_way(
    commands: SwarmCommands, swarm_lab: Lab, verb: str
) -> None:
    await asyncio.to_thread(commands.ok, "up", "--replicas", "3", "--shards", "1", "--edges", "1")
    before = await asyncio.to_thread(commands.until, steady, STEADY_S)
    lost = swarm_lab.nodes[2]
    assert nodes_of(before["replicas"]) == {node.name for node in swarm_lab.nodes}
    async with crowd(commands.url, 60) as ledger:
        await asyncio.to_thread(killed_after, commands, "switch:", "promote")
        async with meanwhile(swarm_lab.killed(lost)):
            await asyncio.to_thread(commands.ok, verb)
            after = await asyncio.to_thread(commands.status)
            changed = after["active_color"] != before["active_color"]
            assert changed is (verb == "promote")
            if verb == "promote":
                assert lost.name not in nodes_of(after["replicas"])
            await asyncio.to_thread(commands.ok, "up")
            healed = await asyncio.to_thread(commands.until, steady, STEADY_S)
            assert lost.name not in nodes_of(healed["replicas"])
    assert ledger.faults == [], "whoever was on the node comes back with its place"


def test_up_heals_all_but_the_shard_of_a_node_that_is_gone_and_says_so(commands: SwarmCommands, swarm_lab: Lab) -> None:
    commands.ok("up", "--replicas", "3", "--shards", "3", "--edges", "3")
    before = commands.until(steady, STEADY_S)
    lost = swarm_lab.nodes[2]
    shard = on(before["shards"], lost)["name"]
    with swarm_lab.killed(lost):
        began = time.monotonic()
        refused = commands("up")
        assert time.monotonic() - began < QUICKLY_S
        assert refused.code == 1
        assert f"{shard} is on {lost.name}, which is gone" in refused.last
        assert f"`inv reshard --without {shard}`" in refused.last
        now = commands.status()
        for kind in ("replicas", "edges"):
            assert lost.name not in nodes_of(now[kind])
        assert all(edge["healthy"] for edge in now["edges"])
        commands.ok("reshard", "--without", shard)
        healed = commands.until(steady, STEADY_S)
        assert [one["name"] for one in healed["shards"]] == [
            one["name"] for one in before["shards"] if one["name"] != shard
        ]
    commands.until(steady, STEADY_S)


# What is left on one that was killed, `test_faults` sees by what clients hear.
@pytest.mark.parametrize("way", ["left", "drained"])
def test_a_shard_whose_node_comes_back_has_its_data(commands: SwarmCommands, swarm_lab: Lab, way: str) -> None:
    commands.ok("up", "--replicas", "1", "--shards", "2", "--edges", "1")
    before = commands.until(steady, STEADY_S)
    lost = swarm_lab.nodes[1]
    shard = on(before["shards"], lost)["name"]
    for group in range(10):
        assert commands.ok("publish", "--group", f"g{group}", "--data", "1").stdout.strip() == "1"
    with getattr(swarm_lab, way)(lost):
        assert f"{shard} is on {lost.name}, which is gone" in commands("up").last
    # The swarm starts it by itself.
    commands.until(steady, STEADY_S)
    for group in range(10):
        assert commands.ok("publish", "--group", f"g{group}", "--data", "2").stdout.strip() == "2", "its log goes on"


def test_a_node_that_joins_after_a_promote_tells_its_edges_where_to_send_requests(
    commands: SwarmCommands, swarm_lab: Lab
) -> None:
    commands.ok("up", "--replicas", "1", "--shards", "1", "--edges", "3")
    commands.ok("promote")
    with swarm_lab.one_more() as new:
        unnamed = commands("up")
        assert unnamed.code == 0, unnamed.stderr
        assert f"{new.name}: images can't be brought there" in unnamed.stderr
        commands.environment.update(swarm_lab.environment())
        commands.ok("up", "--edges", "4")
        found = commands.until(steady, STEADY_S)
        assert on(found["edges"], new)["healthy"]
        commands.ok("up", "--edges", "3")
    commands.environment.update(swarm_lab.environment())


def test_down_says_which_node_it_could_not_ask(commands: SwarmCommands, swarm_lab: Lab) -> None:
    commands.ok("up", "--replicas", "1", "--shards", "1", "--edges", "3")
    lost = swarm_lab.nodes[2]
    with swarm_lab.killed(lost):
        done = commands.ok("down")
        assert f"{lost.name}: could not be asked" in done.stderr


def test_images_of_releases_that_are_over_go(commands: SwarmCommands, swarm_lab: Lab, tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    commands.ok("up", "--replicas", "1", "--shards", "1", "--edges", "1", *site.flags)
    for number in (2, 3, 4):
        site.write(f"{sites.PLAIN}# release {number}\n")
        commands.ok("promote")
    for node in swarm_lab.nodes:
        with node.daemon() as client:
            ours = client.images.list(filters={"label": f"{FLEET_LABEL}={commands.project}"})
            tags = [tag for image in ours for tag in image.tags if tag.startswith("shards-app:")]
            # The first one stays for as long as the service runs that tells edges their route.
            assert len(tags) == 3, tags
