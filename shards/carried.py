"""What an app's end of a connection takes along when the connection is handed to another worker.

A connection's *rider* is whatever serves it: a `shards.consumers.GroupConsumer`, or a consumer of Channels with the
channels that the layer made for it. It says when nothing of it is under way, leaves its groups and says at which place
of each it was, and on the other side a new one goes on from there.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

import msgspec

from shards.errors import ShardsError
from shards.hub import Hub
from shards.log.log import Place
from shards.tokens import Grant

if TYPE_CHECKING:
    from shards.channel import Channel

EXTENSION = "shards.handoff"
"""In an ASGI scope's ``extensions`` where the connection was handed over; names the worker it came from."""

STATE_BYTES = 65536
"""What `handoff_state` may give, as JSON."""


class StateUnfit(ShardsError):
    """What `handoff_state` gives is no JSON, or too much."""


class Followed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A group that is followed.

    Attributes:
        group: its name.
        place: of the last message heard; None: nothing was yet.
        told: the client knows that it follows the group.
        events: it hears who comes and goes.
    """

    group: str
    place: Place | None
    told: bool = True
    events: bool = False


class Carried(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a rider takes along.

    Attributes:
        session: of a group consumer, as are the following ones.
        public_id: see `GroupConsumer`.
        grant: what its token grants.
        groups: what it follows.
        levels: of its token buckets.
        channels: of a consumer of Channels: what each of its channels follows, in the order in which it made them.
        state: what `handoff_state` gave, JSON; None: the consumer has none.
    """

    session: str = ""
    public_id: str | None = None
    grant: Grant | None = None
    groups: tuple[Followed, ...] = ()
    levels: tuple[float, ...] = ()
    channels: tuple[tuple[Followed, ...], ...] = ()
    state: bytes | None = None


class Rider(Protocol):
    """An app's end of a connection. None of this is called unless nothing comes from the client any more."""

    @property
    def handoff(self) -> bool:
        """Whether the app lets the connection be handed over."""

    def settled(self) -> bool:
        """Tell whether nothing is under way: no command, no answer, no message that waits to be dispatched."""

    def part(self) -> bool:
        """Leave the groups; give whether that, or what was dispatched since the last time, may be unsettled again."""

    async def carry(self) -> Carried:
        """Give what to take along. Raises `StateUnfit`, or whatever the app's `handoff_state` raises."""

    def stay(self) -> None:
        """Join the groups that were left again, where they were left: the connection stays here."""

    def keys_changed(self) -> None:
        """Hear that tokens are good from now on that are signed with other keys than before."""


class Passenger:
    """What is known of the app's end of a connection, apart from what it is: the rider of any app.

    Attributes:
        consumer: the consumer of Channels, where it is one.
        arrived: what a rider took along to here; None: the connection began here.
    """

    __slots__ = ("__weakref__", "_channels", "_parted", "_reachable", "arrived", "consumer")

    def __init__(self, arrived: Carried | None = None) -> None:
        self.arrived = arrived
        self.consumer: Any = None
        self._reachable = True
        self._channels: list[tuple[Channel, Hub]] = []
        self._parted: list[dict[str, Followed]] = []

    def enter(self, channel: Channel, hub: Hub | None) -> None:
        """Hear of a channel that is made in the course of this connection, and tell it what it followed elsewhere.

        Args:
            channel: the new one.
            hub: where it joins groups; None: that is out of reach, and so the connection has to stay.
        """
        if hub is None:
            self._reachable = False
            return
        number = len(self._channels)
        if self.arrived is not None and number < len(self.arrived.channels):
            channel.places = {f.group: f.place for f in self.arrived.channels[number] if f.place is not None}
        self._channels.append((channel, hub))

    # See `Rider`

    @property
    def handoff(self) -> bool:
        return self._reachable and bool(getattr(self.consumer, "handoff", True))

    def settled(self) -> bool:
        return all(
            channel.idle and all(event.is_set() and hub.knows_place(g) for g, event in channel.joined.items())
            for channel, hub in self._channels
        )

    def part(self) -> bool:
        self._parted += [{} for _ in range(len(self._channels) - len(self._parted))]
        found = False
        for (channel, hub), parted in zip(self._channels, self._parted, strict=True):
            for group in channel.joined.keys() - parted.keys():
                parted[group] = Followed(group, *hub.part(group, channel))
                found = True
            for group in parted.keys() - channel.joined.keys():
                del parted[group]
        return found

    async def carry(self) -> Carried:
        state = await carried_state(self.consumer)
        return Carried(channels=tuple(tuple(parted.values()) for parted in self._parted), state=state)

    def stay(self) -> None:
        for (channel, hub), parted in zip(self._channels, self._parted, strict=False):
            for group, followed in parted.items():
                if group in channel.joined:
                    hub.join(group, channel, followed.place, followed.told)
        self._parted = []

    def keys_changed(self) -> None:
        """Nothing: what a consumer of Channels goes by is its own."""


_PASSENGER: ContextVar[ref[Passenger] | None] = ContextVar("shards passenger", default=None)
# A reference that holds nothing: whatever a connection's task starts, a timer or a task for good, inherits it.


def passenger() -> Passenger | None:
    """Give that of the connection which the current task serves."""
    held = _PASSENGER.get()
    return held() if held is not None else None


def serve_as(passenger: Passenger) -> None:
    """Have the current task serve the connection of `passenger`."""
    _PASSENGER.set(ref(passenger))


async def carried_state(consumer: Any) -> bytes | None:
    """Ask a consumer for what it wants to take along; None: it has nothing.

    Raises:
        StateUnfit: what it gives is no JSON, or more than `STATE_BYTES`.
    """
    give = getattr(consumer, "handoff_state", None)
    if give is None:
        return None
    try:
        state = msgspec.json.encode(await give())
    except TypeError as error:
        raise StateUnfit(f"handoff_state of {type(consumer).__name__} gives no JSON: {error}") from None
    if len(state) > STATE_BYTES:
        raise StateUnfit(f"handoff_state of {type(consumer).__name__} gives {len(state)} bytes: {STATE_BYTES} at most")
    return state


async def restore_state(consumer: Any, state: bytes | None) -> None:
    """Give a consumer what its predecessor took along, where that is anything and it wants it."""
    take = getattr(consumer, "handoff_restore", None)
    if take is not None and state is not None:
        await take(msgspec.json.decode(state))
