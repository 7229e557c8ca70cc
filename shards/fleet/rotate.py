"""`rotate`: new passwords for the Redis servers of a fleet that runs, or a new key for tokens; nobody reconnects.

Servers take several passwords of a user at once, and a connection outlives the password it was made with. What is good
and what is shown is in the files (`shards.fleet.accounts`), which go before the servers: one that starts in between
comes up with what they say. Killed at any moment, run it again: all passwords of earlier runs go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from redis.exceptions import RedisError

from shards.errors import PartFailed
from shards.fleet import accounts, layout, probe
from shards.fleet.accounts import Passwords, Users
from shards.fleet.engines.base import Engine, RedisPart, SentinelPart
from shards.fleet.fleet import CONTROL_S, Fleet
from shards.fleet.state import FleetState, new_secret

SETTLE_S = 5.0
"""How long the passwords from before are good after nobody is told them any more, in seconds: no connect of a worker
takes as long, so that whoever has read them then is through."""

_Server = RedisPart | SentinelPart


async def rotate_passwords(fleet: Fleet) -> None:
    """Give both users of the Redis servers new passwords, and take the old ones away.

    Raises:
        ShardsError: the fleet is not up, its engine can't do that, or a server does not answer. Then the passwords
            from before are still good, or else the new ones are already; run again, it goes on.
    """
    with fleet.directory.lock("rotate"):
        state, engine = await _may_change(fleet)
        fresh = Passwords((new_secret(),), (new_secret(),))
        both, shown, alone = accounts.rotation(fleet.directory.passwords(), fresh)
        fleet.say("having the servers take new passwords beside the old ones")
        await _keep(fleet, engine, state, both)
        fleet.say("having everybody show the new ones")
        await _keep(fleet, engine, state, shown)
        await _show(fleet, state)
        await asyncio.sleep(SETTLE_S)
        fleet.say("having the servers refuse the old ones")
        await _keep(fleet, engine, state, alone)


async def rotate_token_key(fleet: Fleet) -> bool:
    """Have new tokens signed with a new key. The key before is good until the next time, older ones are not.

    Returns:
        Whether there was an older one, which is good no more.

    Raises:
        ShardsError: the fleet is not up, or its engine can't do that.
    """
    with fleet.directory.lock("rotate"):
        state, engine = await _may_change(fleet)
        known = fleet.directory.token_keys()
        fleet.directory.keep_token_keys([new_secret(), *known[:1]])
        await engine.spread_secrets(_servers(state))
        return len(known) > 1


async def _may_change(fleet: Fleet) -> tuple[FleetState, Engine]:
    state = await fleet.require()
    engine = fleet.engine(state.spec)
    fleet.directory.create()
    # Nothing has changed yet, and an engine that can't bring secrets to its parts says so.
    await engine.spread_secrets(_servers(state))
    return state, engine


async def _keep(fleet: Fleet, engine: Engine, state: FleetState, good: Passwords) -> None:
    fleet.directory.keep_passwords(good)
    await engine.spread_secrets(_servers(state))
    await accept(fleet, state)


async def accept(fleet: Fleet, state: FleetState, lost: Collection[str] = ()) -> None:
    """Have every server and Sentinel know the users, with the passwords that the files say, and no others.

    Args:
        fleet: whose they are.
        state: of it.
        lost: the addresses of hosts that are gone: servers there are left out.

    Raises:
        PartFailed: one does not answer.
    """
    good = fleet.directory.passwords()
    for server in [part for part in layout.redis_parts(state) if part.host not in lost]:
        await _tell(fleet, state, server, _as_commands(accounts.server_users(good)))
    for sentinel in layout.sentinel_parts(state):
        told = _as_commands(accounts.sentinel_users(good))
        # Of users alone it would write nothing down, and not know them when it comes back.
        await _tell(fleet, state, sentinel, [*told, ("SENTINEL FLUSHCONFIG",)])


def _as_commands(users: Users) -> list[tuple[str, ...]]:
    """Write users as commands; each changes one at once, from whatever it was."""
    return [("ACL SETUSER", name, "reset", *rules) for name, rules in users.items()]


async def _show(fleet: Fleet, state: FleetState) -> None:
    """Have the servers of pairs, and Sentinels, show one another what is shown now; others read the files."""
    password = fleet.directory.password()
    for server in layout.redis_parts(state):
        if server.twin:
            await _tell(fleet, state, server, [("CONFIG SET", "masterauth", password)])
    for sentinel in layout.sentinel_parts(state):
        pairs = [("SENTINEL SET", pair, "auth-pass", password) for pair in sentinel.pairs]
        await _tell(fleet, state, sentinel, [("SENTINEL CONFIG", "SET", "sentinel-pass", password), *pairs])


async def _tell(fleet: Fleet, state: FleetState, part: _Server, commands: Sequence[tuple[str, ...]]) -> None:
    try:
        await probe.insist(lambda: _told(fleet, state, part, commands))
    except (RedisError, OSError) as error:
        log = str(await fleet.engine(state.spec).log(part.name))
        raise PartFailed(part.name, f"does not take its users: {error}", log) from None


async def _told(fleet: Fleet, state: FleetState, part: _Server, commands: Sequence[tuple[str, ...]]) -> None:
    host = layout.host(state, part.name)
    client: Any = probe.redis_client(part.port, fleet.directory.password(), CONTROL_S, host)
    try:
        for command in commands:
            await client.execute_command(*command)
    finally:
        await client.aclose()


def _servers(state: FleetState) -> list[_Server]:
    return [*layout.redis_parts(state), *layout.sentinel_parts(state)]
