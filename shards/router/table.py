"""The slot table as a value: which shard owns each slot, and since which version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec

from shards import ring


@dataclass(frozen=True)
class Shard:
    """A Redis server that owns slots.

    Attributes:
        name: what it is called, for instance ``shared-0``.
        url: where it listens, ``redis://host:port/db`` (``rediss``: over TLS), without user and password; of a primary
            and its copy, which Sentinels watch: ``redis+sentinel://host:port,host:port,host:port/name``.
        weight: its share of the slots, relative to the others'.
    """

    name: str
    url: str
    weight: float = 1.0


@dataclass(frozen=True)
class SlotTable:
    """Who owns what under one version.

    Attributes:
        version: one more at each change.
        shards: the owners, in order of their names' numbers.
        owners: for each slot, the position of its owner in `shards`.
        since: for each slot, the version under which its owner got it: the fence its publishes must show.
        fleet: whose it is: random, given with the first table; empty in those of before there was one.
    """

    version: int
    shards: tuple[Shard, ...]
    owners: tuple[int, ...]
    since: tuple[int, ...] = field(repr=False)
    fleet: str = ""

    @classmethod
    def first(cls, shards: Sequence[Shard], version: int = 1, fleet: str = "") -> SlotTable:
        """Make the first table: the slots shared out among `shards` by weight."""
        names = [shard.name for shard in shards]
        owners = ring.assign({shard.name: shard.weight for shard in shards})
        return cls(version, tuple(shards), tuple(names.index(o) for o in owners), (version,) * len(owners), fleet)

    def owner(self, slot: int) -> Shard:
        """Give the shard that owns `slot`."""
        return self.shards[self.owners[slot]]

    def owner_names(self) -> tuple[str, ...]:
        """Give the owner's name for each slot."""
        return tuple(self.shards[index].name for index in self.owners)

    def slots_of(self, name: str) -> list[int]:
        """Give the slots that the shard called `name` owns."""
        return [slot for slot, owner in enumerate(self.owner_names()) if owner == name]

    def with_shards(self, shards: Sequence[Shard]) -> SlotTable:
        """Give the next version, in which `shards` are known and each slot stays where it is.

        Raises:
            ValueError: a shard that owns slots is not among them.
        """
        position = {shard.name: index for index, shard in enumerate(shards)}
        missing = {name for name in self.owner_names() if name not in position}
        if missing:
            raise ValueError(f"{', '.join(sorted(missing))} still owns slots")
        owners = tuple(position[name] for name in self.owner_names())
        return replace(self, version=self.version + 1, shards=tuple(shards), owners=owners)

    def moved(self, slots: Sequence[int], to: str) -> SlotTable:
        """Give the next version, in which `slots` belong to the shard called `to`."""
        index = [shard.name for shard in self.shards].index(to)
        owners, since = list(self.owners), list(self.since)
        for slot in slots:
            owners[slot], since[slot] = index, self.version + 1
        return replace(self, version=self.version + 1, owners=tuple(owners), since=tuple(since))

    def encode(self) -> bytes:
        """Give the table as JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> SlotTable:
        """Read what `encode` wrote."""
        return msgspec.json.decode(data, type=cls)
