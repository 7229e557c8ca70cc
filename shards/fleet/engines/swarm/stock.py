"""The images of a fleet on the nodes of its swarm: brought there from the manager, which builds them, and removed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import docker
from docker.errors import ImageNotFound
from docker.models.images import Image

from shards.errors import ShardsError
from shards.fleet.engines.docker.daemon import errors
from shards.fleet.engines.docker.images import forget_all
from shards.fleet.engines.swarm.daemons import Daemons
from shards.fleet.engines.swarm.nodes import Node


class Stock:
    """The images of one fleet.

    Args:
        daemons: of the swarm.
        project: the fleet's name.
        say: told of progress.
        note: told what people must not miss.
    """

    def __init__(self, daemons: Daemons, project: str, say: Callable[[str], None], note: Callable[[str], None]) -> None:
        self._daemons, self._project, self._say, self._note = daemons, project, say, note
        self._there: set[tuple[str, str]] = set()
        self._told: set[str] = set()

    def bring(self, image: str) -> str:
        """Have an image of the manager's on every node that takes parts.

        Returns:
            Its id, by which nodes know it whatever their tags, and without asking a registry.

        Raises:
            ShardsError: the image is not there, or a node's daemon can't be reached.
        """
        with errors():
            found = self._daemons.manager.images.get(image)
        for node in self._usable():
            self._bring(found, image, node)
        return str(found.id)

    def supply(self, images: Iterable[str]) -> None:
        """Have the images of services that run on nodes which have joined the swarm since.

        A node whose daemon can't be reached is told of: it matters where a part shall go there.

        Args:
            images: as the services name them.
        """
        usable = self._usable()
        for image in sorted(set(images)):
            # Who has removed it from the manager has left it to the nodes that run it.
            if (found := self._found(image)) is not None:
                for node in usable:
                    self._try_to_bring(found, image, node)

    def _found(self, image: str) -> Image | None:
        with errors():
            try:
                return self._daemons.manager.images.get(image)
            except ImageNotFound:
                return None

    def _try_to_bring(self, found: Image, image: str, node: Node) -> None:
        try:
            self._bring(found, image, node)
        except ShardsError as error:
            self._tell_once(str(error))

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._note(text)

    def _usable(self) -> list[Node]:
        return [node for node in self._daemons.nodes() if node.usable]

    def _bring(self, found: Image, image: str, node: Node) -> None:
        id = str(found.id)
        if (node.id, id) in self._there:
            return
        client = self._daemons.by_node.get(node.id)
        if client is None:
            raise self._unreachable(node)
        if client is not self._daemons.manager and not self._has(client, id, node):
            name = image if image in found.tags else next(iter(found.tags), "")
            self._say(f"bringing image {name or image} to {node.name}")
            with errors():
                _load(client, found.save(named=name or False))
        self._there.add((node.id, id))

    def _has(self, client: docker.DockerClient, id: str, node: Node) -> bool:
        try:
            with errors(), self._daemons.heeding(node.id), contextlib.suppress(ImageNotFound):
                client.images.get(id)
                return True
        except (ShardsError, OSError) as error:
            if node.id in self._daemons.by_node:
                raise ShardsError(f"{node.name}: {error}") from None
            raise self._unreachable(node) from None
        return False

    def _unreachable(self, node: Node) -> ShardsError:
        return ShardsError(f"{node.name}: images can't be brought there: {self._daemons.why_not(node)}")

    def remove_all(self) -> list[str]:
        """Remove all images of the fleet, on every node that answers.

        Returns:
            Why some are still there, a line each.
        """
        return [one for left in self._daemons.each(lambda client: forget_all(client, self._project)) for one in left]


def _load(client: docker.DockerClient, chunks: Iterator[bytes]) -> None:
    api: Any = client.api
    for said in api.load_image(chunks):
        if isinstance(said, dict) and "error" in said:
            raise ShardsError(f"an image could not be loaded: {said['error']}")
