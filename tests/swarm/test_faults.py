"""Three nodes, one cut off and one killed, under load: nothing that was acked is lost, and all goes on by itself.

What was measured goes to ``reports/swarm.json``.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shards.load import files
from shards.load.report import host
from shards.ports import free_port
from tests.contract.engines import SwarmCommands, fleets
from tests.fleet.runner import ROOT
from tests.swarm.crowd import Log, crowd, missing
from tests.swarm.lab import Lab, Node, until

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(900)]

CLIENTS, GROUPS = 150, 30
CALM_S = 5.0
NOTICED_S, STEADY_S = 60.0, 120.0
RESUMED_S = 15.0
KINDS = ("edges", "replicas", "shards")


@pytest.fixture
def fleet(swarm_lab: Lab, tmp_path: Path) -> Iterator[SwarmCommands]:
    """A fleet with an edge, a replica and a shard on each of three nodes."""
    for commands in fleets("swarm", tmp_path / "fleets", free_port(()), f"t-{secrets.token_hex(4)}", swarm_lab):
        assert isinstance(commands, SwarmCommands)
        commands.ok("up", "--replicas", "3", "--shards", "3", "--edges", "3")
        yield commands


async def test_a_node_that_is_cut_off_and_one_that_is_killed_lose_nothing(fleet: SwarmCommands, swarm_lab: Lab) -> None:
    status = fleet.until(_steady, STEADY_S)
    nodes = {node.name for node in swarm_lab.nodes}
    for kind in KINDS:
        assert {one["node"] for one in status[kind]} == nodes, f"{kind} are not spread"
    urls = [f"ws://{node.address}:{fleet.port}" for node in swarm_lab.nodes]
    began, faults, events = time.monotonic(), [], []
    started = datetime.now(UTC).isoformat()
    async with crowd(urls, CLIENTS, GROUPS) as (log, clients):
        await asyncio.sleep(CALM_S)
        for name, node in (("cut off", swarm_lab.nodes[1]), ("killed", swarm_lab.nodes[2])):
            at = time.monotonic()
            await asyncio.to_thread(node.cut if name == "cut off" else node.kill)
            await asyncio.to_thread(_until_noticed, swarm_lab, node)
            noticed = time.monotonic()
            await asyncio.to_thread(node.mend if name == "cut off" else node.start)
            back = time.monotonic()
            await asyncio.to_thread(fleet.until, _steady, STEADY_S)
            well = time.monotonic()
            await asyncio.sleep(CALM_S)
            faults.append(_measured(f"{node.name} {name}", log, at, noticed, back, well))
            events += [{"t": round(at - began, 1), "name": name}, {"t": round(back - began, 1), "name": "back"}]
    lost = missing(clients, log)
    unacked = sum(len(client.pending) for client in clients)
    acked = sum(map(len, log.acked.values()))
    worst = max(fault["resume_s"]["max"] for fault in faults)
    waited = max(fault["resume_once_back_s"]["max"] for fault in faults)
    # Where nobody came back, how long that took would be 0, and well.
    cut = min(fault["clients_cut"] - fault["waited_for_their_shard"] for fault in faults)
    targets = [
        _target("acked", "> 0", acked, acked > 0),
        _target("clients_cut, without those who waited for their shard, min", "> 0", cut, cut > 0),
        _target("lost", "== 0", lost, lost == 0),
        _target("unacked", "== 0", unacked, unacked == 0),
        _target("gaps, doubled or skipped offsets", "== 0", len(log.faults), not log.faults),
        _target("resume_s max", f"< {RESUMED_S:g}", worst, worst < RESUMED_S),
        _target("resume_once_back_s max", f"< {RESUMED_S:g}", waited, waited < RESUMED_S),
    ]
    report = {
        "scenario": "swarm",
        "verdict": "pass" if all(target["ok"] for target in targets) else "fail",
        "started": started,
        "duration_s": round(time.monotonic() - began, 1),
        "host": host(),
        "fleet": status,
        "targets": targets,
        "connections": {"wanted": CLIENTS, "opened": log.connects, "reconnects": len(log.returns)},
        "messages": {
            "acked": acked,
            "expected": sum(len(log.acked.get(client.group, ())) for client in clients),
            "lost": lost,
            "refused_and_sent_again": log.refused,
        },
        "faults": faults,
        "wrong": log.faults,
        "events": events,
    }
    (ROOT / "reports").mkdir(exist_ok=True)
    files.write_json(report, ROOT / "reports" / "swarm.json")
    assert log.faults == []
    assert report["verdict"] == "pass", targets


def _steady(status: dict[str, Any]) -> bool:
    return bool(status["state"] == "steady")


def _target(name: str, target: str, measured: float, ok: bool) -> dict[str, Any]:
    return {"name": name, "target": target, "measured": measured, "ok": ok}


def _until_noticed(lab: Lab, node: Node) -> None:
    """Wait until the swarm has given the node up: then it starts anew what was there once it is back."""
    wrong = f"the swarm has not noticed that {node.name} is gone"
    until(lambda: lab.state_of(node) == "down", NOTICED_S, wrong)


def _measured(name: str, log: Log, at: float, noticed: float, back: float, well: float) -> dict[str, Any]:
    """Give how long clients were away, and how long their publishes took, from the fault on."""
    returns = [one for one in log.returns if one.at >= at]
    away = sorted(one.seconds for one in returns if not one.waited)
    # Its group's shard was on that node, as its data is.
    once_back = sorted(max(0.0, one.at - back) for one in returns if one.waited)
    waits = sorted(seconds for moment, seconds in log.acks if moment >= at)
    return {
        "name": name,
        "clients_cut": len(returns),
        "resume_s": _spread(away),
        "waited_for_their_shard": len(once_back),
        "resume_once_back_s": _spread(once_back),
        "publish_s": _spread(waits),
        "swarm_noticed_s": round(noticed - at, 1),
        "node_away_s": round(back - at, 1),
        "steady_after_back_s": round(well - back, 1),
    }


def _spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {"p50": 0.0, "p95": 0.0, "max": 0.0}
    return {
        "p50": round(values[len(values) // 2], 2),
        "p95": round(values[int(len(values) * 0.95)], 2),
        "max": round(values[-1], 2),
    }
