"""A new replica is tried before clients come to it: is it the one that it should be, and does it work?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shards.errors import PartFailed
from shards.fleet import backend, probe, roundtrip
from shards.fleet.engines.base import Engine, ReplicaPart
from shards.fleet.fleet import Fleet
from shards.tokens import VERBS, grant_of

_PROBES = grant_of(["probe-*"], VERBS, "inv")
_PROBE_TOKEN_S = 600.0


async def try_out(
    fleet: Fleet, engine: Engine, parts: Sequence[ReplicaPart], serves: ReplicaPart | None, path: str
) -> str:
    """Ask each new replica for what one that serves does.

    Args:
        fleet: whose they are.
        engine: that keeps them.
        parts: the new ones, each of the release that it should be.
        serves: one to compare them with; None: there is none.
        path: of the WebSocket that is probed; empty: none is.

    Returns:
        How they answered, for people.

    Raises:
        PartFailed: one is another than it should be, or does less.
    """
    await asyncio.gather(*(_identify(engine, part) for part in parts))
    token, _ = backend.token(fleet.directory, _PROBES, _PROBE_TOKEN_S)
    other = await roundtrip.find_out(serves.port, path, token, serves.host) if serves else None
    answers: set[str] = set()
    for part in parts:
        found = await roundtrip.find_out(part.port, path, token, part.host)
        if wrong := found.ailment(other):
            raise PartFailed(part.name, f"is ready, but {wrong}", str(await engine.log(part.name)))
        answers.add(found.told())
        fleet.say(f"probed {part.name}: {found.told()}")
    return f"each answers a probe with {' or '.join(sorted(answers))}"


async def _identify(engine: Engine, part: ReplicaPart) -> None:
    """See that what answers at the port is this replica, and of this release."""
    answer = await probe.get(part.port, "/livez", part.host, within_s=5)
    said = answer.body if answer and isinstance(answer.body, dict) else {}
    if (said.get("replica"), said.get("release")) != (part.name, part.release):
        other = f"says it is {said.get('replica')} of release {said.get('release')}, and should be of {part.release}"
        raise PartFailed(part.name, f"{other}: did its directory change meanwhile?", str(await engine.log(part.name)))
