"""The program that a Redis container begins with: what of its memory the server may fill."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.fleet.runner import ROOT

START = ROOT / "docker" / "redis" / "start"
FILES = {2: "memory.max", 1: "memory/memory.limit_in_bytes"}


def arguments(tmp_path: Path, version: int, limit: str) -> list[str]:
    """Run it with a server that only prints its arguments, in a cgroup with this limit."""
    programs = tmp_path / "bin"
    programs.mkdir()
    # A `sleep` that fails ends the loop beside the server.
    for name, text in {"redis-server": "echo $*", "sleep": "exit 1"}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    file = tmp_path / "cgroup" / FILES[version]
    file.parent.mkdir(parents=True)
    if limit:
        file.write_text(f"{limit}\n")
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "CGROUP": str(tmp_path / "cgroup")}
    command = ["/bin/sh", str(START), "--appendfsync", "always"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("version", FILES)
@pytest.mark.parametrize(("limit", "filled"), [(4 << 30, 3 << 30), (2 << 30, 3 << 29), (64 << 20, 48 << 20)])
def test_a_server_refuses_before_the_kernel_kills_it(tmp_path: Path, version: int, limit: int, filled: int) -> None:
    given = arguments(tmp_path, version, str(limit))
    assert given[given.index("--maxmemory") + 1] == str(filled)
    assert given[-2:] == ["--appendfsync", "always"]


@pytest.mark.parametrize(("version", "limit"), [(2, "max"), (1, "9223372036854771712"), (2, "")])
def test_where_nothing_limits_the_container_nothing_limits_the_server(tmp_path: Path, version: int, limit: str) -> None:
    given = arguments(tmp_path, version, limit)
    assert "--maxmemory" not in given
    assert given[0] == "/etc/shards/redis.conf"
