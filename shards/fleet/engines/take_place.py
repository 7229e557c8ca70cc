"""``python -m shards.fleet.engines.take_place FLEET_DIR NAME REDIS_SERVER``: starts one server of a pair, in its place.

A server that was killed may come back, within a second, before any Sentinel has missed it. If it came back as the
primary, and its disk was lost, its copy would copy that: nothing. So it asks the Sentinels first. Where its twin is the
primary, it starts as the twin's copy. Where they still name itself, it leaves them the time to make its twin the
primary. Only where they do not, since the twin is down too or has not got everything, it starts as the primary it
was, from the data it has; without data, never.

As a copy it starts with ``replica-priority 0``: not to be made the primary before it has everything (`promotable`). And
only once its twin is there to be copied: until the Sentinels have asked it again, they would take it for what it was.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from shards.fleet.engines.base import RedisPart, Twin
from shards.fleet.engines.redis_server import has_data
from shards.fleet.state import FleetDir
from shards.log.login import Login
from shards.settings import Credentials

SWITCH_S = 8.0
"""How long the Sentinels are given to make the twin the primary."""

_MAJORITY = 2
_EVERY_S = 0.2
_ANSWER_S = 1.0

Place = Literal["primary", "copy", "wait"]


def place(part: RedisPart, named: Sequence[int | None], waited_s: float, data: bool, twin_up: bool) -> Place:
    """Decide as what a server starts.

    Args:
        part: the server.
        named: the port of the primary, as said by each Sentinel that answers; None: it does not know the pair yet.
        waited_s: how long ago it first asked, in seconds.
        data: whether it has any.
        twin_up: whether its twin can be connected to.
    """
    assert part.twin is not None
    if len(named) < _MAJORITY:
        return "wait"
    (port, votes), *_ = Counter(named).most_common()
    if votes < _MAJORITY:
        return "wait"
    if port is None and part.twin.leads:
        # The fleet is just being started; who leads was decided by who has what.
        return "primary"
    if port != part.port:
        return "copy" if twin_up else "wait"
    return "primary" if data and waited_s >= SWITCH_S else "wait"


def client_at(port: int, password: Callable[[], str]) -> Any:
    """Make a client of a server or a Sentinel; it tries nothing again by itself, which would take seconds.

    Args:
        port: of it.
        password: reads the admin's, at each connect.
    """
    return Redis(
        port=port,
        credential_provider=Login(lambda: Credentials(password=password())),
        socket_timeout=_ANSWER_S,
        socket_connect_timeout=_ANSWER_S,
        retry=Retry(NoBackoff(), 0),
    )


def primaries_named(twin: Twin, password: Callable[[], str]) -> list[int | None]:
    """Ask each Sentinel for the port of the primary; None where it does not know the pair."""
    answers: list[int | None] = []
    for port in twin.sentinels:
        try:
            answers.append(_primary_named(port, twin.shard, password))
        except (RedisError, OSError):
            continue
    return answers


def _primary_named(sentinel: int, shard: str, password: Callable[[], str]) -> int | None:
    with client_at(sentinel, password) as client:
        found = client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", shard)
    return int(found[1]) if found else None


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), _ANSWER_S):
            return True
    except OSError:
        return False


def until_placed(part: RedisPart, password: Callable[[], str], data: Path) -> Place:
    """Ask until it is clear as what the server starts."""
    assert part.twin is not None
    began, said = time.monotonic(), False
    while True:
        named, waited_s = primaries_named(part.twin, password), time.monotonic() - began
        found = place(part, named, waited_s, has_data(data), _listens(part.twin.port))
        if found != "wait":
            return found
        if not said:
            print(f"{part.name}: waiting for its twin, and for the Sentinels to say which is the primary", flush=True)
            said = True
        time.sleep(_EVERY_S)


def main() -> None:
    """Run as supervisor's command."""
    fleet, name, server = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    part = msgspec.json.decode((fleet / "conf" / f"{name}.json").read_bytes(), type=RedisPart)
    assert part.twin is not None
    data = fleet / "data" / name
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = until_placed(part, FleetDir(fleet.parent, fleet.name).password, data)
    # Sentinel has a server rewrite its configuration when it changes its place; the next start begins from the first.
    configuration = fleet / "conf" / f"{name}.now.conf"
    configuration.write_text((fleet / "conf" / f"{name}.conf").read_text())
    follow = ["--replicaof", "127.0.0.1", str(part.twin.port), "--replica-priority", "0"]
    os.execv(server, [server, str(configuration), *(follow if found == "copy" else [])])


if __name__ == "__main__":
    main()
