"""The scenarios, as `invoke.yaml` has them under ``load:``: what to run, and what must come out.

load:
  targets: {lost: "== 0", …}            # of every scenario
  loadtest-10k:
    connections: 10000
    …
    events:                             # what happens meanwhile
      - {at: 15, run: promote}          # seconds after the load's start
      - {at: 20, kill: edge}
      - {after: 10, kill: shard}        # seconds after the end of the one before that has an `after`
    environment: {SHARDS_…: "…"}        # of the fleet it starts for itself
    targets: {p99_ms: "< 50"}           # of this one; null takes a common one away
    scaled: [delivered_per_s]           # targets for the full number of connections; fewer ask for less
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from shards.errors import UsageError
from shards.load.schedule import Shape, shape_times

_TARGET = re.compile(r"(>=|<=|==|<|>) *([0-9.]+)\Z")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_LEEWAY = 0.99


@dataclass(frozen=True)
class Target:
    """What a figure must be: ``>= 0.999``.

    Raises:
        UsageError: that is no target.
    """

    text: str

    def __post_init__(self) -> None:
        if not _TARGET.match(self.text):
            raise UsageError(f"{self.text!r} is no target: write for instance '>= 0.999' or '< 50'")

    def _parts(self) -> tuple[str, float]:
        match = _TARGET.match(self.text)
        assert match is not None
        return match[1], float(match[2])

    def met(self, measured: float) -> bool:
        """Tell whether `measured` is what it must be."""
        sign, bound = self._parts()
        return _COMPARE[sign](measured, bound)

    def scaled(self, factor: float) -> Target:
        """Give the same target for `factor` times as much."""
        sign, bound = self._parts()
        return Target(f"{sign} {bound * factor:.12g}")


@dataclass(frozen=True)
class Event:
    """Something that happens during the load: one of `kill`, `run` and `command`, at a time or after another event.

    Attributes:
        at: seconds after the load's start.
        after: seconds after the end of the last event before it that has an `after`, or else the load's start.
        kill: the kind of part of which one, chosen by chance, is killed with SIGKILL; a `worker` is a process of a
            `replica`, `redis` the active color's own Redis, `control` the control Redis.
        run: an Invoke task, on the fleet under load.
        command: a shell command.

    Raises:
        ValueError: it is none of these, or several.
    """

    at: float | None = None
    kill: Literal["worker", "replica", "shard", "edge", "redis", "control"] | None = None
    run: str | None = None
    command: str | None = None
    after: float | None = None

    def __post_init__(self) -> None:
        times = [time for time in (self.at, self.after) if time is not None]
        if sum(map(bool, (self.kill, self.run, self.command))) != 1 or len(times) != 1 or times[0] < 0:
            raise ValueError(
                "an event has one time, `at` or `after`, 0 or more, and one of `kill`, `run` and `command`"
            )

    def scaled(self, factor: float) -> Event:
        """Give the same event for a load that lasts `factor` times as long."""
        return replace(
            self,
            at=None if self.at is None else self.at * factor,
            after=None if self.after is None else self.after * factor,
        )


@dataclass(frozen=True)
class Scenario:
    """A scenario and its defaults; docs/settings.md is made of this.

    Attributes:
        name: what it is called.
        connections: sockets.
        duration: of the load, in seconds; longer where events take longer.
        rate: messages delivered a second, to all clients together.
        group_size: members a group; ``mixed``: 1 to 1,000.
        connect_rate: connections a second.
        processes: of the generator; 0: one a core, two at least, more where the connections take more files.
        replicas: of the fleet that it starts for itself.
        workers: of each of these replicas.
        shards: of that fleet.
        edges: of that fleet; none: as many as the connections take.
        lag_ms: how late the generator may be, in 99 of 100 cases, and still be trusted.
        events: what happens meanwhile, see below.
        http_probe: whether ``/livez`` is asked 20 times a second meanwhile.
        dialect: what the server speaks: ``shards``, ``plain``, ``socketio``; ``half``: half of the clients are plain.
        targets: figure → what it must be.
        scaled: figures whose targets hold for ``connections``, and less for fewer.
        shape: the course of the rate in place of an even one; then ``rate`` is the mean of it.
        connect_shape: the course of connecting in place of ``connect_rate``.
        environment: variables of the fleet that it starts for itself.
        steps: numbers of connections to try one after the other, on one fleet; empty: only ``connections``.
    """

    name: str
    connections: int
    duration: float
    rate: float
    group_size: int | Literal["mixed"] = 10
    connect_rate: float = 1000
    processes: int = 0
    replicas: int = 3
    workers: int = 1
    shards: int = 2
    edges: int | None = None
    lag_ms: float = 10
    events: tuple[Event, ...] = ()
    http_probe: bool = False
    dialect: str = "shards"
    targets: Mapping[str, Target] = field(default_factory=dict)
    scaled: tuple[str, ...] = ()
    shape: str | None = None
    connect_shape: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for shape in filter(None, (self.shape, self.connect_shape)):
            Shape.parse(shape)

    def shaped(self, shape: str) -> Scenario:
        """Give the same scenario with another course of the rate, all of which must be seen delivered."""
        return replace(self.sized(None, Shape.parse(shape).mean), shape=shape)

    def sized(self, connections: int | None, rate: float | None) -> Scenario:
        """Give the same scenario for other figures.

        Fewer connections carry proportionally less, and their scaled targets shrink with them. Whoever asks for a
        `rate` gets it, and must see it delivered.
        """
        factor = min(1.0, (connections or self.connections) / self.connections)
        shape = shape_times(self.shape, factor) if self.shape and rate is None else None
        targets = {name: t.scaled(factor) if name in self.scaled else t for name, t in self.targets.items()}
        if rate is not None and "delivered_per_s" in targets:
            targets["delivered_per_s"] = Target(f">= {_LEEWAY * rate:g}")
        return replace(
            self,
            connections=connections or self.connections,
            rate=self.rate * factor if rate is None else rate,
            targets=targets,
            shape=shape,
        )

    def step(self, connections: int) -> Scenario:
        """Give the same scenario for another number of connections, each of which carries as much as before."""
        factor = connections / self.connections
        targets = {name: t.scaled(factor) if name in self.scaled else t for name, t in self.targets.items()}
        shape = shape_times(self.shape, factor) if self.shape else None
        return replace(self, connections=connections, rate=self.rate * factor, targets=targets, shape=shape)

    def lasting(self, duration: float | None) -> Scenario:
        """Give the same scenario for another number of seconds, its events moved in proportion."""
        if duration is None:
            return self
        factor = duration / self.duration
        events = tuple(event.scaled(factor) for event in self.events)
        return replace(self, duration=duration, events=events)


def find_config(start: Path) -> Path:
    """Give the `invoke.yaml` to read: the one in `start`, else this repository's.

    Raises:
        UsageError: there is none.
    """
    for folder in (start, repository()):
        if (path := folder / "invoke.yaml").is_file():
            return path
    raise UsageError(f"no invoke.yaml in {start} nor {repository()}: its key `load:` holds the scenarios")


def repository() -> Path:
    """Give the folder that holds this repository."""
    return Path(__file__).resolve().parents[2]


def read(path: Path) -> dict[str, Scenario]:
    """Read the scenarios.

    Raises:
        UsageError: the file has none, or makes no sense; says where.
    """
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    sections = dict(config.get("load") or {}) if isinstance(config, dict) else {}
    if not sections:
        raise UsageError(f"{path} has no key `load:`, which holds the scenarios")
    common = sections.pop("targets", {})
    return {name: _scenario(name, section, common, path) for name, section in sections.items()}


def _scenario(name: str, section: dict[str, Any], common: dict[str, str], path: Path) -> Scenario:
    try:
        targets = {**common, **section.get("targets", {})}
        made = {figure: Target(text) for figure, text in targets.items() if text is not None}
        return replace(msgspec.convert({**section, "targets": {}, "name": name}, Scenario), targets=made)
    except (msgspec.ValidationError, AttributeError, TypeError) as error:
        raise UsageError(f"{path}: load: {name}: {error}") from error
