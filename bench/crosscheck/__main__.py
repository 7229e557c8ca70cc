"""``python -m bench.crosscheck``: one fleet, loaded by our generator and by tsung in turn, with the server as referee.

Exit status: 0 sockets and rates agree within 5 %, 1 they do not, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from bench.crosscheck import agreement, referee, tools
from bench.crosscheck.agreement import OURS, THEIRS, Turn
from bench.crosscheck.plan import TOLERANCE, Plan
from bench.crosscheck.referee import Referee
from shards.descriptors import raise_descriptor_limit
from shards.errors import ShardsError
from shards.load import files, target
from shards.load.arguments import Parser, amount, count
from shards.load.command import carry_out
from shards.load.report import host
from shards.load.scenarios import Scenario

_REPLICAS = 2
_CONNECT_SECONDS = 10.0
_INTERVAL_SECONDS = 2.0
_TOOLS: dict[str, tools.Tool] = {OURS: tools.ours, THEIRS: tools.theirs}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m bench.crosscheck", description="Check our generator with tsung.")
    add, environ = parser.add_argument, os.environ
    add("--connections", type=count, default=environ.get("N", "500"), help="sockets; also N=… in the environment")
    add("--duration", type=amount, default=environ.get("DURATION", "30"), help="seconds of load; also DURATION=…")
    add("--connect-rate", type=amount, help=f"connects a second (default: all in {_CONNECT_SECONDS:.0f} s)")
    add("--publish-rate", type=amount, help=f"messages a second (default: a socket's each {_INTERVAL_SECONDS:.0f} s)")
    add("--rounds", type=count, default=3, help="turns of each tool (default: %(default)s)")
    add("--skew", type=amount, default=1.0, help="tsung publishes so many times as often: 1.1 must fail the check")
    add("--report", type=Path, default=Path("reports/crosscheck.json"), help="default: %(default)s")
    return parser


def _plan(chosen: argparse.Namespace) -> Plan:
    """Give the load that is asked for.

    Raises:
        UsageError: the two tools would not do it alike.
    """
    connect_rate = chosen.connect_rate or chosen.connections / _CONNECT_SECONDS
    publish_rate = chosen.publish_rate or chosen.connections / _INTERVAL_SECONDS
    plan = Plan(chosen.connections, connect_rate, publish_rate, chosen.duration)
    plan.check()
    return plan


def _turn(tool: str, number: int, plan: Plan, url: str, ports: Sequence[int]) -> Turn:
    """Let a tool load the fleet while the referee counts."""
    with tempfile.TemporaryDirectory(prefix=f"crosscheck-{tool}-", ignore_cleanup_errors=True) as folder:
        with Referee(ports) as watching:
            claim = _TOOLS[tool](plan, url, Path(folder))
        seen = watching.readings
    counted = referee.figures(seen)
    _say(
        f"round {number + 1}, {tool}: {counted['sockets']:,.0f} sockets, "
        f"{counted['published_per_s']:,.1f} published/s, {counted['delivered_per_s']:,.1f} delivered/s"
    )
    return Turn(tool, number, counted, claim.said, claim.latency_ms, referee.publish_ms(seen), claim.problems)


def _turns(plan: Plan, rounds: int, skew: float) -> list[Turn]:
    """Start a fleet, and let the tools load it in turn: what the machine does meanwhile meets both."""
    plans = {OURS: plan, THEIRS: replace(plan, publish_rate=plan.publish_rate * skew)}
    scenario = Scenario("crosscheck", plan.connections, plan.duration_s, plan.publish_rate, replicas=_REPLICAS)
    with target.own_fleet(scenario, None) as (url, project):
        ports = _replica_ports(url, project)
        return [_turn(tool, number, plans[tool], url, ports) for number in range(rounds) for tool in _TOOLS]


def _replica_ports(url: str, project: str) -> list[int]:
    status = asyncio.run(target.status(url, project))
    ports = [replica["port"] for replica in status.get("replicas", ()) if replica.get("port")]
    if len(ports) != _REPLICAS:
        raise ShardsError("`inv status` does not tell the ports of the replicas that were just started")
    return ports


def document(plan: Plan, turns: Sequence[Turn], started: datetime) -> dict[str, Any]:
    """Give the report."""
    rows, wrong = agreement.compare(turns), agreement.problems(turns)
    return {
        "verdict": agreement.verdict(rows, wrong),
        "started": started.isoformat(timespec="seconds"),
        "duration_s": round((datetime.now(UTC) - started).total_seconds()),
        "host": host(),
        "plan": asdict(plan) | {"each": plan.each, "interval_s": plan.interval_s, "duration_s": plan.duration_s},
        "tolerance": TOLERANCE,
        "planned": plan.expected(),
        "rows": msgspec.to_builtins(rows),
        "latency_ms": agreement.latency(turns),
        "problems": wrong,
        "turns": msgspec.to_builtins(turns),
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print(report: dict[str, Any], path: Path) -> None:
    """Show both tables, on stdout."""
    console = Console(width=200 if not sys.stdout.isatty() else None)
    for header, lines in (
        (agreement.HEADER, agreement.table(report)),
        (agreement.LATENCY_HEADER, agreement.latency_table(report)),
    ):
        shown = Table(box=None, pad_edge=False)
        for heading in header:
            shown.add_column(heading)
        for cells in lines:
            shown.add_row(*cells)
        console.print(shown, markup=False)
        print()
    for problem in report["problems"]:
        print(f"problem: {problem}")
    print(f"crosscheck: {report['verdict']} — {path} and {path.with_suffix('.md').name}")


def _markdown(report: dict[str, Any]) -> str:
    tables = (
        agreement.markdown(agreement.HEADER, agreement.table(report)),
        agreement.markdown(agreement.LATENCY_HEADER, agreement.latency_table(report)),
    )
    return "\n".join(tables)


def run(arguments: list[str]) -> int:
    """Run the command line; give the exit status.

    Raises:
        ShardsError: it could not be run; says why.
    """
    chosen = _parser().parse_args(arguments)
    plan = _plan(chosen)
    tools.check()
    raise_descriptor_limit()
    started = datetime.now(UTC)
    report = document(plan, _turns(plan, chosen.rounds, chosen.skew), started)
    files.write_json(report, chosen.report)
    files.write(chosen.report.with_suffix(".md"), _markdown(report).encode())
    _print(report, chosen.report)
    return 0 if report["verdict"] == "pass" else 1


if __name__ == "__main__":
    carry_out(run)
