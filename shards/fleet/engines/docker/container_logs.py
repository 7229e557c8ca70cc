"""What containers have said, as the daemon keeps it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime

from docker.errors import APIError, NotFound
from docker.models.containers import Container

from shards.fleet.engines.docker import stack
from shards.fleet.engines.docker.daemon import errors
from shards.fleet.engines.log_files import unknown

_TAIL = 150
_EVERY_S = 0.5


def tail(container: Container, lines: int) -> str:
    """Give the last lines of a container; nothing where it is going just now."""
    try:
        said = container.logs(tail=lines).decode(errors="replace")
    except APIError:
        return ""
    if container.attrs["State"].get("OOMKilled"):
        memory = container.attrs["HostConfig"]["Memory"] / 2**20
        said += f"\nit took more than the {memory:,.0f} MB of memory it may: the kernel killed it, raise its limit\n"
    return said


async def lines(
    found: Callable[[], Mapping[str, Container]], name: str | None, follow: bool
) -> AsyncIterator[tuple[str, str]]:
    """Give the last lines of containers, and what is added while one follows; see `Engine.lines`."""
    # The moment of each part's newest line: the next look asks for what is newer.
    newest: dict[str, str] = {}
    while True:
        for part, container in sorted(_parts(await asyncio.to_thread(found), name).items()):
            for moment, line in await asyncio.to_thread(_since, container, newest.get(part)):
                if moment > newest.get(part, ""):
                    newest[part] = moment
                    yield part, line
        if not follow:
            return
        await asyncio.sleep(_EVERY_S)


def _parts(found: Mapping[str, Container], name: str | None) -> dict[str, Container]:
    parts = {part: one for one in found.values() if (part := one.labels.get(stack.PART_LABEL))}
    if name is None:
        return parts
    if name not in parts:
        raise unknown(name, sorted(parts))
    return {name: parts[name]}


def _since(container: Container, moment: str | None) -> list[tuple[str, str]]:
    said = b""
    # One that was removed since it was found has no more to say.
    with errors(), contextlib.suppress(NotFound):
        if moment is None:
            said = container.logs(timestamps=True, tail=_TAIL)
        else:
            said = container.logs(timestamps=True, since=datetime.fromisoformat(moment[:19]))
    found = []
    for line in said.decode(errors="replace").splitlines():
        stamp, _, text = line.partition(" ")
        found.append((stamp, text.rstrip("\r")))
    return found
