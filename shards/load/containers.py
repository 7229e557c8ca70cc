"""Containers of this host, as the processes they are: so a load samples and kills them like any other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException
from requests import RequestException

_ANSWER_S = 10


KINDS = ("edges", "replicas", "shards", "redis")
"""The kinds of parts, as `inv status --json` has them."""


def found(status: Mapping[str, Any]) -> dict[str, Any]:
    """Give a fleet's status, each of its containers with the ``pid`` that it has on this host.

    Args:
        status: what `inv status --json` said.
    """
    names = [part["container"] for kind in KINDS for part in status.get(kind, ()) if part.get("container")]
    inside = processes(names) if names else {}
    return {**status, **{kind: [_with_process(part, inside) for part in status.get(kind, ())] for kind in KINDS}}


def _with_process(part: dict[str, Any], inside: Mapping[str, int]) -> dict[str, Any]:
    return part | {"pid": part.get("pid") or inside.get(str(part.get("container")))}


def processes(names: Iterable[str]) -> dict[str, int]:
    """Find the first process of each container.

    Args:
        names: of containers.

    Returns:
        Name → its process on this host; without those that do not run, or run on another host.
    """
    try:
        client = docker.from_env(timeout=_ANSWER_S)
    except DockerException:
        return {}
    try:
        all = ((name, _process(client, name)) for name in names)
        return {name: pid for name, pid in all if pid is not None}
    finally:
        client.close()


def _process(client: docker.DockerClient, name: str) -> int | None:
    try:
        container = client.containers.get(name)
        pid = int(container.attrs["State"]["Pid"])
        # A daemon elsewhere tells the number of some process there.
        return pid if pid and str(container.id) in Path(f"/proc/{pid}/cgroup").read_text() else None
    except (DockerException, RequestException, OSError):
        return None
