"""What the docker engine is told by settings: base images, and what each kind of container may use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from shards.errors import UsageError

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


@dataclass(frozen=True)
class Limits:
    """What a container may use.

    Attributes:
        memory: as Docker writes it, for instance ``4G``; beyond it, the kernel kills it.
        cpus: how many cores' worth of time.
    """

    memory: str
    cpus: float

    @property
    def memory_bytes(self) -> int:
        """The memory, in bytes."""
        return memory_bytes(self.memory)


@dataclass(frozen=True)
class DockerOptions:
    """Where the docker engine finds what it builds on, and what containers may use.

    Attributes:
        root: the project's own directory, which holds ``docker/`` and the reference app.
        python_image: that replicas build on: Debian's kind, with Python 3.11 or newer.
        redis_image: that Redis servers build on.
        traefik_image: that edges build on.
        prometheus_image: that watches, where the profile `monitoring` is asked for.
        grafana_image: that shows what it saw.
        app: limits of a replica.
        redis: limits of a color's own Redis.
        shared: limits of a shard, and of the control Redis.
        edge: limits of an edge.
        monitoring: limits of Prometheus, and of Grafana.
        nofile: files that a container may open, as far as the daemon can give so many.
        daemons: of the other nodes of a swarm, as DOCKER_HOST has them.
    """

    root: Path
    python_image: str = "python:3.12-slim-bookworm"
    redis_image: str = "redis:7-alpine"
    traefik_image: str = "traefik:v3.7"
    prometheus_image: str = "prom/prometheus:v3.5.0"
    grafana_image: str = "grafana/grafana:12.1.0"
    app: Limits = field(default=Limits("4G", 4.0))
    redis: Limits = field(default=Limits("2G", 2.0))
    shared: Limits = field(default=Limits("4G", 2.0))
    edge: Limits = field(default=Limits("4G", 4.0))
    monitoring: Limits = field(default=Limits("1G", 1.0))
    nofile: int = 65_536
    daemons: tuple[str, ...] = ()

    @classmethod
    def read(cls, root: Path, values: Mapping[str, object]) -> DockerOptions:
        """Read the settings, for instance ``python_image`` and ``app_memory``.

        Raises:
            UsageError: a value makes no sense.
        """
        images = {one.name: str(values[one.name]) for one in fields(cls) if one.name.endswith("_image")}
        limits = {
            name: Limits(_memory(values, f"{name}_memory"), _cpus(values, f"{name}_cpus"))
            for name in (one.name for one in fields(cls) if "Limits" in str(one.type))
        }
        daemons = tuple(str(values.get("daemons", "")).replace(",", " ").split())
        return cls(root, nofile=_files(values), daemons=daemons, **images, **limits)  # type: ignore[arg-type]


def memory_bytes(text: str) -> int:
    """Read an amount of memory as Docker writes it, ``64M`` or ``4G``.

    Raises:
        ValueError: it is none.
    """
    match = re.fullmatch(r"(\d+)([kmg]?)b?", text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is no amount of memory")
    return int(match[1]) * _UNITS[match[2]]


def _memory(values: Mapping[str, object], name: str) -> str:
    text = str(values[name])
    try:
        # Docker takes nothing less.
        enough = memory_bytes(text) >= 6 * 2**20
    except ValueError:
        enough = False
    if not enough:
        raise UsageError(f"docker.{name} must be 6M or more, for instance 512M or 4G, not {text!r}")
    return text


def _cpus(values: Mapping[str, object], name: str) -> float:
    try:
        number = float(str(values[name]))
    except ValueError:
        number = 0.0
    if not 0.01 <= number <= 1024:
        raise UsageError(f"docker.{name} must be a number of cores, 0.01 or more, not {values[name]!r}")
    return number


def _files(values: Mapping[str, object]) -> int:
    text = str(values["nofile"])
    if not text.isdigit() or not 1024 <= int(text) <= 1_048_576:
        raise UsageError(f"docker.nofile must be 1,024 to 1,048,576 files, not {text!r}")
    return int(text)
