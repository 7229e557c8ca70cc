"""The docker engine: keeps a fleet's parts as containers, which the daemon starts again when they die."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path

import docker
from docker.models.containers import Container

from shards import aio
from shards.addresses import Peer
from shards.errors import ShardsError, UsageError
from shards.fleet import certificate, processes
from shards.fleet.engines import edge as edges
from shards.fleet.engines.base import EdgePart, Engine, Part, ReplicaPart, Route, Running
from shards.fleet.engines.docker import (
    by_hand,
    compose,
    connections,
    container_logs,
    daemon,
    figures,
    files,
    ownership,
    stack,
    usage,
)
from shards.fleet.engines.docker.containers import Containers, Host
from shards.fleet.engines.docker.images import Images, forget_releases
from shards.fleet.engines.docker.options import DockerOptions
from shards.fleet.engines.docker.stack import WEB_PORT, Stack
from shards.fleet.release import release_of
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetDir, FleetState, write_atomically

_LOG_LINES = 200


def stranded(holder: str, containers: Mapping[str, Container]) -> list[str]:
    """Name the containers that are in a network which is gone: who held it died since they joined it.

    Args:
        holder: the service that holds the network; it may be there no more, or again.
        containers: the fleet's, by service.
    """
    there = containers.get(holder)
    joined = {name: one for name, one in containers.items() if _namespace(one) == holder}
    if there is None or there.status != "running":
        return list(joined)
    since = _started(there)
    return [name for name, one in joined.items() if one.status == "running" and _started(one) < since]


def _namespace(container: Container) -> str:
    return stack.namespace_of(container.labels.get(stack.PART_LABEL, ""))


def _started(container: Container) -> datetime:
    return datetime.fromisoformat(str(container.attrs["State"]["StartedAt"]))


class DockerEngine(Engine):
    """Keeps a fleet's parts as containers.

    Args:
        spec: what the fleet is.
        directory: where its files are.
        options: what containers build on, and may use.
        opened: gives the daemon; whoever opened it closes it.
        say: told of progress.
    """

    def __init__(
        self,
        spec: FleetSpec,
        directory: FleetDir,
        options: DockerOptions,
        opened: Callable[[], docker.DockerClient],
        say: Callable[[str], None],
    ) -> None:
        self.spec = spec
        self.directory = directory
        self.options = options
        self.path = directory.path / "docker"
        self._opened, self._say = opened, say

    @property
    def _client(self) -> docker.DockerClient:
        daemon.refuse_elsewhere()
        return self._opened()

    @cached_property
    def _containers(self) -> Containers:
        return Containers(self._client, self.spec.project, self.path, self._mark)

    @property
    def _mark(self) -> str:
        return ownership.mark_of(self.directory.id(), self.directory.path)

    @cached_property
    def _images(self) -> Images:
        cache = self.directory.path.parent / ".wheels"
        return Images(self._client, self.spec, self.options, cache, self._say)

    # -- before anything starts

    def check(self, port_is_ours: bool) -> None:
        daemon.refuse_elsewhere()
        if not Path(self.spec.app_dir).is_dir():
            raise UsageError(f"--app-dir {self.spec.app_dir} is no directory")
        if self.spec.durability == "replicated":
            raise UsageError("--durability replicated is for --engine local: in containers choose everysec or always")
        self._refuse_loopback()
        if by_hand.find(self.spec.project):
            raise ShardsError(by_hand.elsewhere(self.spec.project))
        if self._containers.is_network_anothers():
            taken = f"Docker has a network {self.spec.project} that does not belong to this fleet"
            raise ShardsError(f"{taken}: choose another name with --project")
        marks = self._containers.marks()
        if refused := ownership.refusal(self.spec.project, marks, self._mark, self.directory.id_file):
            raise ShardsError(refused)
        if not port_is_ours:
            self._check_port()

    def _refuse_loopback(self) -> None:
        externals = () if isinstance(self.spec.shards, int) else self.spec.shards
        for one in externals:
            if one.url.partition("://")[2].startswith(("127.", "localhost", "[::1]")):
                raise UsageError(
                    f"--shards {one.url}: in a container that is the container itself; give an address of this host "
                    "that containers reach"
                )

    def _check_port(self) -> None:
        error = processes.port_taken(self.spec.host, self.spec.port)
        if error is None:
            return
        if error.errno == errno.EADDRINUSE:
            user = self._publisher() or processes.listener(self.spec.port) or "another process"
            raise ShardsError(f"port {self.spec.port} is in use by {user}; choose another with --port")
        raise ShardsError(
            f"cannot listen on {self.spec.host}:{self.spec.port}: {error.strerror}; choose another --port"
        )

    def _publisher(self) -> str | None:
        with daemon.errors():
            found = self._client.containers.list(filters={"publish": str(self.spec.port)})
        return f"container {found[0].name}" if found else None

    async def check_app(self, release: str) -> str | None:
        return await asyncio.to_thread(self.build, release)

    def build(self, release: str) -> str | None:
        """Build the images of a release of the app, and see that it can be imported there.

        Returns:
            What `check_app` does.

        Raises:
            UsageError: the app does not import.
            ShardsError: an image can't be built.
        """
        self._images.build_servers()
        self._images.build_app(release)
        return self._images.check_app(release)

    def smaller(self) -> dict[str, str]:
        """Find out what Compose must be told to start the fleet here; its images are built.

        Returns:
            What `compose.smaller` does.

        Raises:
            ShardsError: the daemon fails.
        """
        nofile = daemon.descriptors(self._client, stack.redis_image(self.spec.project), compose.NOFILE)
        return compose.smaller(self.options, nofile, daemon.cpus(self._client))

    async def forget_releases(self, stay: Collection[str]) -> None:
        # That of a fleet which Compose runs may be of the same name.
        project = self.spec.project
        keep = {stack.app_image(project, release) for release in (*stay, compose.RELEASE)}
        await asyncio.to_thread(forget_releases, self._client, project, keep)

    # -- the keeper

    async def alive(self) -> bool:
        return await asyncio.to_thread(self._containers.has_network)

    async def start(self) -> None:
        if await self.alive():
            return
        await asyncio.to_thread(self._containers.remove_all)
        await asyncio.to_thread(self._containers.claim)
        await asyncio.to_thread(self._containers.make_network)
        self._tell(await asyncio.to_thread(lambda: self._host))

    async def stop(self) -> bool:
        self.directory.path.joinpath("docker", "nofile").unlink(missing_ok=True)
        return await asyncio.to_thread(self._containers.remove_all)

    # -- parts

    async def add(self, parts: Sequence[Part]) -> None:
        await aio.in_thread(lambda cancelled: self._add(parts, cancelled))

    def _add(self, parts: Sequence[Part], cancelled: threading.Event) -> None:
        state = self.directory.read() or FleetState(self.spec)
        self._need_servers()
        host = self._host
        shape = Stack(state, self.options, int(host.cpus))
        files.write_secrets(self.path, self.directory)
        running = self._containers.found()
        for holder in dict.fromkeys(stack.namespace_of(part.name) for part in parts):
            if holder:
                self._hold(shape, holder, host, running)
        for part in parts:
            if cancelled.is_set():
                return
            if isinstance(part, EdgePart):
                files.write_edge(self.path, part)
            if isinstance(part, ReplicaPart):
                self._need_image(part)
            self._containers.run(shape.of(part), host)

    def _hold(self, shape: Stack, holder: str, host: Host, running: Mapping[str, Container]) -> None:
        """Have the container run that holds a network; whoever is in that of one which died must go, and come anew."""
        self._containers.remove(stranded(holder, running))
        if holder not in running or running[holder].status != "running":
            self._containers.run(shape.pause(holder), host)

    def _has(self, image: str) -> bool:
        with daemon.errors():
            return bool(self._client.images.list(name=image))

    def _need_servers(self) -> None:
        """Have the images of Redis servers, which hold networks too, and of edges; they may be removed since."""
        if not all(map(self._has, (stack.redis_image(self.spec.project), stack.edge_image(self.spec.project)))):
            self._images.build_servers()

    def _need_image(self, part: ReplicaPart) -> None:
        image = stack.app_image(self.spec.project, part.release)
        if self._has(image):
            return
        # It was removed since, or the app's directory has moved on while the fleet was being prepared.
        if release_of(Path(self.spec.app_dir)) == part.release:
            self._images.build_app(part.release)
        else:
            raise ShardsError(f"there is no image {image}, and {self.spec.app_dir} has another release: `inv promote`")

    @cached_property
    def _host(self) -> Host:
        image = stack.redis_image(self.spec.project)
        return Host(self._descriptors(image), daemon.cpus(self._client))

    def _descriptors(self, image: str) -> int:
        """Tell how many files a container may open; tried once a fleet, since it takes a container."""
        known = self.path / "nofile"
        if known.exists():
            return int(known.read_text())
        found = daemon.descriptors(self._client, image, self.options.nofile)
        self.path.mkdir(exist_ok=True, mode=0o755)
        write_atomically(known, str(found))
        return found

    async def descriptors(self) -> int:
        return await asyncio.to_thread(self._images.descriptors)

    def _tell(self, host: Host) -> None:
        if host.nofile < self.options.nofile:
            self._say(f"a container may open {host.nofile:,} files here, not {self.options.nofile:,}")
        wanted = max(self.options.app.cpus, self.options.edge.cpus)
        if host.cpus < wanted:
            self._say(f"this host has {host.cpus:.0f} cores: no container gets the {wanted:g} that it may use")

    async def remove(self, names: Collection[str]) -> None:
        services = [stack.service_name(name) for name in names]
        await asyncio.to_thread(self._containers.remove, services)

    async def running(self) -> dict[str, Running]:
        found = await asyncio.to_thread(self._containers.found)
        return {
            part: Running(
                container.status == "running",
                container=container.name,
                retried=container.status == "restarting",
                note=figures.befell(container.attrs),
            )
            for container in found.values()
            if (part := container.labels.get(stack.PART_LABEL))
        }

    async def usage(self, running: Mapping[str, Running]) -> dict[str, processes.Usage]:
        found = await asyncio.to_thread(self._containers.found)
        parts = {str(one.labels.get(stack.PART_LABEL)): one for one in found.values() if one.status == "running"}
        containers = {part: one for part, one in parts.items() if part in running}
        return await usage.measure(containers)

    # -- where requests go

    async def route(self, route: Route) -> None:
        files.write_route(self.path, route, certificate.kept(self.directory, self.spec))

    async def routed(self, edge: EdgePart, route: Route) -> bool:
        return await edges.works_by(partial(self.ask_edge, edge), stack.routed(route))

    async def connects_from(self, edge: EdgePart) -> set[Peer]:
        container = self._containers.found().get(stack.service_name(edge.name))
        if container is None or container.status != "running":
            return set()
        return await asyncio.to_thread(connections.outgoing, container, (WEB_PORT, stack.edge_port(edge)))

    # -- what they leave behind

    async def kept(self) -> set[str]:
        return await asyncio.to_thread(self._containers.kept)

    def newest(self, state: FleetState) -> dict[str, str]:
        return {}

    async def log(self, name: str) -> Path:
        return await asyncio.to_thread(self._log, name)

    def _log(self, name: str) -> Path:
        path = self.directory.logs / f"{name}.log"
        container = self._containers.found().get(stack.service_name(name))
        if container is not None:
            path.write_text(container_logs.tail(container, _LOG_LINES))
        return path

    def lines(self, name: str | None, follow: bool) -> AsyncIterator[tuple[str, str]]:
        return container_logs.lines(self._containers.found, name, follow)

    async def forget_data(self, names: Collection[str]) -> None:
        await asyncio.to_thread(self._containers.remove_volumes, [f"{name}_data" for name in names])

    async def spread_secrets(self, parts: Sequence[Part]) -> None:
        # What containers mount are directories: they see a file that takes another one's place.
        await asyncio.to_thread(files.write_secrets, self.path, self.directory)

    async def has_ours(self) -> bool:
        marks = await asyncio.to_thread(self._marks)
        return any(mark and not ownership.is_anothers(mark, self._mark) for mark in marks)

    def _marks(self) -> set[str]:
        # In a thread from the first knock on: a daemon that hangs would keep Ctrl-C waiting.
        return self._containers.marks()

    async def left_alone(self) -> str:
        marks = await asyncio.to_thread(self._marks)
        others = ownership.left_alone(self.spec.project, marks, self._mark, self.directory.id_file)
        return others or ownership.nobodys(self.spec.project, marks)

    async def purge(self) -> None:
        await asyncio.to_thread(self._containers.remove_everything_kept)
