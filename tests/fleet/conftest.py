"""Fleets for tests: one a module where tests can share it, or one a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shards.ports import free_port
from tests.fleet.runner import Commands


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    """Commands for a fleet that was never started; nothing of it is left after the test."""
    yield from fleet_in(tmp_path, "t")


@pytest.fixture
def more_commands(tmp_path: Path) -> Iterator[Callable[[str], Commands]]:
    """Make commands for fleets with other names, side by side."""
    made: list[Iterator[Commands]] = []

    def make(project: str) -> Commands:
        made.append(fleet_in(tmp_path, project))
        return next(made[-1])

    yield make
    for fleet in made:
        next(fleet, None)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """A fleet of two replicas, two shards and two edges that runs; a test leaves it as well as it found it."""
    for commands in fleet_in(tmp_path_factory.mktemp("fleet"), "t"):
        commands.ok("up", "--replicas", "2", "--shards", "2", "--edges", "2")
        yield commands


def fleet_in(directory: Path, project: str) -> Iterator[Commands]:
    """Give commands for a fleet whose files are in `directory`; nothing of it runs afterwards."""
    commands = Commands(directory / "fleets", free_port(()), project)
    yield commands
    commands("down")
    commands.gone()
