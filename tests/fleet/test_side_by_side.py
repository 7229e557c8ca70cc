"""Fleets of other names on the same host do not notice each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fleet.runner import Commands, finish

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]

SMALL = ("--replicas", "1", "--shards", "1", "--edges", "1")


def test_two_projects_at_once(more_commands: Callable[[str], Commands]) -> None:
    a, b = more_commands("a"), more_commands("b")
    starts = [a.start("up", *SMALL), b.start("up", *SMALL)]
    assert [finish(start).code for start in starts] == [0, 0]
    assert not set(a.ports()) & set(b.ports())
    assert not {p.pid for p in a.processes()} & {p.pid for p in b.processes()}
    a.ok("down")
    a.gone()
    assert b.status()["state"] == "steady"
    assert b.ok("status").stdout.startswith("fleet b is ")
    told = a("status")
    assert (told.code, told.stdout.strip()) == (
        1,
        "fleet a does not run: `inv up --project a` starts it; those that run: b (say --project)",
    )
    again = a.ok("down")
    assert again.stdout.strip() == "fleet a was not up; those that run: b (say --project)"
    assert again.stderr == "", "nothing is being stopped"
    taken = a("up", *SMALL, INVOKE_FLEET_PORT=str(b.port))
    assert taken.code == 1
    assert f"port {b.port} is in use by traefik" in taken.last
    assert "--port" in taken.last
    assert a.ok("down", "--purge").stdout.startswith("fleet a was not up, and its data, logs and secrets are deleted")
    assert not a.directory.exists()
    a.gone()
