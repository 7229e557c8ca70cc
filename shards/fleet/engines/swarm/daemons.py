"""The daemons of a swarm's nodes: the manager that commands talk to, and the others as far as they are named.

The manager makes services. What only a node itself knows is asked there: what containers use and say; and images are
brought to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeVar

import docker
import requests
from docker.errors import DockerException, ImageNotFound

from shards.errors import ShardsError
from shards.fleet.engines.docker import daemon
from shards.fleet.engines.swarm import nodes
from shards.fleet.engines.swarm.nodes import Node

_ANSWER_S = 60
_KNOCK_S = 3

T = TypeVar("T")


class Daemons:
    """The daemons of a swarm.

    Args:
        others: where those are that are not the manager's, as DOCKER_HOST has it.
        say: told of progress.
    """

    def __init__(self, others: Sequence[str], say: Callable[[str], None]) -> None:
        self._others, self._say = others, say

    @cached_property
    def manager(self) -> docker.DockerClient:
        """The one that the environment names.

        Raises:
            ShardsError: there is none, or it is no manager of a swarm.
        """
        client = daemon.connect()
        with daemon.errors():
            swarm = client.info().get("Swarm", {})
        if not swarm.get("ControlAvailable"):
            client.close()
            reason = "is in no swarm" if swarm.get("LocalNodeState") == "inactive" else "is no manager of its swarm"
            raise ShardsError(
                f"the Docker daemon {reason}: `docker swarm init` here, or name a manager's in DOCKER_HOST"
            )
        return client

    def nodes(self) -> list[Node]:
        """Ask for the nodes as they are now."""
        with daemon.errors():
            return nodes.read(self.manager.api.nodes())

    @cached_property
    def by_node(self) -> Mapping[str, docker.DockerClient]:
        """The daemons that answer, by their nodes' ids."""
        with daemon.errors():
            own = str(self.manager.info()["Swarm"]["NodeID"])
        with ThreadPoolExecutor(max(1, len(self._others))) as pool:
            found = dict(one for one in pool.map(self._open, self._others) if one)
        return found | {own: self.manager}

    def _open(self, url: str) -> tuple[str, docker.DockerClient] | None:
        client = None
        try:
            client = docker.DockerClient(base_url=url, timeout=_KNOCK_S, use_ssh_client=url.startswith("ssh:"))
            client.api.timeout = _KNOCK_S
            node = str(client.info()["Swarm"]["NodeID"])
            client.api.timeout = _ANSWER_S
            return node, client
        except (DockerException, requests.RequestException, OSError):
            if client is not None:
                client.close()
            return None

    def each(self, ask: Callable[[docker.DockerClient], T]) -> list[T]:
        """Ask every daemon that answers, all at once; one that fails meanwhile is left out."""

        def asked(client: docker.DockerClient) -> list[T]:
            with contextlib.suppress(DockerException, requests.RequestException, OSError):
                return [ask(client)]
            return []

        with ThreadPoolExecutor(len(self.by_node)) as pool:
            return [answer for answers in pool.map(asked, self.by_node.values()) for answer in answers]

    def bring(self, image: str) -> str:
        """Have an image of the manager's on every node that takes parts.

        Returns:
            Its id, by which nodes know it whatever their tags, and without asking a registry.

        Raises:
            ShardsError: the image is not there, or a node's daemon can't be reached.
        """
        with daemon.errors():
            found = self.manager.images.get(image)
        id = str(found.id)
        for node in self.nodes():
            if not node.usable:
                continue
            client = self.by_node.get(node.id)
            if client is None:
                raise ShardsError(
                    f"images can't be brought to node {node.name}: name its daemon in docker.daemons "
                    "(INVOKE_DOCKER_DAEMONS), for instance ssh://" + node.name
                )
            if client is not self.manager and not _has(client, id):
                self._say(f"bringing image {image} to {node.name}")
                with daemon.errors():
                    _load(client, found.save(named=image))
        return id


def _has(client: docker.DockerClient, id: str) -> bool:
    with daemon.errors():
        try:
            client.images.get(id)
        except ImageNotFound:
            return False
    return True


def _load(client: docker.DockerClient, chunks: Iterator[bytes]) -> None:
    api: Any = client.api
    for said in api.load_image(chunks):
        if isinstance(said, dict) and "error" in said:
            raise ShardsError(f"an image could not be loaded: {said['error']}")


Task = Mapping[str, Any]
