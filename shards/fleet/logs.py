"""`inv logs`: what the parts print."""

from __future__ import annotations

from collections.abc import AsyncIterator

from shards.fleet.fleet import Fleet
from shards.fleet.spec import FleetSpec


async def lines(fleet: Fleet, name: str | None, follow: bool) -> AsyncIterator[tuple[str, str]]:
    """Give the last lines that the parts have said, and what they add while one follows.

    Args:
        fleet: whose.
        name: of one part; None: of all.
        follow: go on until cancelled.

    Yields:
        (part, line)

    Raises:
        UsageError: no part of that name has said anything.
    """
    state = fleet.remembered()
    spec = state.spec if state else FleetSpec(fleet.directory.project)
    async for part, line in fleet.engine(spec).lines(name, follow):
        yield part, line
    if state is None:
        fleet.say(f"fleet {fleet.directory.project} has no logs: it was never started")
