"""One fleet as the commands hold it: its directory, its engine, its control plane, and whom to tell of progress."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Self

from redis.exceptions import RedisError

from shards.errors import PartFailed, ShardsError
from shards.fleet import layout, probe
from shards.fleet.engines.base import Engine
from shards.fleet.engines.docker import by_hand
from shards.fleet.engines.docker.engine import DockerEngine
from shards.fleet.engines.docker.options import DockerOptions
from shards.fleet.engines.local import LocalEngine, LocalOptions
from shards.fleet.engines.swarm.engine import SwarmEngine
from shards.fleet.opened import Opened
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetDir, FleetState
from shards.router.control import Control

CONTROL_S = 5.0
"""How long a command waits for one answer of the control Redis."""


@dataclass(frozen=True)
class Fleet:
    """What a command needs.

    Attributes:
        directory: where the fleet's state is.
        options: where the local engine finds its programs.
        say: told, in a few words, what is being done or waited for.
        ready_s: how long a replica may take to become ready, in seconds.
        docker: what the docker engine builds on, and containers may use; None: its defaults.
        keep: told what was done, which stays to be read; None: `say` is told.
        opened: the daemons that its engines ask. As a context manager a fleet closes them in the end.
    """

    directory: FleetDir
    options: LocalOptions
    say: Callable[[str], None]
    ready_s: float = 60.0
    docker: DockerOptions | None = None
    keep: Callable[[str], None] | None = None
    opened: Opened = field(default_factory=Opened, compare=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.opened.close()

    def note(self, text: str) -> None:
        """Tell what was done, and what people must not miss."""
        (self.keep or self.say)(text)

    def engine(self, spec: FleetSpec) -> Engine:
        """Give the engine that `spec` names."""
        if spec.engine == "docker":
            options = self.docker or DockerOptions(self.options.root)
            return DockerEngine(spec, self.directory, options, self.opened.client, self.say)
        if spec.engine == "swarm":
            options = self.docker or DockerOptions(self.options.root)
            daemons = self.opened.swarm(options.daemons)
            return SwarmEngine(spec, self.directory, options, daemons, self.say, self.note)
        return LocalEngine(spec, self.directory, self.options)

    def placed(self, state: FleetState, only: Collection[str] | None = None) -> FleetState:
        """Give every part a port, and a host where there are several; those that have them keep them.

        Args:
            state: the fleet.
            only: the names of the parts that are started now: only these leave a host that is gone, since what is
                remembered of the others must be where they are. None: all are.

        Raises:
            ShardsError: there is no host for a part.
        """
        engine = self.engine(state.spec)
        state = layout.with_ports(state, engine.free_port)
        return replace(state, places=engine.place(state, only))

    @contextlib.asynccontextmanager
    async def control(self, state: FleetState) -> AsyncIterator[Control]:
        """Open the control plane.

        Raises:
            PartFailed: the control Redis does not answer.
            ShardsError: there is no password to show it.
        """
        port, host = state.ports[layout.CONTROL], layout.host(state, layout.CONTROL)
        self.directory.password()
        client = probe.lasting_client(port, self.directory.password, CONTROL_S, host)
        try:
            yield Control(client)
        except RedisError as error:
            log = await self.engine(state.spec).log(layout.CONTROL)
            raise PartFailed(layout.CONTROL, f"does not answer: {error}", str(log)) from None
        finally:
            await client.aclose()

    def remembered(self) -> FleetState | None:
        """Read what runs, be it a fleet that Docker Compose has started; None: there is no such fleet.

        Raises:
            ShardsError: what is remembered makes no sense.
        """
        state = self.directory.read()
        if state and state.up:
            return state
        return by_hand.find(self.directory.project) or state

    async def left_alone(self, engine: Engine | None) -> str:
        """Say what there is of a fleet of the same name that this one did not make.

        Args:
            engine: that has this one; None: nobody remembers, so that Docker is asked, where there is any.

        Returns:
            It in one line; empty: there is nothing, or nobody can tell.
        """
        with contextlib.suppress(ShardsError):
            return await (engine or self.engine(FleetSpec(self.directory.project, "docker"))).left_alone()
        return ""

    async def others(self) -> list[str]:
        """Name the other fleets that run, of those whose state is beside this one's."""
        found = []
        for path in sorted({*self.directory.path.parent.glob("*/fleet.json")} - {self.directory.path / "fleet.json"}):
            other = replace(self, directory=FleetDir(path.parent.parent, path.parent.name))
            # One that is damaged or out of reach is not what was asked for.
            with contextlib.suppress(ShardsError):
                state = other.directory.read()
                if state and state.up and await other.engine(state.spec).alive():
                    found.append(other.directory.project)
        return found

    async def require(self) -> FleetState:
        """Read the state of a fleet that runs.

        Raises:
            ShardsError: none does, or nothing keeps it alive.
        """
        state = self.directory.read()
        project = self.directory.project
        if (state is None or not state.up) and by_hand.find(project):
            raise ShardsError(by_hand.elsewhere(project))
        if state is None or not state.up:
            raise ShardsError(f"fleet {project} is not up: start it with `inv up --project {project}`")
        if not await self.engine(state.spec).alive():
            raise ShardsError(
                f"nothing keeps fleet {project} alive any more: `inv up --project {project}` starts it again"
            )
        return state


def refuse_amid_restart(state: FleetState) -> None:
    """Refuse to go on from a restart that is half-way: what stands in would be taken for a part like the others.

    Raises:
        ShardsError: one is; says how to end it.
    """
    if state.restarting:
        raise ShardsError(
            f"a restart of {state.restarting} is half-way: `inv restart {state.restarting}` goes on, "
            "`inv up` takes away what stands in"
        )


async def refuse_amid_cutover(control: Control) -> None:
    """Refuse to change the parts of a fleet while a cutover is half-way.

    Raises:
        ShardsError: one is; says how to end it.
    """
    if await control.journal():
        raise ShardsError("a cutover is half-way: run `inv promote` again to finish it, or `inv rollback` to go back")
