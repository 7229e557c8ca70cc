"""Which shards a fleet has, and which it shall have: a number of its own, or Redis servers that run elsewhere. Pure.

A shard keeps its name as long as it is there; one that comes gets the lowest number that is free.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from shards.errors import UsageError
from shards.settings import Credentials

_EXAMPLE = "redis://10.0.0.5:6379/0"


@dataclass(frozen=True)
class External:
    """A Redis server that runs elsewhere and shall be a shard.

    Attributes:
        url: where it listens, in the one way we write it, without user and password.
        weight: its share of the slots, relative to the others'.
    """

    url: str
    weight: float = 1.0


Wanted = int | tuple[External, ...]
"""What `--shards` asks for: so many of our own, or just these."""


@dataclass(frozen=True)
class FleetShard:
    """A shard that a fleet has.

    Attributes:
        name: ``shared-`` and a number.
        url: where it runs, if elsewhere; empty: it is one of our own.
        weight: its share of the slots, relative to the others'.
        lost: it is gone for good, and its slots go to the others.
    """

    name: str
    url: str = ""
    weight: float = 1.0
    lost: bool = False

    @property
    def number(self) -> int:
        """What its name ends with."""
        return int(self.name.rpartition("-")[2])


def of_names(parts: Iterable[str]) -> tuple[FleetShard, ...]:
    """Give the fleet's own shards among parts, in order of their numbers."""
    found = (FleetShard(name) for name in parts if re.fullmatch(r"shared-\d+", name))
    return tuple(sorted(found, key=lambda shard: shard.number))


def converge(have: Sequence[FleetShard], wanted: Wanted) -> tuple[FleetShard, ...]:
    """Give the shards that a fleet shall have, those it has already under the names they have.

    Args:
        have: all there are, on their way out or lost ones too: their names are not free.
        wanted: what shall be there.
    """
    living = sorted((shard for shard in have if not shard.lost), key=lambda shard: shard.number)
    if isinstance(wanted, int):
        stay = [shard for shard in living if not shard.url][:wanted]
        new = [FleetShard("")] * (wanted - len(stay))
    else:
        known = {shard.url: shard for shard in living if shard.url}
        stay = [replace(known[one.url], weight=one.weight) for one in wanted if one.url in known]
        new = [FleetShard("", one.url, one.weight) for one in wanted if one.url not in known]
    taken = {shard.number for shard in have}
    free = (number for number in count() if number not in taken)
    named = [replace(shard, name=f"shared-{next(free)}") for shard in new]
    return tuple(sorted([*stay, *named], key=lambda shard: shard.number))


def union(*lists: Iterable[FleetShard]) -> tuple[FleetShard, ...]:
    """Give every shard of the lists once, as the last one that names it has it, in order of their numbers."""
    by_name = {shard.name: shard for shards in lists for shard in shards}
    return tuple(sorted(by_name.values(), key=lambda shard: shard.number))


def without(wanted: Wanted, shard: FleetShard) -> Wanted:
    """Give what is left of what was wanted when a shard that was part of it is gone.

    Raises:
        UsageError: nothing is.
    """
    if isinstance(wanted, int):
        return max(1, wanted - 1)
    left = tuple(one for one in wanted if one.url != shard.url)
    if not left:
        raise UsageError(f"{shard.name} is the only shard that was to stay: say with --shards which others shall")
    return left


def read_externals(text: str) -> tuple[External, ...]:
    """Read a comma-separated list of URLs.

    Raises:
        UsageError: one is no URL of a Redis server, is there twice, or has no sensible weight.
    """
    externals = tuple(External(_url(url), _weight(url)) for url in map(_split, _items(text)))
    seen: set[str] = set()
    for one in externals:
        if one.url in seen:
            raise UsageError(f"--shards names {one.url} twice")
        seen.add(one.url)
    return externals


def credentials_in(text: str) -> dict[str, Credentials]:
    """Give the users and passwords in a comma-separated list of URLs, by the URLs without them.

    Raises:
        UsageError: one is no URL of a Redis server.
    """
    urls = [url for url in map(_split, _items(text)) if url.password]
    return {
        _url(url): Credentials(unquote(url.username or "") or "default", unquote(url.password or "")) for url in urls
    }


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _split(item: str) -> SplitResult:
    shown = re.sub(r"//.*@", "//***@", item)
    try:
        url = urlsplit(item)
        port = url.port
    except ValueError:
        raise UsageError(f"--shards: {shown} is no URL; write it as {_EXAMPLE}") from None
    if url.scheme not in {"redis", "rediss"} or not url.hostname or port == 0:
        raise UsageError(f"--shards: {shown} is no URL of a Redis server; write it as {_EXAMPLE}")
    if url.fragment or not re.fullmatch(r"/?\d{0,5}", url.path) or set(parse_qs(url.query, True)) - {"weight"}:
        raise UsageError(f"--shards: after the host, {shown} may have a port, a database and ?weight=, nothing else")
    return url


def _url(url: SplitResult) -> str:
    host = url.hostname or ""
    return f"{url.scheme}://{f'[{host}]' if ':' in host else host}:{url.port or 6379}/{int(url.path.strip('/') or 0)}"


def _weight(url: SplitResult) -> float:
    text = parse_qs(url.query, True).get("weight", ["1"])[-1]
    try:
        weight = float(text)
    except ValueError:
        raise UsageError(f"--shards: the weight of {_url(url)} must be a number, not {text!r}") from None
    if not 0 < weight < float("inf"):
        raise UsageError(f"--shards: the weight of {_url(url)} must be more than 0, not {text}")
    return weight
