"""The stack file, by hand: Docker itself takes it, and the fleet answers on every node that has an edge."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.ports import free_port
from tests.contract.engines import SwarmCommands, docker_environment
from tests.fleet.clients import crowd
from tests.swarm.lab import Lab, until

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(900)]

UP_S = 120.0


@pytest.fixture
def commands(swarm_lab: Lab, tmp_path: Path) -> Iterator[SwarmCommands]:
    """Commands for a fleet that none of them starts."""
    base = docker_environment()
    assert isinstance(base, dict)
    found = SwarmCommands(tmp_path / "fleets", free_port(()), f"t-{secrets.token_hex(4)}", base=base, lab=swarm_lab)
    yield found
    found("down", "--purge")


def stack(lab: Lab, *words: str) -> None:
    done = subprocess.run(
        ["docker", "-H", lab.manager.url, "stack", *words], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


async def test_docker_deploys_the_stack_file(commands: SwarmCommands, swarm_lab: Lab, tmp_path: Path) -> None:
    commands.ok("build", "--engine", "swarm")
    file = tmp_path / "stack.yml"
    flags = ("--replicas", "3", "--shards", "2", "--edges", "3")
    file.write_text(commands.ok("render", "--engine", "swarm", *flags).stdout)
    stack(swarm_lab, "deploy", "--resolve-image", "never", "-c", str(file), commands.project)
    try:
        for node in swarm_lab.nodes:
            until(lambda node=node: _answers(node.address, commands.port), UP_S, f"no edge answers on {node.name}")
            async with crowd(f"ws://{node.address}:{commands.port}", 10) as ledger:
                pass
            assert (ledger.connects, ledger.failures, ledger.faults) == (10, [], [])
    finally:
        stack(swarm_lab, "rm", commands.project)


def _answers(address: str, port: int) -> bool:
    with contextlib.suppress(OSError):
        return bool(urllib.request.urlopen(f"http://{address}:{port}/readyz", timeout=2).status == 200)
    return False
