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
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from redis.exceptions import RedisError

from shards.fleet import layout
from shards.fleet.engines.base import RedisPart
from shards.fleet.engines.take_place import client_at, primaries_named
from shards.fleet.state import FleetDir

EVERY_S = 0.1
"""Sooner than Sentinel, which asks a copy that is not linked each second, and then leaves it at that for ten."""

NEVER, MAY = 0, 100

Role = Sequence[Any]


def priority(role: Role, named: bool) -> int | None:
    """Decide a server's priority; None: leave it as it is.

    Args:
        role: what the server says to ROLE.
        named: it is the primary, as far as is known.
    """
    if role[0] == b"slave":
        return MAY if role[3] == b"connected" else None
    return None if named else NEVER


class Watch:
    """Looks at servers, and tells those that say otherwise what they should say.

    Args:
        password: reads that of the servers and the Sentinels, at each connect.
    """

    def __init__(self, password: Callable[[], str]) -> None:
        self._password = password
        self._clients: dict[int, Any] = {}

    def look_at(self, pair: Sequence[RedisPart]) -> None:
        """Give the two servers of a pair the priorities that they should have."""
        roles = {part: role for part in pair if (role := self._role(part))}
        two_lead = [role[0] for role in roles.values()] == [b"master", b"master"]
        for part, role in roles.items():
            wanted = priority(role, not two_lead or self._is_named(part))
            if wanted is not None:
                self._tell(part, wanted)

    def _role(self, part: RedisPart) -> Role | None:
        if part.port not in self._clients:
            self._clients[part.port] = client_at(part.port, self._password)
        try:
            return cast(Role, self._clients[part.port].execute_command("ROLE"))
        except (RedisError, OSError):
            return None

    def _is_named(self, part: RedisPart) -> bool:
        assert part.twin is not None
        named = {port for port in primaries_named(part.twin, self._password) if port}
        return not named or part.port in named

    def _tell(self, part: RedisPart, wanted: int) -> None:
        # Asked each time: it may have been away for a moment, and have what it was started with.
        client = self._clients[part.port]
        with suppress(RedisError, OSError):
            if client.config_get("replica-priority") != {"replica-priority": str(wanted)}:
                client.config_set("replica-priority", wanted)
                print(f"{part.name}: replica-priority {wanted}", flush=True)


def main() -> None:
    """Run as supervisor's command."""
    path = Path(sys.argv[1])
    directory = FleetDir(path.parent, path.name)
    watch = Watch(directory.password)
    while True:
        time.sleep(EVERY_S)
        if state := directory.read():
            for shard in layout.local_shard_names(state):
                watch.look_at(layout.server_parts(state, shard))


if __name__ == "__main__":
    main()
