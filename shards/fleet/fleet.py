"""One fleet as the commands hold it: its directory, its engine, its control plane, and whom to tell of progress."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from redis.exceptions import RedisError

from shards.errors import PartFailed, ShardsError
from shards.fleet import layout, probe
from shards.fleet.engines.base import Engine
from shards.fleet.engines.local import LocalEngine, LocalOptions
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
    """

    directory: FleetDir
    options: LocalOptions
    say: Callable[[str], None]

    def engine(self, spec: FleetSpec) -> Engine:
        """Give the engine that `spec` names."""
        return LocalEngine(spec, self.directory, self.options)

    @contextlib.asynccontextmanager
    async def control(self, state: FleetState) -> AsyncIterator[Control]:
        """Open the control plane.

        Raises:
            PartFailed: the control Redis does not answer.
        """
        client = probe.redis_client(state.ports[layout.CONTROL], self.directory.password(), CONTROL_S)
        try:
            yield Control(client)
        except RedisError as error:
            log = self.engine(state.spec).log(layout.CONTROL)
            raise PartFailed(layout.CONTROL, f"does not answer: {error}", str(log)) from None
        finally:
            await client.aclose()

    async def require(self) -> FleetState:
        """Read the state of a fleet that runs.

        Raises:
            ShardsError: none does, or nothing keeps it alive.
        """
        state = self.directory.read()
        project = self.directory.project
        if state is None or not state.up:
            raise ShardsError(f"fleet {project} is not up: start it with `inv up --project {project}`")
        if not await self.engine(state.spec).alive():
            raise ShardsError(
                f"nothing keeps fleet {project} alive any more: `inv up --project {project}` starts it again"
            )
        return state
