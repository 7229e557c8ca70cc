"""``python -m shards.fleet.engines.promotable FLEET_DIR``: tells Sentinel which copies it may make primaries.

Sentinel takes a copy by when it was last linked to its primary, not by whether it ever had everything: one that has
just come back without its disk would do. So copies start with ``replica-priority 0``, which rules them out, and get
the usual 100 here once they are linked, which is when the first full copy is done. From then on they have whatever
was acked, linked or not, since nothing is acked without them. A primary that was cut off, and is none any more, is
ruled out until it has caught up.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from redis import Redis
from redis.exceptions import RedisError

from shards.fleet import layout
from shards.fleet.engines.base import RedisPart
from shards.fleet.engines.take_place import primaries_named
from shards.fleet.state import FleetDir

EVERY_S = 0.3
NEVER, MAY = 0, 100


def priority(replication: dict[str, Any], named: bool) -> int | None:
    """Decide a server's priority; None: leave it as it is.

    Args:
        replication: what the server says (INFO replication).
        named: the Sentinels name it the primary.
    """
    if replication["role"] == "slave":
        return MAY if replication["master_link_status"] == "up" else None
    return None if named else NEVER


def look_at(part: RedisPart, named: bool, clients: dict[int, Redis], password: str) -> None:
    """Give one server the priority that it should have.

    Raises:
        redis.exceptions.RedisError: it does not answer.
    """
    client = clients.setdefault(part.port, Redis(port=part.port, password=password, socket_timeout=1))
    wanted = priority(client.info("replication"), named)
    found = int(cast(dict[str, str], client.config_get("replica-priority"))["replica-priority"])
    if wanted is not None and wanted != found:
        client.config_set("replica-priority", wanted)
        print(f"{part.name}: replica-priority {wanted}", flush=True)


def main() -> None:
    """Run as supervisor's command."""
    path = Path(sys.argv[1])
    directory = FleetDir(path.parent, path.name)
    password = directory.password()
    clients: dict[int, Redis] = {}
    while True:
        time.sleep(EVERY_S)
        state = directory.read()
        for part in layout.redis_parts(state) if state else ():
            if part.twin is None:
                continue
            said = {port for port in primaries_named(part.twin, password) if port}
            with suppress(RedisError, OSError):
                look_at(part, not said or part.port in said, clients, password)


if __name__ == "__main__":
    main()
