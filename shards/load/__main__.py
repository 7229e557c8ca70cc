"""``python -m shards.load SCENARIO``: runs a scenario to a verdict and a report.

Exit status: 0 the verdict is "pass", 1 it is not, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shards.errors import ShardsError, UsageError
from shards.load import (
    files,
    history,
    joining,
    picture,
    report,
    runs,
    scenarios,
    steps,
    summary,
    target,
    worker,
)
from shards.load.arguments import Parser, amount, count
from shards.load.children import Team
from shards.load.command import carry_out
from shards.load.connection import CONNECT_SECONDS
from shards.load.coordinator import Coordinator, Load
from shards.load.dialects import DIALECTS
from shards.load.hosts import OtherHosts
from shards.load.limits import Limits, check_proxy, is_loopback, proxy_files
from shards.load.report import Run
from shards.load.resources import Resources
from shards.load.scenarios import Event, Scenario, Target
from shards.load.schedule import Shape, shares
from shards.load.spread import Spread, settled
from shards.load.tls import Tls
from shards.load.usage import clients
from shards.load.watch import Show
from shards.load.worker import Worker

_SEEDS = 1_000_000
_LOOK_SECONDS = 5.0
_SETTINGS = (
    *("group_size", "connect_rate", "connect_shape", "processes", "http_probe"),
    *("replicas", "workers", "shards", "edges"),
)
_JOIN_SECONDS = 120.0


def _group_size(text: str) -> int | str:
    return text if text == "mixed" else count(text)


def _steps(text: str) -> tuple[int, ...]:
    return tuple(count(part) for part in text.split(","))


def _shape(text: str) -> str:
    try:
        Shape.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _target(text: str) -> tuple[str, Target]:
    name = re.match(r"\s*\w*", text)
    assert name is not None
    try:
        return name[0].strip(), Target(text[name.end() :].strip())
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser(names: list[str]) -> argparse.ArgumentParser:
    parser = Parser(prog="python -m shards.load", description="Run a load scenario to a verdict.")
    add = parser.add_argument
    add("scenario", choices=names, nargs="?", help="as in invoke.yaml, key `load:`")
    add("--url", help="a fleet that runs already: ws://host:port/ws/ (default: start one, take it down)")
    add("--dialect", choices=DIALECTS, help="what the server at --url speaks (default: as in the scenario)")
    add("--project", help="its name, for `inv` (default: as in invoke.yaml)")
    add("--engine", help="the engine of the fleet it starts")
    add("--connections", type=count, default=os.environ.get("N"), help="or N=… in the environment")
    add("--duration", type=amount, default=os.environ.get("DURATION"), help="seconds of load; also DURATION=…")
    add("--rate", type=amount, help="messages delivered a second, to all clients together")
    add("--shape", type=_shape, help="the course of it instead: constant:R, ramp:A-B, step:A,B,C or spike:A-B")
    add("--group-size", type=_group_size, help="members a group; mixed: 1 to 1,000")
    add("--connect-rate", type=amount, help="connections a second")
    add("--connect-shape", type=_shape, help="the course of it instead, as --shape")
    add("--connect-timeout", type=amount, default=CONNECT_SECONDS, help="seconds a connection may take")
    add(
        "--processes",
        type=count,
        help="of the generator (default: one a core, 2 at least; more where files ask for it)",
    )
    add("--insecure", action="store_true", help="wss: check no certificate")
    add("--ca", type=Path, help="wss: certificates to trust, a file in PEM (default: the system's)")
    add("--during", help="a command to run once a quarter of the load is over, instead of the scenario's events")
    add("--http-probe", action="store_true", default=None, help="GET /livez 20 times a second meanwhile")
    add("--runs", type=count, default=os.environ.get("RUNS", "1"), help="how often, in a row; also RUNS=…")
    add("--seed", type=count, help="of what is left to chance in the first run (default: chosen, and reported)")
    add("--target", type=_target, action="append", help="as 'p99_ms < 50', in place of the scenario's; repeatable")
    add("--steps", type=_steps, help="numbers of connections to try one after the other: 1000,2000,5000")
    add("--replicas", type=count, help="of the fleet it starts, as are --workers, --shards and --edges")
    add("--workers", type=count, help="of each replica; with --coordinator: how many hosts shall join")
    add("--shards", type=count)
    add("--edges", type=count)
    add("--png", action="store_true", help="also a picture of the report, where Chromium is")
    add("--coordinator", metavar="tcp://HOST:PORT", help="listen here for generators on other hosts; needs --url")
    add("--worker", metavar="tcp://HOST:PORT", help="be such a generator for the coordinator there")
    add("--secret-file", type=Path, help="what coordinator and workers share")
    add("--join-timeout", type=amount, default=_JOIN_SECONDS, help="seconds to wait for each other")
    add("--report", type=Path, help="default: reports/SCENARIO.json")
    return parser


def _chosen_steps(scenario: Scenario, options: argparse.Namespace) -> tuple[int, ...]:
    """Give the steps asked for, else the scenario's: up to the number of connections asked for, if one was."""
    if options.steps or not options.connections:
        return options.steps or scenario.steps
    fewer = tuple(number for number in scenario.steps if number < options.connections)
    return (*fewer, options.connections) if scenario.steps else ()


def _chosen(scenario: Scenario, options: argparse.Namespace) -> Scenario:
    """Give the scenario with what the command line asks for."""
    numbers = _chosen_steps(scenario, options)
    chosen = scenario.sized(None if numbers else options.connections, options.rate)
    if options.shape:
        if options.rate:
            raise UsageError("--rate is an even rate, --shape a course of it: give one of them")
        chosen = chosen.shaped(options.shape)
    given = {name: getattr(options, name) for name in _SETTINGS if getattr(options, name) is not None}
    chosen = replace(chosen.lasting(options.duration), **given)
    if numbers:
        chosen = replace(chosen.step(max(numbers)), steps=numbers)
    if options.target:
        chosen = replace(chosen, targets={**chosen.targets, **dict(options.target)})
    if options.during:
        chosen = replace(chosen, events=(Event(chosen.duration / 4, command=options.during),))
    return chosen


def _load(scenario: Scenario, url: str, project: str | None, seed: int, options: argparse.Namespace) -> Load:
    """Give the load to run, after a look at what this host allows.

    Raises:
        UsageError: the host cannot hold it.
    """
    loopback = is_loopback(target.address(url)[0])
    limits = Limits.of_this_host()
    shape = Shape.parse(scenario.shape) if scenario.shape else None
    load = Load(
        url=url,
        connections=scenario.connections,
        duration_s=scenario.duration,
        rate=shape.mean if shape else scenario.rate,
        group_size=scenario.group_size,
        connect_rate=scenario.connect_rate,
        processes=scenario.processes,
        sockets_per_address=limits.sockets_per_address if loopback else 0,
        events=scenario.events,
        project=project,
        seed=seed,
        lag_ms=scenario.lag_ms,
        probe_url=target.http_url(url, "/livez") if scenario.http_probe else None,
        dialect=options.dialect or scenario.dialect,
        shape=shape,
        connect_shape=Shape.parse(scenario.connect_shape) if scenario.connect_shape else None,
        tls=Tls.chosen(options.insecure, options.ca) if url.startswith("wss") else None,
        connect_timeout_s=options.connect_timeout,
    )
    if options.coordinator:
        return load
    # Before there is a group for each ten of who knows how many.
    limits.check_connections(load.connections, loopback)
    groups = load.groups()
    processes = load.processes or limits.processes_for(groups)
    limits.check(groups, processes, loopback)
    return replace(load, processes=len(shares(groups, processes)))


@contextlib.asynccontextmanager
async def _looking(look: Callable[[], Awaitable[None]] | None) -> AsyncIterator[None]:
    """Look every five seconds meanwhile: where things happen, processes come and go."""

    async def forever(look: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await look()

    task = asyncio.create_task(forever(look)) if look else None
    try:
        yield
    finally:
        if task:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _team(options: argparse.Namespace, show: Show) -> Team | None:
    """Give the generators of other hosts, where they were asked for.

    Raises:
        UsageError: there is no such address or secret.
    """
    if not options.coordinator:
        return None
    address = joining.tcp_address(options.coordinator)
    secret = joining.read_secret(options.secret_file)
    return OtherHosts(address, secret, options.workers or 1, options.join_timeout, show.event)


def _work(options: argparse.Namespace) -> int:
    """Be a worker; give the exit status.

    Raises:
        ShardsError: it could not join.
    """
    address, secret = joining.tcp_address(options.worker), joining.read_secret(options.secret_file)
    processes = options.processes or len(os.sched_getaffinity(0))
    return worker.run(Worker(address, secret, processes, options.join_timeout, _tell))


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _at_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Call `stop` at SIGINT and SIGTERM, and afterwards have what was done before: asyncio alone would forget it."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


async def _run(load: Load, show: Show, team: Team | None = None) -> Run:
    """Run the load; SIGINT and SIGTERM end it early."""
    task = asyncio.current_task()
    assert task is not None
    spread = Spread(target.http_url(load.url, "/metrics") if DIALECTS[load.dialect].acks else None)
    resources = Resources(spread)
    fleet: dict[str, Any] = {}
    show.begin(load, spread)

    async def look() -> None:
        nonlocal fleet
        seen = await target.status(load.url, load.project, aside=bool(fleet))
        # A fleet that says nothing any more is not what it was.
        fleet = seen or (fleet | {"state": "unknown"} if fleet else fleet)
        resources.add_fleet(seen)
        redis_clients.extend(clients(seen))

    async def look_again() -> None:
        if fleet:
            await look()

    def stop() -> None:
        if coordinator.through:
            # What it has seen is on its way; but nothing more shall follow.
            coordinator.outcome.aborted = True
        else:
            task.cancel()

    redis_clients: list[int] = []
    coordinator = Coordinator(load, resources, show, look, team)
    with _at_signals(stop):
        async with _looking(look_again if load.events else None):
            outcome = await coordinator.run()
        if fleet and fleet["state"] != target.STEADY and not outcome.aborted:
            fleet["state"] = await target.state_in_the_end(load.url, load.project, lambda: coordinator.outcome.aborted)
    return Run(load, outcome, fleet, resources.report(), spread.samples, spread.ring(), tuple(redis_clients))


@contextlib.contextmanager
def _fleet(scenario: Scenario, options: argparse.Namespace) -> Iterator[tuple[str, str | None]]:
    """Give the address and project to load: the given ones, or a fleet made for it."""
    if options.dialect not in (None, "shards", "half") and not options.url:
        raise UsageError(
            f"--dialect {options.dialect} is for a server of others: say where it is, --url ws://host:port/ws/"
        )
    if options.url:
        target.check_url(options.url)
        if any(event.kill or event.run for event in scenario.events):
            asyncio.run(target.check_known(options.url, options.project))
        _check_proxy(options.url, scenario.connections)
        yield options.url, options.project
    else:
        with target.own_fleet(scenario, options.engine) as (url, project):
            _check_proxy(url, scenario.connections)
            yield url, project


def _check_proxy(url: str, connections: int) -> None:
    there = urlsplit(url)
    if is_loopback(there.hostname or "") and (files := proxy_files(there.port or 80)) is not None:
        check_proxy(connections, files)


def measure_once(scenario: Scenario, url: str, project: str | None, show: Show) -> dict[str, Any]:
    """Run a scenario on a fleet that runs; give the report.

    Raises:
        KeyboardInterrupt: it was stopped.
    """
    options = _parser([scenario.name]).parse_args([scenario.name])
    seen = asyncio.run(_run(_load(scenario, url, project, 1, options), show))
    if seen.outcome.aborted:
        raise KeyboardInterrupt
    return report.build(scenario.name, scenario.targets, seen)


def _document(
    scenario: Scenario, url: str, project: str | None, seed: int, options: argparse.Namespace, show: Show
) -> dict[str, Any]:
    """Run the scenario, or each step of it, and give the report; what ends it between steps takes none of them away.

    Raises:
        ShardsError, KeyboardInterrupt, CancelledError: it ended before there was anything to report.
    """
    reports: list[dict[str, Any]] = []
    numbers = scenario.steps or (scenario.connections,)
    try:
        for number in numbers:
            if reports:
                asyncio.run(settled(target.http_url(url, "/metrics")))
            step = scenario.step(number) if scenario.steps else scenario
            seen = asyncio.run(_run(_load(step, url, project, seed, options), show, _team(options, show)))
            reports.append(report.build(scenario.name, step.targets, seen))
            if seen.outcome.aborted:
                break
    except (ShardsError, KeyboardInterrupt, asyncio.CancelledError) as error:
        if not reports:
            raise
        why = f"the step of {numbers[len(reports)]:,} connections did not come about: {str(error) or 'stopped'}"
        return steps.cut_short(steps.merged(reports), why, stopped=not isinstance(error, ShardsError))
    return steps.merged(reports) if scenario.steps else reports[0]


def _write(document: dict[str, Any], path: Path, png: bool) -> None:
    """Write the report, keep it among earlier ones, and draw it where a picture is asked for.

    Raises:
        ShardsError: it could not be written; says why.
    """
    report.write(document, path)
    if said := history.keep(document, path):
        _tell(said)
    if png:
        print(picture.draw(path.with_suffix(".html"), path.with_suffix(".png")), file=sys.stderr)


def _one(scenario: Scenario, options: argparse.Namespace, seed: int, path: Path) -> dict[str, Any]:
    """Run the scenario once; give the report. The fleet's logs are kept beside it where the run did not pass.

    Raises:
        ShardsError: it could not be run; says why.
    """
    logs = path.with_suffix("") / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    with _fleet(scenario, options) as (url, project):
        with Show() as show:
            try:
                document = _document(scenario, url, project, seed, options, show)
            except asyncio.CancelledError:
                # Stopped before there was anything to report.
                raise KeyboardInterrupt from None
        try:
            _write(document, path, options.png)
        except ShardsError:
            # What was measured is told all the same.
            summary.show(document, path)
            raise
        if project and document["verdict"] != "pass":
            target.keep_logs(project, logs)
    summary.show(document, path)
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
        summed = runs.summary(scenario.name, options.runs, results)
        files.write_json(summed, runs.summary_path(path))
        print(f"{scenario.name}: passed {summed['passed']} of {number}", flush=True)
        if results[-1]["verdict"] == "aborted":
            break
        seed += 1
    return sum(1 for one in results if one["verdict"] == "pass")


def _check_coordinator(options: argparse.Namespace) -> None:
    joining.tcp_address(options.coordinator)
    joining.read_secret(options.secret_file)
    if not options.url:
        raise UsageError("a fleet that this command starts is for this host alone: give a --url that workers reach")


def _check_own_fleet(scenario: Scenario, options: argparse.Namespace) -> None:
    """Refuse what no fleet of this host holds, and warn of too few edges. In containers other limits hold."""
    local = (options.engine or os.environ.get("INVOKE_FLEET_ENGINE", "local")) == "local"
    if not local or options.url:
        return
    limits = Limits.of_this_host()
    if not scenario.edges:
        limits.check_fleet(scenario.connections, scenario.replicas, scenario.workers)
    elif lack := limits.lack_of_edges(scenario.connections, scenario.edges):
        _tell(f"warning: {lack}")


def _check_one_run(scenario: Scenario, options: argparse.Namespace) -> None:
    """Refuse several loads in a row with workers of other hosts, who leave after the first."""
    if options.coordinator and (scenario.steps or options.runs > 1):
        what = "steps (--steps)" if scenario.steps else "runs (--runs, RUNS)"
        raise UsageError(
            f"workers of other hosts are there for one load, so no {what} with --coordinator: run each alone"
        )


def run(arguments: list[str]) -> int:
    """Run the command line; give the exit status.

    Raises:
        ShardsError: it could not be run; says why.
    """
    known = scenarios.read(scenarios.find_config(Path.cwd()))
    options = _parser(list(known)).parse_args(arguments)
    if options.worker:
        return _work(options)
    if not options.scenario:
        raise UsageError(f"which scenario? there are: {', '.join(known)}")
    if options.coordinator:
        _check_coordinator(options)
    scenario = _chosen(known[options.scenario], options)
    _check_one_run(scenario, options)
    report.check(scenario.targets)
    path = options.report or Path("reports") / f"{scenario.name}.json"
    if path.suffix != ".json":
        raise UsageError(f"--report names the JSON, beside which the page is: {path}.json, for instance")
    seed = options.seed or random.randrange(1, _SEEDS)
    _load(scenario, options.url or "ws://127.0.0.1:1/ws/", None, seed, options)
    _check_own_fleet(scenario, options)
    if options.runs > 1:
        return 0 if _many(scenario, options, seed, path) == options.runs else 1
    return 0 if _one(scenario, options, seed, path)["verdict"] == "pass" else 1


if __name__ == "__main__":
    carry_out(run)
