"""The daemons of a swarm's nodes: the manager that commands talk to, and the others as far as they are named.

The manager makes services. What only a node itself knows is asked there: what containers use and say; and images are
brought to it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import docker
import requests
from docker.errors import APIError, DockerException

from shards.errors import ShardsError
from shards.fleet.engines.docker import daemon
from shards.fleet.engines.swarm import nodes, ssh
from shards.fleet.engines.swarm.nodes import Node
from shards.fleet.engines.swarm.reach import reach

T = TypeVar("T")

_LEFT_OUT_S = 120.0
"""How long a daemon is not asked that did not answer, in seconds: each question would wait a minute for it."""


@dataclass(frozen=True)
class _Silence:
    since: float
    why: str


class Daemons:
    """The daemons of a swarm.

    Args:
        others: where those are that are not the manager's, as DOCKER_HOST has it.
    """

    def __init__(self, others: Sequence[str]) -> None:
        self._others = others
        self._unreached: list[str] = []
        self._silences: dict[str, _Silence] = {}
        self._lock = threading.RLock()
        self._manager: docker.DockerClient | None = None
        self._opened: dict[str, docker.DockerClient] | None = None

    def close(self) -> None:
        """Close all that is open. Who asks on opens them anew, also those that did not answer."""
        with self._lock:
            opened = [self._manager, *(self._opened or {}).values()]
            self._manager = self._opened = None
            self._unreached.clear()
            self._silences.clear()
        for client in dict.fromkeys(one for one in opened if one):
            client.close()

    @property
    def manager(self) -> docker.DockerClient:
        """The one that the environment names.

        Raises:
            ShardsError: there is none, it is too old, or it is no manager of a swarm.
        """
        # Threads ask at once, and each would open it.
        with self._lock:
            self._manager = self._manager or self._open_manager()
            return self._manager

    def _open_manager(self) -> docker.DockerClient:
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

    @property
    def by_node(self) -> Mapping[str, docker.DockerClient]:
        """The daemons that answer, by their nodes' ids."""
        with self._lock:
            self._opened = self._open_all() if self._opened is None else self._opened
            silent = self._silent()
            return {node: client for node, client in self._opened.items() if node not in silent}

    def _silent(self) -> dict[str, str]:
        """Give the nodes whose daemons did not answer lately, by their ids, and why."""
        now = time.monotonic()
        with self._lock:
            return {node: one.why for node, one in self._silences.items() if now - one.since < _LEFT_OUT_S}

    def _open_all(self) -> dict[str, docker.DockerClient]:
        with daemon.errors():
            own = _node_of(self.manager)
        known = self.nodes()
        # A host that has joined anew by another name is listed with both, and has one address.
        gone = _hosts(node for node in known if not node.answers) - _hosts(node for node in known if node.answers)
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
        if why := self._silent().get(node.id):
            return f"its Docker daemon does not answer: {why}"
        name = f"name its daemon in docker.daemons (INVOKE_DOCKER_DAEMONS), for instance ssh://{node.name}"
        named = [f"of those that are named, {reason}" for reason in self._unreached]
        return "; ".join([name, *named])

    def refuse_silence(self) -> None:
        """Refuse to go on where a node that was reached has not answered: what it has must not be taken for nothing.

        One that the swarm does not hear from either is lost, with what it has.

        Raises:
            ShardsError: one has not; says which, and why.
        """
        silent = self._silent()
        for node in self.nodes() if silent else ():
            if node.answers and node.id in silent:
                raise ShardsError(f"{node.name}: what is there can't be told: {self.why_not(node)}")

    def unasked(self) -> list[Node]:
        """Give the nodes whose daemons do not answer, or are not known."""
        return [node for node in self.nodes() if node.id not in self.by_node]

    def each(self, ask: Callable[[docker.DockerClient], T]) -> list[T]:
        """Ask every daemon that answers, all at once; one that fails meanwhile is left out."""

        def asked(node: str) -> list[T]:
            with contextlib.suppress(DockerException, requests.RequestException, OSError), self.heeding(node):
                return [ask(found[node])]
            return []

        found = self.by_node
        with ThreadPoolExecutor(len(found)) as pool:
            return [answer for answers in pool.map(asked, found) for answer in answers]

    @contextlib.contextmanager
    def heeding(self, node: str) -> Iterator[None]:
        """Ask the daemon of a node, by its id; one that does not answer then is left out for a while.

        The manager's is asked on: without it nothing goes on anyway.
        """
        try:
            yield
        except APIError:
            # That is an answer.
            raise
        except (DockerException, requests.RequestException, OSError) as error:
            with self._lock:
                if (self._opened or {}).get(node) is not self._manager:
                    self._silences[node] = _Silence(time.monotonic(), " ".join(str(error).split())[:300])
            raise


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


def _hosts(known: Iterable[Node]) -> set[str]:
    """Give what URLs may name nodes by."""
    return {name.lower() for node in known for name in (node.name, node.address)}


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
