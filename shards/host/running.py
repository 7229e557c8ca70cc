"""What `inv status` says of the parts of a fleet that runs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shards.host.checks import Use

_KINDS = ("edges", "replicas", "redis", "sentinels")


def rows(status: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Give the row of each part; of a shard that is a pair, those of its servers."""
    for kind in _KINDS:
        yield from status.get(kind, ())
    for shard in status.get("shards", ()):
        yield from shard["servers"] or [shard]


def use(status: Mapping[str, Any]) -> Use:
    """Add up what a fleet uses of its host; as much as is known."""
    return Use(status.get("connections") or 0, sum(row.get("rss_bytes") or 0 for row in rows(status)))


def silent(status: Mapping[str, Any]) -> list[str]:
    """Name the parts that do not answer."""
    return [row["name"] for row in rows(status) if not row["healthy"]]
