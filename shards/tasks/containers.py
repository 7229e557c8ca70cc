"""Commands for those who run the containers themselves: build, render."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

from invoke.context import Context
from invoke.tasks import task

from shards.errors import UsageError
from shards.fleet.engines.docker import compose, files
from shards.fleet.engines.docker.engine import DockerEngine
from shards.fleet.engines.docker.options import DockerOptions
from shards.fleet.engines.swarm.engine import SwarmEngine
from shards.fleet.fleet import Fleet
from shards.fleet.state import FleetState
from shards.tasks.console import progress, run
from shards.tasks.fleet import DEBUG, PROJECT, fleet_of, spec_of


@task(
    auto_shortflags=False,
    help={
        "app": "the ASGI application, module:attribute",
        "app_dir": "the directory that the app is imported from",
        "into": "the directory of the Compose file (default docker)",
        "engine": "for which engine: docker (default), swarm",
        "project": PROJECT,
        "debug": DEBUG,
    },
)
def build(
    context: Context,
    engine: str = "docker",
    app: str | None = None,
    app_dir: str | None = None,
    into: str | None = None,
    project: str | None = None,
    debug: bool = False,
) -> None:
    """Build the images that docker/compose.yml names, and put the fleet's secrets where it mounts them.

    For a swarm: build them, and bring them to its nodes.
    """
    flags = {"engine": engine, "app": app, "app_dir": app_dir, "project": project}

    async def work() -> None:
        with progress() as told, fleet_of(context, project, told) as fleet:
            spec = spec_of(context, flags, None)
            builder = fleet.engine(spec)
            if not isinstance(builder, DockerEngine | SwarmEngine):
                raise UsageError(f"there are no images for engine {engine}: choose docker or swarm")
            fleet.directory.create()
            await asyncio.to_thread(builder.build, compose.RELEASE)
            if isinstance(builder, SwarmEngine):
                return
            beside = Path(into) if into else builder.options.root / "docker"
            files.write_secrets(beside, fleet.directory)
            smaller = await asyncio.to_thread(builder.smaller)
        print(compose.started(str(beside), smaller))

    run(work(), debug=debug)


@task(
    auto_shortflags=False,
    help={
        "engine": "for which engine: docker (default), swarm",
        "into": "a directory: write the Compose file and those beside it there",
        "replicas": "app servers of a color (default 3)",
        "shards": "Redis servers that share the groups (default 2)",
        "workers": "processes of a replica (default 1)",
        "edges": "proxies on the port; auto: as many as 65,536 files for each ask for",
        "port": "where the fleet answers (default 8000)",
        "durability": "when a message counts: everysec (default), always",
        "project": PROJECT,
        "debug": DEBUG,
    },
)
def render(
    context: Context,
    engine: str = "docker",
    into: str | None = None,
    replicas: str | None = None,
    shards: str | None = None,
    workers: str | None = None,
    edges: str | None = None,
    port: str | None = None,
    durability: str | None = None,
    project: str | None = None,
    debug: bool = False,
) -> None:
    """Print the Compose file, or the stack file, of the fleet that runs there, or of one that could."""
    flags = {
        "engine": engine,
        "replicas": replicas,
        "shards": shards,
        "workers": workers,
        "edges": edges,
        "port": port,
        "durability": durability,
        "project": project,
    }

    async def work() -> None:
        if engine not in ("docker", "swarm"):
            raise UsageError(f"there is no file to render for engine {engine}: choose docker or swarm")
        with fleet_of(context, project) as fleet:
            options = fleet.docker or DockerOptions(fleet.options.root)
            state = fleet.directory.read()
            if state is None or not state.up or state.spec.engine != engine:
                state = compose.fresh(spec_of(context, flags, None, options.nofile), engine)
            elif any(value is not None for name, value in flags.items() if name not in ("engine", "project")):
                raise UsageError(
                    f"fleet {state.spec.project} runs: without flags this prints it; or say another --project"
                )
            if engine == "swarm":
                print(_stack_file(fleet, state), end="")
            else:
                _give_compose_files(fleet, state, options, into)

    run(work(), debug=debug)


def _give_compose_files(fleet: Fleet, state: FleetState, options: DockerOptions, into: str | None) -> None:
    # A fleet that came up before there was a port for everything has one now.
    state = fleet.placed(state)
    kept = options.root / "docker"
    elsewhere = into is not None and Path(into).resolve() != kept.resolve()
    written = compose.written(replace(state, previous=None), options, str(into) if elsewhere else compose.HERE)
    if into is None:
        print(written["compose.yml"], end="")
        return
    if elsewhere:
        shutil.copytree(kept / "monitoring", Path(into) / "monitoring", dirs_exist_ok=True)
    for name, text in written.items():
        path = Path(into) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _stack_file(fleet: Fleet, state: FleetState) -> str:
    fleet.directory.create()
    engine = fleet.engine(state.spec)
    assert isinstance(engine, SwarmEngine)
    return engine.rendered(replace(state, places=engine.place(state)))
