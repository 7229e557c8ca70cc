"""Moving sockets off replicas: the order to drain, and the wait until the registry says that none is left."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from shards.fleet.fleet import Fleet
from shards.fleet.probe import until
from shards.router.control import Control, Orders

MARGIN_S = 10.0
"""What a drain may take beyond its window: orders travel with heartbeats, and so does the count that is left."""


def draining(seconds: float) -> Orders:
    """Give the order to drain within `seconds`."""
    return Orders("draining", round(seconds * 1000))


async def drain(
    fleet: Fleet, control: Control, orders: Mapping[str, Orders | None], drained: Collection[str], seconds: float
) -> int:
    """Give orders and wait until the replicas that drain have no socket any more.

    Args:
        fleet: is told how many are left.
        control: where orders are given and counts are read.
        orders: what to order.
        drained: names of the replicas that must become empty.
        seconds: the window of the drain.

    Returns:
        How many sockets were left when the window and its margin had passed; 0 when all are gone.
    """
    await control.order(orders)
    left = 0

    async def empty() -> bool:
        nonlocal left
        records = [record for record in await control.workers() if record.replica in drained]
        left = sum(record.connections for record in records)
        fleet.say(f"draining: {left:,} sockets left on {len(drained)} replicas")
        # One that has not read its orders yet may still take a socket.
        return left == 0 and all(record.state == "draining" for record in records)

    await until(empty, seconds + MARGIN_S, every_s=0.2)
    return left
