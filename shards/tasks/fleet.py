"""Commands of a fleet: up, status, reshard, logs, down."""

from __future__ import annotations

import asyncio
import json as jsonlib
import os
import sys
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task
from rich.console import Console
from rich.live import Live

from shards.descriptors import descriptor_limit
from shards.errors import UsageError
from shards.fleet import reconcile, sharding
from shards.fleet import status as looking
from shards.fleet.engines.docker.options import DockerOptions, memory_bytes
from shards.fleet.engines.local import LocalOptions
from shards.fleet.fleet import Fleet
from shards.fleet.logs import lines
from shards.fleet.shard_list import credentials_in
from shards.fleet.spec import FleetSpec, shards_text
from shards.fleet.state import FleetDir, FleetState
from shards.host.plan import forewarned
from shards.settings import Credentials
from shards.tasks import view
from shards.tasks.console import Kept, Lines, Progress, given, progress, run, setting, unknown_variables, variable

SECTION = "fleet"
_SECTIONS = (SECTION, "docker")
"""Of `invoke.yaml`, those that the environment may override."""

_OF_DATA = {"engine", "shards", "durability"}
"""Of what a fleet was, it keeps these while it is down: where its data is, and how it is kept."""

PROJECT = "name of the fleet; several run side by side"
DEBUG = "show tracebacks of errors"
DRAIN = "window in which sockets move to the other replicas, in seconds"

_WATCH_S = 1.0
_LEAST_MEMORY = 64 << 20


def fleet_of(context: Context, project: str | None, told: Progress | None = None) -> Fleet:
    """Give the fleet that a command is about; `told` hears of progress, None: it is printed on stderr."""
    chosen = str(setting(context, SECTION, "project", project))
    FleetSpec.read({"project": chosen}, descriptor_limit(), _variables({"project": project}))
    root = Path(setting(context, SECTION, "root"))
    options = LocalOptions(
        root.resolve(),
        str(setting(context, SECTION, "redis_server")),
        str(setting(context, SECTION, "traefik")),
        memory_share(str(setting(context, SECTION, "redis_memory"))),
    )
    directory = FleetDir(Path(setting(context, SECTION, "state_dir")), chosen)
    docker = DockerOptions.read(root.resolve(), dict(context.config["docker"]))
    told = told or Lines()
    for line in unknown_variables(os.environ, {section: dict(context.config[section]) for section in _SECTIONS}):
        told.keep(f"warning: {line}")
    return Fleet(directory, options, told.say, _number(context, "ready_seconds", None, 1), docker, told.keep)


def memory_share(text: str) -> int | None:
    """Read `fleet.redis_memory`, in bytes; None: ``auto``.

    Raises:
        UsageError: it makes no sense.
    """
    if text == "auto":
        return None
    try:
        found = memory_bytes(text)
    except ValueError:
        found = 1
    if 0 < found < _LEAST_MEMORY:
        said = variable(SECTION, "redis_memory") or "fleet.redis_memory"
        raise UsageError(f"{said} must be auto, 0, or 64M or more, for instance 512M or 4G, not {text!r}")
    return found


def spec_of(
    context: Context, flags: dict[str, str | None], state: FleetState | None, descriptors: int | None = None
) -> FleetSpec:
    """Put a spec together: flags and environment, else what the fleet has, else the settings' defaults."""
    values = _values(context, flags, state)
    variables = _variables({name: flags.get(name) for name in values})
    return FleetSpec.read(values, descriptor_limit() if descriptors is None else descriptors, variables)


async def _wanted(context: Context, flags: dict[str, str | None], fleet: Fleet) -> FleetSpec:
    """Put a spec together whose edges are counted by what one may open where the fleet runs: a process, a container."""
    state = fleet.directory.read()
    if str(_values(context, flags, state)["edges"]) != "auto":
        return spec_of(context, flags, state)
    one_edge = spec_of(context, {**flags, "edges": "1"}, state)
    return spec_of(context, flags, state, await fleet.engine(one_edge).descriptors())


def _values(context: Context, flags: Mapping[str, str | None], state: FleetState | None) -> dict[str, object]:
    values: dict[str, object] = {}
    for name in (field.name for field in fields(FleetSpec)):
        kept = state is not None and (state.up or name in _OF_DATA)
        if kept and not given(SECTION, name, flags.get(name)):
            values[name] = getattr(state.spec if state else None, name)
        else:
            values[name] = setting(context, SECTION, name, flags.get(name))
    if given(SECTION, "connections", None) and not given(SECTION, "edges", flags.get("edges")):
        values["edges"] = "auto"
    values["app_dir"] = str(Path(str(values["app_dir"])).resolve())
    for name in ("tls_certificate", "tls_key"):
        values[name] = str(Path(str(values[name])).resolve()) if values[name] else ""
    return values


def _variables(flags: Mapping[str, str | None]) -> dict[str, str]:
    """Name the variables of the environment that give settings, where no flag does."""
    named = {name: variable(SECTION, name) for name, flag in flags.items() if flag is None}
    return {name: found for name, found in named.items() if found}


def _credentials(context: Context, flag: str | None) -> dict[str, Credentials]:
    """Give the users and passwords in the URLs of shards, which a spec does not hold."""
    text = shards_text(setting(context, SECTION, "shards", flag))
    return credentials_in(text) if "@" in text else {}


def drain_window(context: Context, flag: str | None) -> float:
    """Read the window in which sockets move, in seconds.

    Raises:
        UsageError: it makes no sense.
    """
    return _number(context, "drain_seconds", flag, 0)


def _number(context: Context, name: str, flag: str | None, least: float) -> float:
    text = str(setting(context, SECTION, name, flag))
    said = f"--{name.replace('_', '-')}" if flag else variable(SECTION, name) or f"fleet.{name}"
    try:
        seconds = float(text)
    except ValueError:
        raise UsageError(f"{said} must be a number of seconds, not {text!r}") from None
    if not least <= seconds <= 3600:
        raise UsageError(f"{said} must be {least:g} to 3600, not {text}")
    return seconds


@task(
    auto_shortflags=False,
    help={
        "replicas": "app servers of a color (default 3)",
        "shards": "Redis servers that share the groups (default 2), or URLs, with commas, of some that run elsewhere",
        "workers": "processes of a replica (default 1)",
        "edges": "proxies on the port; auto: as many as the descriptor limit asks for",
        "engine": "where it runs: local (default), docker, swarm",
        "app": "the ASGI application, module:attribute",
        "app_dir": "the directory that the app is imported from",
        "port": "where the fleet answers (default 8000)",
        "durability": "when a message counts: everysec (default), always, replicated",
        "tls_certificate": "the certificate that the edges show, with its chain, PEM; a new one takes `up` again",
        "tls_key": "its private key, PEM",
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
    tls_certificate: str | None = None,
    tls_key: str | None = None,
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
        "tls_certificate": tls_certificate,
        "tls_key": tls_key,
        "project": project,
    }

    async def work() -> None:
        with progress() as told, fleet_of(context, project, told) as fleet:
            wanted = await _wanted(context, flags, fleet)

            async def forewarn() -> None:
                for line in await forewarned(fleet, wanted):
                    told.keep(f"warning: {line}")

            await reconcile.up(fleet, wanted, drain_window(context, None), _credentials(context, shards), forewarn)
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
    """Show what runs where, with live figures; exit 1: nothing of the fleet runs, or that could not be told."""

    async def work() -> looking.Status:
        if json and watch:
            raise UsageError("--json prints one object and --watch never ends: choose one of them")
        if watch:
            await _watch(context, project)
        with fleet_of(context, project) as fleet:
            found = await looking.status(fleet)
            if json:
                print(jsonlib.dumps(found), flush=True)
            else:
                view.show(await _named(fleet, found))
        return found

    found = run(work(), debug=debug)
    if found["state"] == "down":
        raise Exit(code=1)


async def _watch(context: Context, project: str | None) -> None:
    kept = Kept()
    with fleet_of(context, project, kept) as fleet:
        await _watch_on(fleet, kept, Console())


async def _watch_on(fleet: Fleet, kept: Kept, console: Console) -> None:
    watch = looking.Watch(fleet)

    async def look() -> looking.Status:
        return view.noted(await _named(fleet, await watch.look()), kept.taken())

    if not console.is_terminal:
        while True:
            view.show(await look(), datetime.now())
            await asyncio.sleep(_WATCH_S)
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            live.update(view.table(await look()), refresh=True)
            await asyncio.sleep(_WATCH_S)


async def _named(fleet: Fleet, found: looking.Status) -> looking.Status:
    """Give a status for people: of a fleet that does not run, whose it is, and which others do."""
    if found["state"] != "down":
        return found
    return {**found, "project": fleet.directory.project, "others": await fleet.others()}


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
        with progress() as told, fleet_of(context, project, told) as fleet:
            if without is not None:
                _print(await sharding.plan_without(fleet, without))
                if dry_run:
                    print(f"refused, if {without} answers when it is done for good", flush=True)
                else:
                    with _resharding(fleet, f"--without {without}"):
                        await _tell_moved(fleet, sharding.give_up(fleet, without))
                return
            state = await fleet.require()
            wanted, credentials = spec_of(context, {"shards": shards}, state), _credentials(context, shards)
            if dry_run:
                await sharding.check_externals(fleet, state, wanted, credentials)
            _print(await sharding.plan(fleet, wanted))
            if not dry_run:
                spec = replace(state.spec, shards=wanted.shards)
                with _resharding(fleet, f"--shards {'URL,URL' if credentials else shards}"):
                    await _tell_moved(fleet, reconcile.up(fleet, spec, drain_window(context, None), credentials))

    run(work(), debug=debug)


@contextmanager
def _resharding(fleet: Fleet, flags: str) -> Iterator[None]:
    """Say how a reshard goes on where it is interrupted; `flags` tell no password."""
    try:
        yield
    except asyncio.CancelledError:
        fleet.note(f"stopped amid the reshard: `inv reshard {flags}` again goes on from there")
        raise


async def _tell_moved(fleet: Fleet, work: Coroutine[Any, Any, FleetState]) -> None:
    """Do a reshard, and say what has moved."""
    before = await sharding.owners(fleet)
    await work
    print(sharding.closing(before, await sharding.owners(fleet)), flush=True)


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        print(line, flush=True)


_VALUED_FLAGS = {"--project", "--drain-seconds"}


def names_a_part(argv: Sequence[str], command: str = "logs") -> bool:
    """Tell whether a command is given the name of a part on this command line.

    Invoke knows no positional argument that may be left out, so the task asks for one only where there is one.
    """
    after = list(argv[argv.index(command) + 1 :]) if command in argv else []
    while after:
        word = after.pop(0)
        if word in _VALUED_FLAGS:
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
        with fleet_of(context, project) as fleet:
            async for part, line in lines(fleet, name, follow):
                print(line if name else f"{part:<{width}} {line}", flush=follow)

    run(work(), debug=debug)


@task(
    auto_shortflags=False,
    help={"purge": "forget its data, logs and secrets too", "project": PROJECT, "debug": DEBUG},
)
def down(context: Context, purge: bool = False, project: str | None = None, debug: bool = False) -> None:
    """Stop the fleet: after it no process and no port of it is left. Its data is kept for the next `up`."""

    async def work() -> None:
        with progress() as told, fleet_of(context, project, told) as fleet:
            ended = await reconcile.down(fleet, purge)
            others = [] if ended.stopped else await fleet.others()
        deleted = ", and its data, logs and secrets are deleted" if ended.deleted else ""
        was = "is down" if ended.stopped else "was not up"
        kept = "; its data is kept" if ended.stopped and not ended.deleted else ""
        left = f"; {ended.left}" if ended.left else kept
        print(f"fleet {fleet.directory.project} {was}{deleted}{left}{view.beside(others)}")

    run(work(), debug=debug)
