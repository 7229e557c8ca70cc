"""A name of somebody else's that leads to the fleet: Host and Origin agree; only who knows its own name sees it."""

from __future__ import annotations

from tests.replica import ROOT, Replica
from tests.server.test_wire import enter, refused_with

ENVIRON = {"SHARDS_APP": "hosted:application", "SHARDS_APP_DIR": str(ROOT / "tests" / "apps" / "hosted")}


def by_name(replica: Replica, name: str) -> dict[str, str]:
    """Give the URL that a page at this name would open, and the page's origin."""
    return {"url": f"ws://{name}:{replica.port}/ws/", "origin": f"http://{name}:{replica.port}"}


async def test_an_allowed_hosts_validator_before_a_group_consumer_refuses_a_rebound_name(
    service: list[Replica],
) -> None:
    assert await refused_with(**by_name(service[0], "evil.example"), host="127.0.0.1") == 403
    await (await enter(**by_name(service[0], "fleet.example"), host="127.0.0.1")).close()
