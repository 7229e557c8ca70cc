"""A shard of two real Redis servers and the three real Sentinels that watch it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from shards.log.pair import Pair
from shards.router.table import Shard
from tests.redis_server import RedisServer

NAME = "shared-0"


class RedisPair:
    """Two servers, the first of which is the primary at the beginning, and their Sentinels."""

    def __init__(self, start: Callable[..., RedisServer], directory: Path) -> None:
        self.servers = [start(), start()]
        self.client(self.servers[1]).replicaof("127.0.0.1", self.servers[0].port)
        self.sentinels = []
        for number in range(3):
            (directory / f"sentinel-{number}.conf").write_text("")
            self.sentinels.append(start(sentinel=str(directory / f"sentinel-{number}.conf")))
        for sentinel in self.sentinels:
            client = self.client(sentinel)
            client.execute_command("SENTINEL", "MONITOR", NAME, "127.0.0.1", self.servers[0].port, 2)
            client.execute_command("SENTINEL", "SET", NAME, "down-after-milliseconds", 1000, "failover-timeout", 3000)
        self.until(lambda: all(self._sees_all(sentinel) for sentinel in self.sentinels))

    @property
    def shard(self) -> Shard:
        return Shard(NAME, Pair(NAME, tuple(("127.0.0.1", s.port) for s in self.sentinels)).url)

    def client(self, server: RedisServer) -> Redis:
        return Redis.from_url(server.url, decode_responses=True, single_connection_client=False)

    def _sees_all(self, sentinel: RedisServer) -> bool:
        with self.client(sentinel) as client:
            found = client.execute_command("SENTINEL", "MASTER", NAME)
            state = found if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True))
            return (int(state["num-other-sentinels"]), int(state["num-slaves"])) == (2, 1) and self.linked(1)

    def linked(self, number: int) -> bool:
        """Tell whether a server is a copy that follows its primary."""
        try:
            with self.client(self.servers[number]) as client:
                return client.info("replication").get("master_link_status") == "up"
        except (RedisError, OSError):
            return False

    def primary(self) -> int:
        """The number of the server that Sentinel names."""
        with self.client(self.sentinels[0]) as client:
            found = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        return [server.port for server in self.servers].index(int(found[1]))

    def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.05)

    def signal(self, number: int, signum: signal.Signals) -> None:
        """Stop a server, or have it go on."""
        process = self.servers[number].process
        assert process is not None
        os.kill(process.pid, signum)

    def comes_back(self, number: int) -> None:
        """Start a killed server again, as a copy of the other."""
        self.servers[number].options += ("--replicaof", "127.0.0.1", str(self.servers[1 - number].port))
        self.servers[number].start()
