"""``python -m shards.load SCENARIO``: runs a scenario to a verdict and a report.

Exit status: 0 the verdict is "pass", 1 it is not, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from shards.errors import ShardsError, UsageError
from shards.load import report, runs, scenarios, target
from shards.load.command import carry_out
from shards.load.coordinator import Coordinator, Load
from shards.load.dialects import DIALECTS
from shards.load.limits import Limits, is_loopback
from shards.load.page import shown
from shards.load.report import Run
from shards.load.resources import Resources
from shards.load.scenarios import Event, Scenario
from shards.load.watch import Show

_SEEDS = 1_000_000


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 up")
    return int(text)


def _amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def _group_size(text: str) -> int | str:
    return text if text == "mixed" else _count(text)


def _parser(names: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m shards.load", description="Run a load scenario to a verdict.")
    add = parser.add_argument
    add("scenario", choices=names, help="as in invoke.yaml, key `load:`")
    add("--url", help="a fleet that runs already: ws://host:port/ws/ (default: start one, take it down)")
    add("--dialect", choices=DIALECTS, default="shards", help="what the server at --url speaks (default: %(default)s)")
    add("--project", help="its name, for `inv` (default: as in invoke.yaml)")
    add("--engine", help="the engine of the fleet it starts")
    add("--connections", type=_count, default=os.environ.get("N"), help="also N=… in the environment")
    add("--duration", type=_amount, default=os.environ.get("DURATION"), help="seconds of load; also DURATION=…")
    add("--rate", type=_amount, help="messages delivered a second, to all clients together")
    add("--group-size", type=_group_size, help="members a group; mixed: 1 to 1,000")
    add("--connect-rate", type=_amount, help="connections a second")
    add("--processes", type=_count, help="generator processes")
    add("--during", help="a command to run once a quarter of the load is over, instead of the scenario's events")
    add("--http-probe", action="store_true", default=None, help="GET /livez 20 times a second meanwhile")
    add("--runs", type=_count, default=os.environ.get("RUNS", "1"), help="how often, in a row; also RUNS=…")
    add("--seed", type=_count, help="of what is left to chance in the first run (default: chosen, and reported)")
    add("--report", type=Path, help="default: reports/SCENARIO.json")
    return parser


def _chosen(scenario: Scenario, options: argparse.Namespace) -> Scenario:
    """Give the scenario with what the command line asks for."""
    chosen = scenario.sized(options.connections, options.rate)
    names = ("group_size", "connect_rate", "processes", "http_probe")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    chosen = replace(chosen.lasting(options.duration), **given)
    if options.during:
        chosen = replace(chosen, events=(Event(chosen.duration / 4, command=options.during),))
    return chosen


def _load(scenario: Scenario, url: str, project: str | None, seed: int, dialect: str) -> Load:
    """Give the load to run, after a look at what this host allows.

    Raises:
        UsageError: the host cannot hold it.
    """
    loopback = is_loopback(target.address(url)[0])
    limits = Limits.of_this_host()
    limits.check(scenario.connections, scenario.processes, loopback)
    return Load(
        url=url,
        connections=scenario.connections,
        duration_s=scenario.duration,
        rate=scenario.rate,
        group_size=scenario.group_size,
        connect_rate=scenario.connect_rate,
        processes=scenario.processes,
        sockets_per_address=limits.sockets_per_address if loopback else 0,
        events=scenario.events,
        project=project,
        seed=seed,
        lag_ms=scenario.lag_ms,
        probe_url=target.http_url(url, "/livez") if scenario.http_probe else None,
        dialect=dialect,
    )


async def _run(load: Load, show: Show) -> Run:
    """Run the load; SIGINT and SIGTERM end it early."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    resources = Resources()
    fleet: dict[str, Any] = {}

    async def look() -> None:
        nonlocal fleet
        fleet = await target.status(load.url, load.project) or fleet
        resources.add_fleet(fleet)

    outcome = await Coordinator(load, resources, show, look).run()
    return Run(load, outcome, fleet, resources.report())


@contextlib.contextmanager
def _fleet(scenario: Scenario, options: argparse.Namespace) -> Iterator[tuple[str, str | None]]:
    """Give the address and project to load: the given ones, or a fleet made for it."""
    if options.dialect != "shards" and not options.url:
        raise UsageError(
            f"--dialect {options.dialect} is for a server of others: say where it is, --url ws://host:port/ws/"
        )
    if options.url:
        target.check_url(options.url)
        yield options.url, options.project
    else:
        with target.own_fleet(scenario, options.engine) as (url, project):
            yield url, project


def _print(document: dict[str, Any], path: Path) -> None:
    """Say how it went, on stdout."""
    table = Table(box=None, pad_edge=False)
    for heading in ("figure", "target", "measured", ""):
        table.add_column(heading)
    for row in document["targets"]:
        table.add_row(row["name"], row["target"], shown(row["measured"]), "ok" if row["ok"] else "MISSED")
    Console(soft_wrap=True).print(table)
    for name, why in document["left_out"].items():
        print(f"left out: {name}: {why}")
    for problem in document["problems"]:
        print(f"problem: {problem}")
    for failure in document["connections"]["failures"]:
        print(f"connections failed: {failure['count']:,} x {failure['reason']}")
    for error in document["errors"]:
        print(f"error: {error['count']:,} x {error['kind']} {error['example']}")
    if document["generator"]["saturated"]:
        print(
            "the generator was saturated: the figures may be its own; use fewer connections, a lower rate or more cores"
        )
    print(f"{document['scenario']}: {document['verdict']} — {path} and {path.with_suffix('.html').name}")


def _one(scenario: Scenario, options: argparse.Namespace, seed: int, path: Path) -> dict[str, Any]:
    """Run the scenario once; give the report. The fleet's logs are kept beside it where the run did not pass.

    Raises:
        ShardsError: it could not be run; says why.
    """
    logs = path.with_suffix("") / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    with _fleet(scenario, options) as (url, project):
        with Show() as show:
            load = _load(scenario, url, project, seed, options.dialect)
            seen = asyncio.run(_run(load, show))
        document = report.build(scenario.name, scenario.targets, seen)
        report.write(document, path)
        if project and document["verdict"] != "pass":
            target.keep_logs(project, logs)
    _print(document, path)
    return document


def _many(scenario: Scenario, options: argparse.Namespace, seed: int, path: Path) -> int:
    """Run the scenario many times, each with a seed of its own; give how many passed."""
    results: list[dict[str, Any]] = []
    for number in range(1, options.runs + 1):
        own = runs.report_path(path, number, options.runs)
        try:
            results.append(runs.result(own, seed, _one(scenario, options, seed, own)))
        except UsageError:
            raise
        except ShardsError as error:
            print(f"error: {error}", file=sys.stderr)
            results.append(runs.no_result(own, seed, str(error)))
        summary = runs.summary(scenario.name, options.runs, results)
        report.write_json(summary, runs.summary_path(path))
        print(f"{scenario.name}: passed {summary['passed']} of {number}", flush=True)
        if results[-1]["verdict"] == "aborted":
            break
        seed += 1
    return sum(1 for one in results if one["verdict"] == "pass")


def run(arguments: list[str]) -> int:
    """Run the command line; give the exit status.

    Raises:
        ShardsError: it could not be run; says why.
    """
    known = scenarios.read(scenarios.find_config(Path.cwd()))
    options = _parser(list(known)).parse_args(arguments)
    scenario = _chosen(known[options.scenario], options)
    report.check(scenario.targets)
    path = options.report or Path("reports") / f"{scenario.name}.json"
    seed = options.seed or random.randrange(1, _SEEDS)
    _load(scenario, options.url or "ws://127.0.0.1:1/ws/", None, seed, options.dialect)
    if options.runs > 1:
        return 0 if _many(scenario, options, seed, path) == options.runs else 1
    return 0 if _one(scenario, options, seed, path)["verdict"] == "pass" else 1


if __name__ == "__main__":
    carry_out(run)
