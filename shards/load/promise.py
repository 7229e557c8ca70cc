"""``python -m shards.load.promise``: does a fleet hold what `inv doctor` promises, and no fifth more?

Starts a fleet of one edge, asks the doctor what it holds, opens that many sockets, each of which must stay, and then a
fifth more, of which some must not come about; and the doctor must have said both. ``N=2000`` holds the fleet to as many
files as 2,000 sockets an edge take, which a small machine can show. Exit status: 0 the promise was kept, 1 it was not,
2 wrong usage.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.descriptors import DESCRIPTORS_A_SOCKET, EDGE_RESERVE, descriptor_limit, sockets_per_edge
from shards.errors import ShardsError, UsageError
from shards.load import files, target
from shards.load.__main__ import measure_once
from shards.load.arguments import Parser, count
from shards.load.command import carry_out
from shards.load.scenarios import Scenario, Target, repository
from shards.load.spread import settled
from shards.load.watch import Show

MORE = 1.2
"""Times what is promised: that many must not be held."""

FEWEST = int(EDGE_RESERVE / DESCRIPTORS_A_SOCKET / (MORE - 1)) + 1
"""Sockets an edge from which on a fifth more take more files than it keeps aside for itself."""

_HOLD_SECONDS = 20.0
_SOCKETS_A_MESSAGE = 100
_ANSWER_SECONDS = 60


@dataclass(frozen=True)
class Said:
    """What the doctor said.

    Attributes:
        exit: its exit status: 0 they fit, 1 they do not.
        found: the object that it printed.
    """

    exit: int
    found: Mapping[str, Any]


def files_for(sockets: int, descriptors: int) -> int:
    """Count the files that a process may open of which an edge holds so many sockets.

    Args:
        sockets: of each edge.
        descriptors: what a process may open here.

    Raises:
        UsageError: so few show nothing, or so many are not to be had.
    """
    if sockets < FEWEST:
        raise UsageError(
            f"N must be {FEWEST:,} sockets an edge or more: for fewer, the {EDGE_RESERVE} files that it keeps aside "
            "hold a fifth more too"
        )
    if sockets > sockets_per_edge(descriptors):
        most = sockets_per_edge(descriptors)
        raise UsageError(f"N must be {most:,} sockets an edge or less: a process may open {descriptors:,} files")
    return DESCRIPTORS_A_SOCKET * sockets + EDGE_RESERVE


def held(load: Mapping[str, Any]) -> int:
    """Count the sockets of a load that came about and stayed to its end, from its report."""
    seen = load["connections"]
    return max(0, int(seen["opened"] - seen["not_back"] - seen["reconnects"]))


def judged(promised: Said, kept: Mapping[str, Any], beyond: Said, broken: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Hold what was seen against what the doctor said.

    Args:
        promised: what it said of as many sockets as it promises.
        kept: the report of a load of that many.
        beyond: what it said of a fifth more.
        broken: the report of a load of those.

    Returns:
        The targets, as reports have them.
    """
    targets = [
        ("doctor_exit_promised", "== 0", promised.exit),
        ("held_promised", f"== {promised.found['connections']}", held(kept)),
        ("lost_promised", "== 0", kept["messages"]["lost"]),
        ("doctor_exit_beyond", "== 1", beyond.exit),
        ("held_beyond", f"< {beyond.found['connections']}", held(broken)),
        ("generator_saturated", "== 0", sum(bool(one["generator"]["saturated"]) for one in (kept, broken))),
    ]
    return [
        {"name": name, "target": text, "measured": measured, "ok": Target(text).met(measured)}
        for name, text, measured in targets
    ]


def document(
    promised: Said, kept: Mapping[str, Any], beyond: Said, broken: Mapping[str, Any], duration_s: float, commit: str
) -> dict[str, Any]:
    """Make the report; see `judged` for what it is made of, which took `duration_s` seconds in all, of a `commit`."""
    targets = judged(promised, kept, beyond, broken)
    return {
        "scenario": "promise",
        "verdict": "pass" if all(one["ok"] for one in targets) else "fail",
        "started": kept["started"],
        "duration_s": round(duration_s, 1),
        "commit": commit,
        "host": kept["host"],
        "fleet": kept["fleet"],
        "targets": targets,
        "doctor": [
            {
                "exit": said.exit,
                **{name: said.found[name] for name in ("connections", "fits", "limit", "edges", "answer")},
            }
            for said in (promised, beyond)
        ],
        "loads": [
            {name: load[name] for name in ("connections", "messages", "generator", "problems", "errors")}
            for load in (kept, broken)
        ],
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """Sum a report up for people."""
    told = []
    for said, load in zip(found["doctor"], found["loads"], strict=True):
        told.append(f"{said['connections']:,} sockets: {said['answer']} (exit {said['exit']})")
        seen = load["connections"]
        told.append(f"  {held(load):,} of {seen['wanted']:,} were held; {seen['opened']:,} came about at once")
        told += [f"  {one['count']:,} did not: {one['reason']}" for one in seen["failures"]]
    missed = [f"  {one['name']} is {one['measured']}, not {one['target']}" for one in found["targets"] if not one["ok"]]
    return [*told, f"promise: {found['verdict']}", *missed]


def _ask(project: str, connections: int, rate: float) -> Said:
    command = target.invoke("doctor", "--project", project, "--connections", str(connections), "--json")
    command += ["--rate", str(max(1, round(rate)))]
    done = subprocess.run(
        command, cwd=repository(), capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False
    )
    try:
        return Said(done.returncode, json.loads(done.stdout))
    except ValueError:
        raise ShardsError(f"`inv doctor` says nothing to go by: {done.stderr.strip()}") from None


def _promised(project: str) -> int:
    """Ask how many sockets the fleet holds.

    Raises:
        UsageError: what ends first refuses no socket, so that nothing can be shown.
    """
    found = _ask(project, 1, 1).found
    if found["limit"] != "nofile":
        raise UsageError(
            f"the limit of this host is {found['limit']}, which refuses no socket: with N=2000 an edge is held to the "
            "files that 2,000 sockets take"
        )
    return int(found["holds"]["sockets"])


def _rate(connections: int) -> float:
    return connections / _SOCKETS_A_MESSAGE


def _load(connections: int, url: str, project: str, show: Show) -> dict[str, Any]:
    kept = {"connect_success": Target("== 1"), "not_back": Target("== 0"), "lost": Target("== 0")}
    scenario = Scenario("promise", connections, _HOLD_SECONDS, _rate(connections), lag_ms=250, targets=kept)
    return measure_once(scenario, url, project, show)


def _tried(edges: int) -> dict[str, Any]:
    began = time.monotonic()
    # How many it shall hold is what is asked here, so that `inv up` has nothing to warn of.
    fleet = Scenario("promise", 1, 1, 1, edges=edges, environment={"INVOKE_FLEET_CONNECTIONS": "1"})
    with target.own_fleet(fleet, "local") as (url, project), Show() as show:
        promised = _promised(project)
        more = round(MORE * promised)
        said = _ask(project, promised, _rate(promised))
        kept = _load(promised, url, project, show)
        asyncio.run(settled(target.http_url(url, "/metrics")))
        said_of_more = _ask(project, more, _rate(more))
        broken = _load(more, url, project, show)
    return document(said, kept, said_of_more, broken, time.monotonic() - began, _commit())


def _commit() -> str:
    """Name what is tried: git's short commit, with a + where files differ from it."""
    command = ["git", "describe", "--always", "--dirty=+"]
    try:
        done = subprocess.run(command, cwd=repository(), capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def run(arguments: list[str]) -> int:
    """Try it and write the report; give the exit status.

    Raises:
        ShardsError: it could not be tried; says why.
    """
    parser = Parser(prog="python -m shards.load.promise", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--connections", type=count, default=os.environ.get("N"), help="an edge shall hold; also N=…")
    parser.add_argument("--edges", type=count, default=1, help="of the fleet (default: %(default)s)")
    parser.add_argument("--report", type=Path, default=Path("reports/promise.json"), help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.connections:
        most = files_for(options.connections, descriptor_limit())
        # What is started from here on has it too: the doctor, the fleet, and the load.
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    found = _tried(options.edges)
    files.write_json(found, options.report)
    print("\n".join([*lines(found), str(options.report)]))
    return 0 if found["verdict"] == "pass" else 1


if __name__ == "__main__":
    carry_out(run)
