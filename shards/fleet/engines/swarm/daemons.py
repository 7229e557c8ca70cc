"""The daemons of a swarm's nodes: the manager that commands talk to, and the others as far as they are named.

The manager makes services. What only a node itself knows is asked there: what containers use and say; and images are
brought to it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import docker
import requests
from docker.errors import DockerException

from shards.errors import ShardsError
from shards.fleet.engines.docker import daemon
from shards.fleet.engines.swarm import nodes, ssh
from shards.fleet.engines.swarm.nodes import Node
from shards.fleet.engines.swarm.reach import reach

T = TypeVar("T")


class Daemons:
    """The daemons of a swarm.

    Args:
        others: where those are that are not the manager's, as DOCKER_HOST has it.
    """

    def __init__(self, others: Sequence[str]) -> None:
        self._others = others
        self._unreached: list[str] = []

    @cached_property
    def manager(self) -> docker.DockerClient:
        """The one that the environment names.

        Raises:
            ShardsError: there is none, it is too old, or it is no manager of a swarm.
        """
        url = os.environ.get("DOCKER_HOST", "")
        client = reach(url) if url.startswith(ssh.SCHEME) else daemon.connect()
        try:
            _check_manager(client)
        except ShardsError:
            client.close()
            raise
        return client

    def nodes(self) -> list[Node]:
        """Ask for the nodes as they are now."""
        with daemon.errors():
            return nodes.read(self.manager.api.nodes())

    @cached_property
    def by_node(self) -> Mapping[str, docker.DockerClient]:
        """The daemons that answer, by their nodes' ids."""
        with daemon.errors():
            own = _node_of(self.manager)
        known = self.nodes()
        gone = {name.lower() for node in known if not node.answers for name in (node.name, node.address)}
        with ThreadPoolExecutor(max(1, len(self._others))) as pool:
            opened = list(pool.map(partial(_open, gone=gone), self._others))
        found = {own: self.manager}
        for url, one in zip(self._others, opened, strict=True):
            if isinstance(one, str):
                self._unreached.append(one)
            elif one[0] in {node.id for node in known} - {own}:
                found[one[0]] = one[1]
            else:
                one[1].close()
                self._unreached.append(f"the Docker daemon at {url} is no other node of this swarm")
        return found

    def why_not(self, node: Node) -> str:
        """Say why a node's daemon is not among `by_node`, as far as that is known, and what to do."""
        name = f"name its daemon in docker.daemons (INVOKE_DOCKER_DAEMONS), for instance ssh://{node.name}"
        named = [f"of those that are named, {reason}" for reason in self._unreached]
        return "; ".join([name, *named])

    def unasked(self) -> list[Node]:
        """Give the nodes whose daemons do not answer, or are not known."""
        return [node for node in self.nodes() if node.id not in self.by_node]

    def each(self, ask: Callable[[docker.DockerClient], T]) -> list[T]:
        """Ask every daemon that answers, all at once; one that fails meanwhile is left out."""

        def asked(client: docker.DockerClient) -> list[T]:
            with contextlib.suppress(DockerException, requests.RequestException, OSError):
                return [ask(client)]
            return []

        with ThreadPoolExecutor(len(self.by_node)) as pool:
            return [answer for answers in pool.map(asked, self.by_node.values()) for answer in answers]


def _check_manager(client: docker.DockerClient) -> None:
    version = client.api.api_version
    if tuple(map(int, version.split(".")[:2])) < daemon.OLDEST_API:
        oldest, api = (".".join(map(str, one)) for one in (nodes.OLDEST, daemon.OLDEST_API))
        raise ShardsError(f"the Docker daemon speaks API {version}: a swarm's must be {oldest} or newer (API {api})")
    with daemon.errors():
        swarm = client.info().get("Swarm", {})
    if not swarm.get("ControlAvailable"):
        reason = "is in no swarm" if swarm.get("LocalNodeState") == "inactive" else "is no manager of its swarm"
        raise ShardsError(f"the Docker daemon {reason}: `docker swarm init` here, or name a manager's in DOCKER_HOST")


def _node_of(client: docker.DockerClient) -> str:
    return str(client.info().get("Swarm", {}).get("NodeID", ""))


def _host(url: str) -> str | None:
    with contextlib.suppress(ValueError):
        return urlsplit(url).hostname
    return None


def _open(url: str, gone: Collection[str]) -> tuple[str, docker.DockerClient] | str:
    """Open a node's daemon.

    Args:
        url: as DOCKER_HOST has it.
        gone: hosts from which nothing is heard: each knock there would take its time.

    Returns:
        Its node's id (empty: it is in no swarm) with it, or why it can't be asked.
    """
    if _host(url) in gone:
        return f"the swarm does not hear from the node of {url}"
    try:
        client = reach(url)
    except ShardsError as error:
        return str(error)
    try:
        with daemon.errors():
            return _node_of(client), client
    except ShardsError as error:
        client.close()
        return f"the Docker daemon at {url} does not say which node it is: {error}"


Task = Mapping[str, Any]
