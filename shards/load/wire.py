"""What the coordinator and its generator processes tell each other: one JSON object a line.

Over pipes on one host, over TCP to others; `children` sees to it that each side reads times of its own clock.
"""

from __future__ import annotations

import msgspec

from shards.load.ledger import Account, Tally
from shards.load.schedule import Group, Shape
from shards.load.tls import Tls


class Plan(msgspec.Struct, tag=True):
    """What a process shall do. First line it gets.

    Attributes:
        run: names this run's groups, so that they are new to the server.
        url: the WebSocket base.
        groups: those it carries.
        connects: the course of connecting, of all processes together: client `n` is due at ``connects.when(n)``.
        sockets_per_address: connections from one loopback source address; 0: always the system's choice.
        start_ns: when the first connection is due, and second 0 of the timeline, by the monotonic clock.
        dialect: what the server speaks, one of `dialects.DIALECTS`.
        looping: publish in a closed loop, whatever the groups' rates say.
        rate: messages delivered a second, by the groups' rates, to the clients of all processes together.
        shape: what becomes of that rate over time; None: it stays.
        late_ns: a delivery is late when its latency is above this.
        tls: how to check the server.
        connect_timeout_s: how long a connection may take to come about.
    """

    run: str
    url: str
    groups: list[Group]
    connects: Shape
    sockets_per_address: int
    start_ns: int
    dialect: str = "shards"
    looping: bool = False
    rate: float = 1.0
    shape: Shape | None = None
    late_ns: int = 1_000_000_000
    tls: Tls | None = None
    connect_timeout_s: float = 30.0


class Go(msgspec.Struct, tag=True):
    """Publish, from `at_ns` on."""

    at_ns: int


class GiveUp(msgspec.Struct, tag=True):
    """Try no longer to connect: say `Connected` with those that are, and that the others are not."""


class Stop(msgspec.Struct, tag=True):
    """Publish nothing that is due from `at_ns` on; wait for what is under way; say `Done`.

    Attributes:
        at_ns: when the load ends.
        settle_s: how long to wait, at most.
        linger_s: how long to listen once all is there.
    """

    at_ns: int
    settle_s: float
    linger_s: float


class Bye(msgspec.Struct, tag=True):
    """Close the sockets, and end; until then who is through keeps them open, so that what they cost can be read.

    In place of a plan: there is nothing to do.
    """


class Ask(msgspec.Struct, tag=True):
    """Say what time it is; before the plan. `asked_ns` is told back."""

    asked_ns: int


class Hello(msgspec.Struct, tag=True):
    """The process is there and waits for its plan.

    Attributes:
        descriptors: files it may open.
        sockets_per_address: connections its host may hold from one address to one destination.
    """

    descriptors: int
    sockets_per_address: int


class Time(msgspec.Struct, tag=True):
    """The answer to `Ask`: its `asked_ns`, and the process's own time."""

    asked_ns: int
    ns: int


class Connected(msgspec.Struct, tag=True):
    """All connections were tried.

    Attributes:
        opened: how many are subscribed.
        first_ns: when the first was begun.
        last_ns: when the last was subscribed; 0: none was.
        took: how long they took, from when each was due to being subscribed, as `histogram.steps` counts.
        failures: how many failed, by reason.
    """

    opened: int
    first_ns: int
    last_ns: int
    took: dict[int, int]
    failures: dict[str, int]


class Tick(msgspec.Struct, tag=True):
    """What one second brought.

    Attributes:
        second: seconds since `Plan.start_ns`.
        open: sockets subscribed at its end.
        published: messages sent in it.
        delivered: messages received in it.
        latency: their latencies, as `histogram.steps` counts them.
        naive: what a closed loop would have measured, likewise; see `Shared.naive`.
        lag: how late the process itself was, likewise.
        away: how long those were without a socket who came back in it, likewise, by the tenth of a second since
            `Plan.start_ns` in which they lost it.
        cpu_percent: of one core.
    """

    second: int
    open: int
    published: int
    delivered: int
    latency: dict[int, int]
    naive: dict[int, int]
    lag: dict[int, int]
    away: dict[int, dict[int, int]]
    cpu_percent: float


class Done(msgspec.Struct, tag=True):
    """The process is through.

    Attributes:
        tally: its sums.
        amiss: clients with whom something went wrong.
        accounts: the books of the worst of them.
        publishers: clients that ever published.
        open: sockets that are subscribed.
        descriptors: files it had open at most, as often as it looked.
        reconnects, closed_by_server, errors, examples: as `Shared` has them.
    """

    tally: Tally
    amiss: int
    accounts: list[Account]
    publishers: int
    descriptors: int
    open: int
    reconnects: int
    closed_by_server: int
    errors: dict[str, int]
    examples: dict[str, str]


Order = Ask | Plan | Go | GiveUp | Stop | Bye
Report = Hello | Time | Connected | Tick | Done

encode = msgspec.json.encode
decode_order = msgspec.json.Decoder(Order).decode
decode_report = msgspec.json.Decoder(Report).decode
