"""Commands of a fleet: up, status, promote, rollback, reshard, logs, down."""

from __future__ import annotations

import asyncio
import json as jsonlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task
from rich.console import Console
from rich.live import Live

from shards.errors import UsageError
from shards.fleet import reconcile, rollout, sharding
from shards.fleet import status as looking
from shards.fleet.cutover import Verb
from shards.fleet.engines.local import LocalOptions
from shards.fleet.fleet import Fleet
from shards.fleet.logs import lines
from shards.fleet.processes import descriptor_limit
from shards.fleet.shard_list import credentials_in
from shards.fleet.spec import FleetSpec, shards_text
from shards.fleet.state import FleetDir, FleetState
from shards.settings import Credentials
from shards.tasks import view
from shards.tasks.console import given, progress, run, setting

SECTION = "fleet"
PROJECT = "name of the fleet; several run side by side"
DEBUG = "show tracebacks of errors"
_DRAIN = "window in which sockets move to the other replicas, in seconds"

_WATCH_S = 1.0


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)


def fleet_of(context: Context, project: str | None, say: Callable[[str], None] = _to_stderr) -> Fleet:
    """Give the fleet that a command is about; `say` is told of progress."""
    chosen = str(setting(context, SECTION, "project", project))
    FleetSpec.read({"project": chosen}, descriptor_limit())
    root = Path(setting(context, SECTION, "root"))
    options = LocalOptions(
        root.resolve(), str(setting(context, SECTION, "redis_server")), str(setting(context, SECTION, "traefik"))
    )
    return Fleet(FleetDir(Path(setting(context, SECTION, "state_dir")), chosen), options, say)


def _spec(context: Context, flags: dict[str, str | None], state: FleetState | None) -> FleetSpec:
    """Put a spec together: flags and environment, else what the fleet has, else the settings' defaults."""
    values: dict[str, object] = {}
    for name in (field.name for field in fields(FleetSpec)):
        kept = state is not None and (state.up or name in {"shards", "durability"})
        if kept and not given(SECTION, name, flags.get(name)):
            values[name] = getattr(state.spec if state else None, name)
        else:
            values[name] = setting(context, SECTION, name, flags.get(name))
    if given(SECTION, "connections", None) and not given(SECTION, "edges", flags.get("edges")):
        values["edges"] = "auto"
    values["app_dir"] = str(Path(str(values["app_dir"])).resolve())
    return FleetSpec.read(values, descriptor_limit())


def _credentials(context: Context, flag: str | None) -> dict[str, Credentials]:
    """Give the users and passwords in the URLs of shards, which a spec does not hold."""
    text = shards_text(setting(context, SECTION, "shards", flag))
    return credentials_in(text) if "@" in text else {}


def _seconds(context: Context, flag: str | None) -> float:
    text = str(setting(context, SECTION, "drain_seconds", flag))
    try:
        seconds = float(text)
    except ValueError:
        raise UsageError(f"--drain-seconds must be a number of seconds, not {text!r}") from None
    if not 0 <= seconds <= 3600:
        raise UsageError(f"--drain-seconds must be 0 to 3600, not {text}")
    return seconds


@task(
    auto_shortflags=False,
    help={
        "replicas": "app servers of a color (default 3)",
        "shards": "Redis servers that share the groups (default 2), or URLs, with commas, of some that run elsewhere",
        "workers": "processes of a replica (default 1)",
        "edges": "proxies on the port; auto: as many as the descriptor limit asks for",
        "engine": "where it runs: local (docker and swarm are not there yet)",
        "app": "the ASGI application, module:attribute",
        "app_dir": "the directory that the app is imported from",
        "port": "where the fleet answers (default 8000)",
        "durability": "when a message counts: everysec (default), always, replicated",
        "project": PROJECT,
        "debug": DEBUG,
    },
)
def up(
    context: Context,
    replicas: str | None = None,
    shards: str | None = None,
    workers: str | None = None,
    edges: str | None = None,
    engine: str | None = None,
    app: str | None = None,
    app_dir: str | None = None,
    port: str | None = None,
    durability: str | None = None,
    project: str | None = None,
    debug: bool = False,
) -> None:
    """Start the fleet or reshape it; returns when every part is healthy."""
    flags = {
        "replicas": replicas,
        "shards": shards,
        "workers": workers,
        "edges": edges,
        "engine": engine,
        "app": app,
        "app_dir": app_dir,
        "port": port,
        "durability": durability,
        "project": project,
    }

    async def work() -> None:
        with progress() as say:
            fleet = fleet_of(context, project, say)
            wanted = _spec(context, flags, fleet.directory.read())
            await reconcile.up(fleet, wanted, _seconds(context, None), _credentials(context, shards))
            found = await looking.status(fleet)
        view.show(found)

    run(work(), debug=debug)


@task(
    auto_shortflags=False,
    help={
        "project": PROJECT,
        "json": "print one JSON object",
        "watch": "look again each second, until Ctrl-C",
        "debug": DEBUG,
    },
)
def status(
    context: Context, project: str | None = None, json: bool = False, watch: bool = False, debug: bool = False
) -> None:
    """Show what runs where, with live figures."""

    async def work() -> looking.Status:
        if json and watch:
            raise UsageError("--json prints one object and --watch never ends: choose one of them")
        fleet = fleet_of(context, project)
        if watch:
            await _watch(fleet)
        found = await looking.status(fleet)
        if json:
            print(jsonlib.dumps(found), flush=True)
        else:
            view.show(found)
        return found

    found = run(work(), debug=debug)
    if found["state"] == "down":
        raise Exit(code=1)


async def _watch(fleet: Fleet) -> None:
    console = Console()
    if not console.is_terminal:
        while True:
            view.show(await looking.status(fleet))
            await asyncio.sleep(_WATCH_S)
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            live.update(view.table(await looking.status(fleet)), refresh=True)
            await asyncio.sleep(_WATCH_S)


@task(
    auto_shortflags=False,
    help={
        "canary": "percentage of new connections that goes to the new color first (not there yet)",
        "drain_seconds": _DRAIN,
        "project": PROJECT,
        "debug": DEBUG,
    },
)
def promote(
    context: Context,
    canary: str | None = None,
    drain_seconds: str | None = None,
    project: str | None = None,
    debug: bool = False,
) -> None:
    """Deploy the app's code to the idle color, check it, switch to it, move the sockets, retire the old one."""

    async def work() -> None:
        if canary is not None:
            raise UsageError("--canary is not there yet: promote without it switches all new connections at once")
        await _roll(context, "promote", drain_seconds, project)

    run(work(), debug=debug)


@task(auto_shortflags=False, help={"drain_seconds": _DRAIN, "project": PROJECT, "debug": DEBUG})
def rollback(
    context: Context, drain_seconds: str | None = None, project: str | None = None, debug: bool = False
) -> None:
    """Go back: to the release before the last promote, or out of a promote that is half-way."""
    run(_roll(context, "rollback", drain_seconds, project), debug=debug)


async def _roll(context: Context, verb: Verb, drain_seconds: str | None, project: str | None) -> None:
    seconds = _seconds(context, drain_seconds)
    with progress() as say:
        state = await rollout.roll(fleet_of(context, project, say), verb, seconds)
    print(f"{state.active} is active: release {state.deployed[state.active].release} at {state.spec.url}")


@task(
    auto_shortflags=False,
    help={
        "shards": "how many shards shall own the slots, or the URLs of those that shall",
        "without": "a shard that is gone for good: its groups begin anew on the others",
        "dry_run": "only say what would move",
        "project": PROJECT,
        "debug": DEBUG,
    },
)
def reshard(
    context: Context,
    shards: str | None = None,
    without: str | None = None,
    dry_run: bool = False,
    project: str | None = None,
    debug: bool = False,
) -> None:
    """Move slots to more shards, or off those that go, under load; killed at any step, run it again."""

    async def work() -> None:
        if (shards is None) == (without is None):
            raise UsageError("say which shards there shall be: --shards N, --shards URL,URL or --without NAME")
        with progress() as say:
            fleet = fleet_of(context, project, say)
            if without is not None:
                await _give_up(fleet, without, dry_run)
                return
            state = await fleet.require()
            wanted = _spec(context, {"shards": shards}, state)
            _print(await sharding.plan(fleet, wanted))
            if not dry_run:
                spec = replace(state.spec, shards=wanted.shards)
                await reconcile.up(fleet, spec, _seconds(context, None), _credentials(context, shards))

    run(work(), debug=debug)


async def _give_up(fleet: Fleet, shard: str, dry_run: bool) -> None:
    _print(await sharding.plan_without(fleet, shard))
    if not dry_run:
        await sharding.give_up(fleet, shard)


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        print(line, flush=True)


_VALUED_LOG_FLAGS = {"--project"}


def names_a_part(argv: Sequence[str]) -> bool:
    """Tell whether ``logs`` is given the name of a part on this command line.

    Invoke knows no positional argument that may be left out, so the task asks for one only where there is one.
    """
    after = list(argv[argv.index("logs") + 1 :]) if "logs" in argv else []
    while after:
        word = after.pop(0)
        if word in _VALUED_LOG_FLAGS:
            del after[:1]
        elif not word.startswith("-"):
            return True
    return False


@task(
    auto_shortflags=False,
    positional=["name"] if names_a_part(sys.argv) else [],
    help={
        "name": "of one part, for instance blue-0 (may be given without the flag)",
        "follow": "go on until Ctrl-C",
        "project": PROJECT,
        "debug": DEBUG,
    },
)
def logs(
    context: Context,
    name: str | None = None,
    follow: bool = False,
    project: str | None = None,
    debug: bool = False,
) -> None:
    """Print what the parts have said last: of one, or of all."""

    async def work() -> None:
        width = 12
        async for part, line in lines(fleet_of(context, project), name, follow):
            print(line if name else f"{part:<{width}} {line}", flush=follow)

    run(work(), debug=debug)


@task(
    auto_shortflags=False,
    help={"purge": "forget its data, logs and secrets too", "project": PROJECT, "debug": DEBUG},
)
def down(context: Context, purge: bool = False, project: str | None = None, debug: bool = False) -> None:
    """Stop the fleet: after it no process and no port of it is left. Its data is kept for the next `up`."""

    async def work() -> None:
        with progress() as say:
            fleet = fleet_of(context, project, say)
            stopped = await reconcile.down(fleet, purge)
        name = fleet.directory.project
        print(f"fleet {name} is down" if stopped else f"fleet {name} was not up")

    run(work(), debug=debug)
