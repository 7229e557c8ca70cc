"""Commands for what a backend does: token, publish."""

from __future__ import annotations

import asyncio
import json as jsonlib
import math

from invoke.context import Context
from invoke.tasks import task

from shards.errors import UsageError
from shards.fleet import backend, layout
from shards.tasks.console import run
from shards.tasks.fleet import DEBUG, PROJECT, fleet_of
from shards.tokens import VERBS, grant_of

_LONGEST_S = 10 * 365 * 86400


@task(
    auto_shortflags=False,
    iterable=["group"],
    help={
        "group": "which groups, * stands for any characters: 'room:*'; may be given several times",
        "ttl": "for how many seconds it is good (default 3600)",
        "may": "what its bearer may do: subscribe, publish, or both with a comma (default both)",
        "subject": "who it is for; ids of messages published over HTTP are told apart by it",
        "json": "print one JSON object",
        "project": PROJECT,
        "debug": DEBUG,
    },
)
def token(
    context: Context,
    group: list[str],
    ttl: str = "3600",
    may: str = ",".join(VERBS),
    subject: str = "",
    json: bool = False,
    project: str | None = None,
    debug: bool = False,
) -> None:
    """Print a signed token with which a client may join groups, or a backend publish to them."""

    async def work() -> None:
        grant = grant_of(group, [verb.strip() for verb in may.split(",")], subject)
        signed, expires = backend.token(fleet_of(context, project).directory, grant, _seconds(ttl))
        said = {"token": signed, "groups": grant.groups, "may": sorted(grant.may), "expires": expires}
        print(jsonlib.dumps(said) if json else signed)

    run(work(), debug=debug)


def _seconds(ttl: str) -> float:
    try:
        seconds = float(ttl)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= _LONGEST_S:
        raise UsageError(f"--ttl must be 1 to {_LONGEST_S} seconds, not {ttl!r}")
    return seconds


@task(
    auto_shortflags=False,
    help={
        "group": "where to",
        "data": "any JSON",
        "id": "the message's id: published again within two minutes, it is the same message (default: a new one)",
        "project": PROJECT,
        "debug": DEBUG,
    },
)
def publish(
    context: Context,
    group: str = "",
    data: str = "",
    id: str | None = None,
    project: str | None = None,
    debug: bool = False,
) -> None:
    """Publish a message to a group; prints its offset once it is in the log."""

    async def work() -> None:
        body = backend.message(group, data, id)
        with fleet_of(context, project) as fleet:
            state = await fleet.require()
            print(await asyncio.to_thread(backend.publish, fleet.directory, layout.url(state), group, body))

    run(work(), debug=debug)
