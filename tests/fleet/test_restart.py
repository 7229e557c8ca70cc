"""A restart that fails, is killed or meets other code: the fleet is as before, or says what is half-way."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from shards.fleet import layout
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetState
from tests.fleet import sites
from tests.fleet.clients import crowd
from tests.fleet.conftest import fleet_in
from tests.fleet.runner import Commands, Result, finish, steady
from tests.fleet.sites import Site


def test_an_edge_that_stands_in_is_no_edge_that_was_asked_for() -> None:
    state = FleetState(FleetSpec(edges=2))
    assert layout.edge_names(state) == ["edge-0", "edge-1"]
    assert layout.edge_names(FleetState(state.spec, restarting="blue-0")) == ["edge-0", "edge-1"]
    assert layout.edge_names(FleetState(state.spec, restarting="edge-0")) == ["edge-0", "edge-1", "edge-2"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Commands, Site]]:
    """A fleet of somebody's own app; a test leaves it well, with a good release in the directory."""
    site = Site(tmp_path_factory.mktemp("site") / "site")
    for commands in fleet_in(tmp_path_factory.mktemp("fleet"), "r"):
        commands.ok("up", "--replicas", "2", "--shards", "1", "--edges", "1", *site.flags)
        yield commands, site


def processes_of(status: dict[str, Any]) -> dict[str, int]:
    return {part["name"]: part["pid"] for kind in ("replicas", "edges") for part in status[kind]}


def stopped_at(commands: Commands, line: str, signum: signal.Signals, *arguments: str) -> Result:
    """Run a command until it says something that begins so, and send it a signal."""
    command = commands.start(*arguments)
    assert command.stderr is not None
    said = []
    for said_now in command.stderr:
        said.append(said_now)
        if said_now.startswith(line):
            break
    command.send_signal(signum)
    result = finish(command)
    return Result(result.code, result.stdout, "".join(said) + result.stderr)


@pytest.mark.fleet
@pytest.mark.timeout(600)
class TestRestart:
    @pytest.mark.parametrize(
        "code,words",
        [
            (sites.DOES_NOT_IMPORT, ("does not stay up", "no_such_thing")),
            (sites.NEVER_READY, ("the moon is not full",)),
            (sites.REFUSES, ("is ready, but", "403")),
        ],
        ids=["does not stay up", "is never ready", "refuses"],
    )
    async def test_a_stand_in_that_is_no_good_is_taken_away(
        self, served: tuple[Commands, Site], code: str, words: tuple[str, ...]
    ) -> None:
        commands, site = served
        before = commands.until(steady)
        name = before["replicas"][0]["name"]
        site.write(code)
        patience = {"INVOKE_FLEET_READY_SECONDS": "10"} if code == sites.NEVER_READY else {}
        try:
            async with crowd(commands.url, 10) as ledger:
                failed = await asyncio.to_thread(commands, "restart", name, **patience)
        finally:
            site.write(sites.PLAIN)
        assert failed.code == 1
        color = before["active_color"]
        for word in (*words, f"{color}-2", f"{name} serves as before, {color}-2 was taken away"):
            assert word in failed.last
        after = commands.status()
        assert steady(after)
        assert processes_of(after) == processes_of(before), "the same processes, and no other"
        assert commands.remembered()["deployed"][color]["replicas"] == 2
        assert (ledger.failures, ledger.faults, ledger.connects) == ([], [], 10), "nobody noticed"

    async def test_where_its_own_new_process_fails_the_others_serve(self, served: tuple[Commands, Site]) -> None:
        commands, site = served
        one, other = commands.until(steady)["replicas"]
        name, color = one["name"], one["color"]
        site.write(sites.PLAIN + f"if os.environ['SHARDS_REPLICA'] == {name!r}: raise RuntimeError('no license')\n")
        try:
            async with crowd(commands.url, 10) as ledger:
                failed = await asyncio.to_thread(commands, "restart", name)
                assert failed.code == 1
                assert f"{name} does not stay up" in failed.last
                assert failed.last.endswith(
                    f"{other['name']} serve, {color}-2 was taken away: `inv restart {name}` tries again"
                )
                found = commands.status()
                assert found["state"] == "degraded"
                assert [replica["name"] for replica in found["replicas"]] == [name, other["name"]]
        finally:
            site.write(sites.PLAIN)
        assert (ledger.failures, ledger.faults, ledger.connects) == ([], [], 10), "nobody noticed"
        assert commands.until(steady)["replicas"][1]["pid"] == other["pid"], "it is tried until it stays up"

    def test_where_nothing_else_serves_what_stands_in_stays(self, served: tuple[Commands, Site]) -> None:
        commands, site = served
        commands.ok("up", "--replicas", "1")
        (one,) = commands.until(steady)["replicas"]
        name, stand_in = one["name"], f"{one['color']}-1"
        site.write(sites.PLAIN + f"if os.environ['SHARDS_REPLICA'] == {name!r}: raise RuntimeError('no license')\n")
        try:
            failed = commands("restart", name)
        finally:
            site.write(sites.PLAIN)
        assert failed.code == 1
        assert failed.last.endswith(f"{stand_in} still stands in (nothing else serves): `inv restart {name}` goes on")
        assert any(f"`inv restart {name}` goes on" in warning for warning in commands.status()["warnings"])
        with urllib.request.urlopen(f"http://127.0.0.1:{commands.port}/livez", timeout=30) as answer:
            assert json.load(answer)["replica"] == stand_in
        commands.ok("restart", name)
        assert [replica["name"] for replica in commands.until(steady)["replicas"]] == [name]
        commands.ok("up", "--replicas", "2")

    @pytest.mark.parametrize(
        "kind,line",
        [("replicas", "draining"), ("edges", "starting edge-1 to stand in"), ("edges", "stopping edge-0")],
    )
    @pytest.mark.parametrize("then", ["restart", "up"])
    def test_one_that_is_killed_is_told_of_until_it_went_on_or_was_taken_back(
        self, served: tuple[Commands, Site], kind: str, line: str, then: str
    ) -> None:
        commands, _ = served
        before = commands.until(steady)
        name = before[kind][0]["name"]
        assert stopped_at(commands, line, signal.SIGKILL, "restart", name).code == -signal.SIGKILL
        amid = commands.status()
        assert amid["state"] == "deploying"
        assert any(f"`inv restart {name}` goes on" in warning for warning in amid["warnings"])
        other = before["replicas"][1]["name"]
        for refused in (commands("promote"), commands("restart", other)):
            assert refused.code == 1
            assert f"`inv restart {name}` goes on" in refused.last
        commands.ok(*(["up"] if then == "up" else ["restart", name]))
        after = commands.until(steady)
        assert processes_of(after).keys() == processes_of(before).keys()
        assert not after["warnings"]
        if then == "restart":
            assert processes_of(after)[name] != processes_of(before)[name]
        assert commands.remembered()["deployed"][after["active_color"]]["replicas"] == 2
        assert commands.remembered()["spec"]["edges"] == 1

    def test_fewer_edges_after_a_kill_are_fewer_and_a_promote_goes_on(self, served: tuple[Commands, Site]) -> None:
        commands, _ = served
        commands.ok("up", "--edges", "2")
        killed = stopped_at(commands, "stopping edge-1", signal.SIGKILL, "up", "--edges", "1")
        assert killed.code == -signal.SIGKILL
        commands.ok("promote")
        commands.ok("up", "--edges", "1")
        assert [edge["name"] for edge in commands.until(steady)["edges"]] == ["edge-0"]
        assert "edge-1" not in commands.remembered()["ports"]
        edges = [process for process in commands.processes() if "traefik" in " ".join(process.cmdline())]
        assert len(edges) == 1, "none that nobody knows of holds the port"

    def test_other_workers_after_a_kill_are_those_of_every_replica(self, served: tuple[Commands, Site]) -> None:
        commands, _ = served
        killed = stopped_at(commands, "draining", signal.SIGKILL, "up", "--workers", "2")
        assert killed.code == -signal.SIGKILL
        commands.ok("up", "--workers", "2")
        replicas = commands.until(steady)["replicas"]
        workers = {replica["name"]: len(psutil.Process(replica["pid"]).children()) for replica in replicas}
        assert workers == {replica["name"]: workers[replicas[0]["name"]] for replica in replicas}
        assert (len(replicas), workers[replicas[0]["name"]] >= 2) == (2, True)
        spec, deployed = commands.remembered()["spec"], commands.remembered()["deployed"][replicas[0]["color"]]
        assert (spec["workers"], spec["replicas"], deployed["replicas"]) == (2, 2, 2)
        commands.ok("up", "--workers", "1", "--replicas", "3")
        assert len(commands.until(steady)["replicas"]) == 3
        commands.ok("up", "--replicas", "2")

    def test_what_was_asked_for_and_failed_is_not_remembered_as_if_it_were(self, served: tuple[Commands, Site]) -> None:
        commands, site = served
        site.write(sites.DOES_NOT_IMPORT)
        try:
            failed = commands("up", "--replicas", "1", "--workers", "2", INVOKE_FLEET_READY_SECONDS="10")
        finally:
            site.write(sites.PLAIN)
        assert failed.last.endswith("1 replicas serve as before")
        spec = commands.remembered()["spec"]
        deployed = commands.remembered()["deployed"][commands.until(steady)["active_color"]]
        assert (spec["replicas"], spec["workers"], deployed["replicas"], deployed["workers"]) == (1, 1, 1, 1)
        commands.ok("up", "--replicas", "2")

    def test_more_replicas_may_be_asked_for_where_a_restart_was_killed(self, served: tuple[Commands, Site]) -> None:
        commands, _ = served
        name = commands.until(steady)["replicas"][0]["name"]
        assert stopped_at(commands, "draining", signal.SIGKILL, "restart", name).code == -signal.SIGKILL
        commands.ok("up", "--replicas", "3")
        assert len(commands.until(steady)["replicas"]) == 3
        assert commands.remembered()["restarting"] is None
        commands.ok("up", "--replicas", "2")

    @pytest.mark.parametrize("flags", [("--replicas", "3"), ("--workers", "2")])
    def test_more_of_what_does_not_start_are_none(self, served: tuple[Commands, Site], flags: tuple[str, str]) -> None:
        commands, site = served
        before = commands.until(steady)
        site.write(sites.DOES_NOT_IMPORT)
        try:
            # A process of several that dies is started again by its replica, which stays up.
            failed = commands("up", *flags, INVOKE_FLEET_READY_SECONDS="10")
        finally:
            site.write(sites.PLAIN)
        assert failed.code == 1
        assert "no_such_thing" in failed.last
        assert failed.last.endswith("2 replicas serve as before")
        assert processes_of(commands.until(steady)) == processes_of(before)
        assert (
            commands.remembered()["deployed"][before["active_color"]] | {"replicas": 2, "workers": 1}
            == (commands.remembered()["deployed"][before["active_color"]])
        )

    def test_more_replicas_that_never_came_can_be_given_up(self, served: tuple[Commands, Site]) -> None:
        """The command that wanted them was killed."""
        commands, site = served
        before = commands.until(steady)
        site.write(sites.NEVER_READY)
        try:
            stopped_at(commands, "starting 3 replicas", signal.SIGKILL, "up", "--replicas", "3")
            commands.ok("up", "--replicas", "2")
        finally:
            site.write(sites.PLAIN)
        assert processes_of(commands.until(steady)) == processes_of(before)

    def test_one_that_is_interrupted_says_what_goes_on(self, served: tuple[Commands, Site]) -> None:
        commands, _ = served
        name = commands.until(steady)["replicas"][0]["name"]
        stopped = stopped_at(commands, "draining", signal.SIGINT, "restart", name)
        assert (stopped.code, stopped.last) == (130, "interrupted")
        assert f"`inv restart {name}` goes on" in stopped.stderr
        commands.ok("restart", name)
        assert len(commands.until(steady)["replicas"]) == 2

    def test_an_app_whose_channel_layer_is_another_is_warned_of(self, served: tuple[Commands, Site]) -> None:
        commands, site = served
        assert not commands.until(steady)["warnings"]
        other = "{'default': {'BACKEND': 'channels.layers.InMemoryChannelLayer'}}"
        site.write(sites.PLAIN + f"from django.conf import settings\nsettings.CHANNEL_LAYERS = {other}\n")
        try:
            commands.ok("promote")
            (warning,) = commands.until(steady)["warnings"]
            assert "has channels.layers.InMemoryChannelLayer, not shards.layer.ShardedChannelLayer" in warning
            assert warning in commands.ok("up").stdout
            assert warning in commands("doctor").stdout
        finally:
            site.write(sites.PLAIN)
        commands.ok("promote")
        assert not commands.until(steady)["warnings"]

    def test_each_replica_is_said_to_run_what_it_was_started_from(self, served: tuple[Commands, Site]) -> None:
        commands, site = served
        first, second = commands.until(steady)["replicas"]
        assert first["release"] == second["release"]
        assert "holds" not in commands.ok("restart", first["name"]).stderr, "nothing has changed there"
        site.write(sites.PLAIN + "# newer\n")
        told = commands.ok("restart", first["name"]).stderr
        assert f"not {first['release']} that serves: that is what {first['name']} will run" in told
        new, old = [replica["release"] for replica in commands.until(steady)["replicas"]]
        assert old == first["release"] != new
        assert f"holds {new}, not" in told
        os.kill(commands.status()["replicas"][1]["pid"], signal.SIGKILL)
        end = time.monotonic() + 60
        while [replica["release"] for replica in commands.status()["replicas"]] != [new, new]:
            assert time.monotonic() < end, "what is started again by itself runs what is there, too"
        commands.until(steady)
