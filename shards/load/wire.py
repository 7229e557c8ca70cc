"""What the coordinator and its generator processes tell each other: one JSON object a line.

Over pipes today; nothing in it minds a TCP connection to another host, apart from the shared monotonic clock.
"""

from __future__ import annotations

import msgspec

from shards.load.ledger import Tally
from shards.load.schedule import Group


class Plan(msgspec.Struct, tag=True):
    """What a process shall do. First line it gets.

    Attributes:
        run: names this run's groups, so that they are new to the server.
        url: the WebSocket base.
        groups: those it carries.
        connect_rate: connections a second, of all processes together.
        sockets_per_address: connections from one loopback source address; 0: always the system's choice.
        start_ns: when the first connection is due, and second 0 of the timeline, by the monotonic clock.
        dialect: what the server speaks, one of `dialects.DIALECTS`.
        looping: publish in a closed loop, whatever the groups' rates say.
    """

    run: str
    url: str
    groups: list[Group]
    connect_rate: float
    sockets_per_address: int
    start_ns: int
    dialect: str = "shards"
    looping: bool = False


class Go(msgspec.Struct, tag=True):
    """Publish, from `at_ns` on."""

    at_ns: int


class Stop(msgspec.Struct, tag=True):
    """Publish nothing that is due from `at_ns` on; wait up to `settle_s` seconds for what is under way; say `Done`."""

    at_ns: int
    settle_s: float


class Hello(msgspec.Struct, tag=True):
    """The process is there and waits for its plan."""


class Connected(msgspec.Struct, tag=True):
    """All connections were tried.

    Attributes:
        opened: how many are subscribed.
        first_ns: when the first was begun.
        last_ns: when the last was subscribed.
        failures: how many failed, by reason.
    """

    opened: int
    first_ns: int
    last_ns: int
    failures: dict[str, int]


class Tick(msgspec.Struct, tag=True):
    """What one second brought.

    Attributes:
        second: seconds since `Plan.start_ns`.
        open: sockets subscribed at its end.
        published: messages sent in it.
        delivered: messages received in it.
        latency: their latencies, as `histogram.steps` counts them.
        lag: how late the process itself was, likewise.
        away: how long those were without a socket who came back in it, likewise.
        cpu_percent: of one core.
    """

    second: int
    open: int
    published: int
    delivered: int
    latency: dict[int, int]
    lag: dict[int, int]
    away: dict[int, int]
    cpu_percent: float


class Done(msgspec.Struct, tag=True):
    """The process is through: its sums, who ever published, and how many sockets were subscribed at the end."""

    tally: Tally
    publishers: int
    open: int
    reconnects: int
    closed_by_server: int
    errors: dict[str, int]
    examples: dict[str, str]


Order = Plan | Go | Stop
Report = Hello | Connected | Tick | Done

encode = msgspec.json.encode
decode_order = msgspec.json.Decoder(Order).decode
decode_report = msgspec.json.Decoder(Report).decode
