"""The fleet under load: one that runs already, or one of its own, started and taken down by `inv`.

Only through the commands, as a user would: the load knows nothing of how a fleet works.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import psutil

from shards.errors import ShardsError, UsageError
from shards.load.scenarios import Scenario, repository
from shards.ports import free_port

_UP_SECONDS = 300
_DOWN_SECONDS = 120
_STATUS_SECONDS = 20
_REACH_SECONDS = 5
_CALM_SECONDS = 15
_AGAIN_SECONDS = 1.0

STEADY = "steady"
"""The state of a fleet all of whose parts are well, as `inv status --json` says it."""

_CONNECTIONS = 10_000
"""What a fleet holds by default; for more it is told, so that it has the edges it takes."""


def invoke(*arguments: str) -> list[str]:
    """Give the command that runs an Invoke task; to be run in this repository's folder."""
    return [sys.executable, "-m", "invoke", *arguments]


@contextlib.contextmanager
def own_fleet(scenario: Scenario, engine: str | None) -> Iterator[tuple[str, str]]:
    """Start a fleet for the scenario; take it down again, whatever happens.

    Yields:
        Its WebSocket base, and its project's name.

    Raises:
        ShardsError: it did not start.
    """
    project, port = f"loadtest-{os.getpid()}", free_port(())
    options = ["--project", project, "--port", str(port), "--replicas", str(scenario.replicas)]
    options += ["--workers", str(scenario.workers), "--shards", str(scenario.shards)]
    options += ["--edges", str(scenario.edges)] if scenario.edges else []
    options += ["--engine", engine] if engine else []
    environment = os.environ | dict(scenario.environment)
    if scenario.connections > _CONNECTIONS:
        environment |= {"INVOKE_FLEET_CONNECTIONS": str(scenario.connections)}
    try:
        command = invoke("up", *options)
        up = subprocess.run(
            command, cwd=repository(), env=environment, stdout=sys.stderr, timeout=_UP_SECONDS, check=False
        )
        if up.returncode:
            raise ShardsError(f"the fleet did not start (`inv up` gave {up.returncode}; its output is above)")
        yield f"ws://127.0.0.1:{port}/ws/", project
    except subprocess.TimeoutExpired as error:
        raise ShardsError(f"the fleet did not start within {_UP_SECONDS} s") from error
    finally:
        _down(project)


def keep_logs(project: str, folder: Path) -> None:
    """Copy what a fleet's parts printed to `folder`, as far as it can be read."""
    state = repository() / os.environ.get("INVOKE_FLEET_STATE_DIR", ".fleet")
    with contextlib.suppress(OSError):
        shutil.copytree(state / project / "logs", folder, dirs_exist_ok=True)


def _down(project: str) -> None:
    """Take a fleet down. In its own session: a second Ctrl-C shall not leave processes behind.

    Raises:
        KeyboardInterrupt: somebody asked to stop meanwhile; the fleet is down all the same.
    """
    command = invoke("down", "--purge", "--project", project)
    process = subprocess.Popen(command, cwd=repository(), stdout=sys.stderr, start_new_session=True)
    interrupted = False
    for _ in range(2):
        try:
            process.wait(_DOWN_SECONDS)
            break
        except KeyboardInterrupt:
            interrupted = True
    if process.returncode:
        print(f"`inv down` gave {process.returncode}: run `inv {' '.join(command[3:])}`", file=sys.stderr)
    if interrupted:
        raise KeyboardInterrupt


async def status(url: str, project: str | None, aside: bool = False) -> dict[str, Any]:
    """Give what `inv status --json` says of the fleet at `url`; empty where it says nothing, or of another fleet.

    Args:
        url: a WebSocket address.
        project: the fleet's name; None: the one that `inv` takes for granted.
        aside: ask while a load runs, and let everybody else on this host go first: it takes half a second of CPU.
    """
    options = ["--project", project] if project else []
    process = await asyncio.create_subprocess_exec(
        *(("nice", "-n", "10") if aside else ()),
        *invoke("status", "--json", *options),
        cwd=repository(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_STATUS_SECONDS):
            output, _ = await process.communicate()
        fleet = json.loads(output)
    except (TimeoutError, ValueError):
        return {}
    finally:
        if process.returncode is None:
            process.kill()
    known = isinstance(fleet, dict) and await asyncio.to_thread(same_place, str(fleet.get("url")), url)
    return fleet if known else {}


async def state_in_the_end(url: str, project: str | None, stopped: Callable[[], bool]) -> str:
    """Give the state of the fleet at `url` once it is steady, or after some 15 s: what is busy answers a little later.

    Args:
        url, project: as for `status`.
        stopped: tells whether nobody wants to wait any more.
    """
    deadline, state = monotonic() + _CALM_SECONDS, "unknown"
    while state != STEADY and not stopped() and monotonic() < deadline:
        await asyncio.sleep(_AGAIN_SECONDS)
        state = (await status(url, project)).get("state", "unknown")
    return state


def same_place(fleet_url: str, url: str) -> bool:
    """Tell whether a fleet of this host is what is at `url`: the port is its, and the host it names is this one.

    Args:
        fleet_url: as `inv status` says it, with the address at which this host reaches the fleet.
        url: a WebSocket address.
    """
    parts, (host, port) = urlsplit(fleet_url), address(url)
    return parts.port == port and (parts.hostname == host or is_this_host(host))


def is_this_host(host: str) -> bool:
    """Tell whether a name or address is this host's, all that it resolves to; asks the resolver."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return False
    own = {one.address for some in psutil.net_if_addrs().values() for one in some}
    return all(one in own or ip_address(one).is_loopback for one in found)


async def check_known(url: str, project: str | None) -> None:
    """Refuse to kill, promote or reshard where the fleet at `url` is none of this host's: it would meet another one.

    Raises:
        UsageError: says so.
    """
    if not await status(url, project):
        command = f"inv status --project {project}" if project else "inv status"
        raise UsageError(
            f"`{command}` knows no fleet at {public(url)}, so nothing can be killed or run on it: give its --project, "
            "on the host where it runs"
        )


def public(url: str) -> str:
    """Give an address as it may be shown to all: without user, password and query, which may hold a token."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{place}{parts.path}{'?…' if parts.query else ''}"


def check_url(url: str) -> None:
    """Refuse an address that is none, or where nobody listens.

    Raises:
        UsageError: it is no WebSocket address.
        ShardsError: nobody answers there.
    """
    host, port = address(url)
    try:
        socket.create_connection((host, port), _REACH_SECONDS).close()
    except OSError as error:
        raise ShardsError(
            f"nobody answers at {public(url)}: {error.strerror or error}; start it first (a fleet: `inv up`)"
        ) from error


def address(url: str) -> tuple[str, int]:
    """Give the host and port of a WebSocket address.

    Raises:
        UsageError: it is no WebSocket address.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "wss" else 80)
    except ValueError as error:
        raise UsageError(f"{url} is no address: {error}") from error
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise UsageError(f"{url} is no WebSocket address: write for instance ws://127.0.0.1:8000/ws/")
    return parts.hostname, port


def http_url(url: str, path: str) -> str:
    """Give the HTTP address of `path` on the host of a WebSocket address."""
    parts = urlsplit(url)
    return f"{'https' if parts.scheme == 'wss' else 'http'}://{parts.netloc}{path}"
