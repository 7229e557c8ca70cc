"""A fleet that runs, on each engine in turn; an engine that is not on this host is skipped, and said to be."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.ports import free_port
from tests.contract.engines import ENGINES, AnyCommands, fleets, on_this_host
from tests.swarm.lab import Lab


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The engine's name."""
    return on_this_host(str(request.param))


@pytest.fixture(scope="module")
def swarm(engine: str, request: pytest.FixtureRequest) -> Lab | None:
    """The swarm that the engine works with; None: it is of no use for it."""
    return request.getfixturevalue("swarm_lab") if engine == "swarm" else None


@pytest.fixture
def commands(engine: str, swarm: Lab | None, tmp_path: Path) -> Iterator[AnyCommands]:
    """Commands for a fleet that was never started."""
    yield from fleets(engine, tmp_path / "fleets", free_port(()), f"t-{secrets.token_hex(4)}", swarm)


@pytest.fixture(scope="module")
def fleet(engine: str, swarm: Lab | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnyCommands]:
    """A fleet of two replicas, two shards and two edges that runs; a test leaves it as well as it found it."""
    directory = tmp_path_factory.mktemp("contract")
    # Names of containers are shared by all who use the daemon.
    for commands in fleets(engine, directory / "fleets", free_port(()), f"t-{secrets.token_hex(4)}", swarm):
        commands.ok("up", "--replicas", "2", "--shards", "2", "--edges", "2")
        yield commands
