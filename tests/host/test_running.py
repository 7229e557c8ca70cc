"""What a status says of the parts of a fleet, added up."""

from __future__ import annotations

from typing import Any

from shards.host.checks import Use
from shards.host.running import silent, use


def part(name: str, healthy: bool = True, rss_bytes: int = 100, **more: Any) -> dict[str, Any]:
    return {"name": name, "healthy": healthy, "rss_bytes": rss_bytes, **more}


STATUS = {
    "connections": 70_000,
    "edges": [part("edge-0")],
    "replicas": [part("blue-0"), part("blue-1", healthy=False, rss_bytes=0)],
    "shards": [
        part("shared-0", servers=[part("shared-0"), part("shared-0-twin", healthy=False)]),
        part("shared-1", servers=[]),
    ],
    "sentinels": [part("sentinel-0")],
    "redis": [part("redis_blue")],
}


def test_both_servers_of_a_pair_are_counted_and_each_once() -> None:
    assert use(STATUS) == Use(70_000, 700)


def test_what_the_control_redis_would_know_may_be_unknown() -> None:
    assert use({**STATUS, "connections": None}).sockets == 0
    assert use({"state": "down"}) == Use()


def test_parts_that_do_not_answer_are_named() -> None:
    assert silent(STATUS) == ["blue-1", "shared-0-twin"]
    assert silent({"state": "down"}) == []
