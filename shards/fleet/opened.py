"""The Docker daemons that a command has opened: each once, however often it asks, until the command ends.

One that looks again and again would else leave a thread, a socket and an `ssh` behind with each look.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import docker

from shards.fleet.engines.docker import daemon
from shards.fleet.engines.swarm.daemons import Daemons


class Opened:
    """What is open. Threads may ask at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._client: docker.DockerClient | None = None
        self._swarms: dict[tuple[str, ...], Daemons] = {}

    def client(self) -> docker.DockerClient:
        """Give the daemon that the environment names.

        Raises:
            ShardsError: there is none, it may not be used, or it is too old.
        """
        with self._lock:
            self._client = self._client or daemon.connect()
            return self._client

    def swarm(self, others: Sequence[str]) -> Daemons:
        """Give the daemons of a swarm, which open when they are asked for.

        Args:
            others: where those are that are not the manager's, as DOCKER_HOST has it.
        """
        with self._lock:
            return self._swarms.setdefault(tuple(others), Daemons(others))

    def close(self) -> None:
        """Close all of them. Who asks again opens them anew."""
        with self._lock:
            client, self._client = self._client, None
            swarms = [*self._swarms.values()]
        if client:
            client.close()
        for swarm in swarms:
            swarm.close()
