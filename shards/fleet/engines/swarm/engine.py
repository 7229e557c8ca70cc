"""The swarm engine: keeps a fleet's parts as services, which the swarm starts again when they die."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

from redis.exceptions import RedisError

from shards import aio
from shards.addresses import Peer
from shards.errors import PartFailed, ShardsError, UsageError
from shards.fleet import layout, probe, processes
from shards.fleet.engines import edge as edges
from shards.fleet.engines.base import EdgePart, Engine, Part, Route, Running
from shards.fleet.engines.docker import compose, connections, container_logs, daemon, files, ownership, usage
from shards.fleet.engines.docker import stack as containers
from shards.fleet.engines.docker.images import Images, forget_releases
from shards.fleet.engines.docker.options import DockerOptions
from shards.fleet.engines.swarm import nodes, render, stack
from shards.fleet.engines.swarm.daemons import Daemons, Task
from shards.fleet.engines.swarm.services import Services, image_of
from shards.fleet.engines.swarm.stack import Service, Stack
from shards.fleet.engines.swarm.stock import Stock
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetDir, FleetState, Place, write_atomically
from shards.ports import LISTEN_PORTS
from shards.router.control import Control
from shards.server.route import token_of

_TRIED_S = 0.5
_LOG_LINES = 200
_ASK_S = 2.0


class SwarmEngine(Engine):
    """Keeps a fleet's parts as services of a swarm.

    Args:
        spec: what the fleet is.
        directory: where its files are.
        options: what containers build on, and may use.
        daemons: the nodes'; whoever opened them closes them.
        say: told of progress.
        note: told what people must not miss; None: `say` is told.
    """

    def __init__(
        self,
        spec: FleetSpec,
        directory: FleetDir,
        options: DockerOptions,
        daemons: Daemons,
        say: Callable[[str], None],
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.spec = spec
        self.directory = directory
        self.options = options
        self.path = directory.path / "swarm"
        self._daemons, self._say, self._note = daemons, say, note or say

    @cached_property
    def _services(self) -> Services:
        return Services(self._daemons, self.spec.project, self._mark)

    @property
    def _mark(self) -> str:
        return ownership.mark_of(self.directory.id(), self.directory.path)

    @cached_property
    def _stock(self) -> Stock:
        return Stock(self._daemons, self.spec.project, self._say, self._note)

    @cached_property
    def _images(self) -> Images:
        cache = self.directory.path.parent / ".wheels"
        return Images(self._daemons.manager, self.spec, self.options, cache, self._say)

    # -- before anything starts

    def check(self, port_is_ours: bool) -> None:
        if not Path(self.spec.app_dir).is_dir():
            raise UsageError(f"--app-dir {self.spec.app_dir} is no directory")
        if self.spec.durability == "replicated":
            raise UsageError("--durability replicated is for --engine local: in a swarm choose everysec or always")
        known = self._daemons.nodes()
        nodes.check(known)
        marks = self._services.marks()
        if refused := ownership.refusal(self.spec.project, marks, self._mark, self.directory.id_file):
            raise ShardsError(refused)
        if self._services.are_deployed_by_hand():
            name = self.spec.project
            raise ShardsError(
                f"fleet {name} was deployed as a stack: `docker stack rm {name}` it, or choose another --project"
            )
        if not port_is_ours:
            self._check_port([node for node in known if node.usable])

    def _check_port(self, usable: Sequence[nodes.Node]) -> None:
        for node in usable:
            try:
                socket.create_connection((node.address, self.spec.port), _TRIED_S).close()
            except OSError:
                continue
            raise ShardsError(f"port {self.spec.port} is in use on node {node.name}; choose another with --port")

    def free_port(self, taken: Iterable[int]) -> int:
        """Choose a port that no fleet of the swarm has. Where a stranger has it on a node, the part does not start."""
        avoid = {*taken, *self._ports_of_others}
        return random.choice([port for port in range(*LISTEN_PORTS) if port not in avoid])

    @cached_property
    def _ports_of_others(self) -> set[int]:
        return self._services.ports_of_others()

    def place(self, state: FleetState, only: Collection[str] | None = None) -> dict[str, Place]:
        names, known = layout.names(state), self._daemons.nodes()
        places = state.places
        if [name for name in names if nodes.has_data(name) and name not in places]:
            # Where there is data of it already, of a run that nothing here remembers.
            by_id = {node.id: node.place for node in known}
            places = {part: by_id[node] for part, node in self._services.kept().items() if node in by_id} | places
        return nodes.place(names, places, known, only, beside=layout.stand_ins(state))

    async def check_app(self, release: str) -> str | None:
        return await asyncio.to_thread(self.build, release)

    def build(self, release: str) -> str | None:
        """Build the images of a release of the app, see that it can be imported there, and bring them to the nodes.

        Returns:
            What `check_app` does.

        Raises:
            UsageError: the app does not import.
            ShardsError: an image can't be built, or brought to a node.
        """
        self._images.build_servers()
        self._images.build_app(release)
        layer = self._images.check_app(release)
        project = self.spec.project
        for image in (
            containers.redis_image(project),
            containers.edge_image(project),
            containers.app_image(project, release),
        ):
            self._stock.bring(image)
        return layer

    def rendered(self, state: FleetState) -> str:
        """Write the stack file of a fleet, and beside the fleet's files those that it names."""
        known = self._daemons.nodes()
        nodes.check(known)
        cores = min(node.cores for node in known if node.usable)
        shape = Stack(state, self.options, self._secrets(), cores)
        beside = self.path / "files"
        beside.mkdir(mode=0o700, parents=True, exist_ok=True)
        for texts in render.texts(shape):
            for name, text in texts.items():
                write_atomically(beside / name, text)
        return render.render(shape, beside, self._nofile_as_far_as_known())

    def _nofile_as_far_as_known(self) -> int:
        """Tell how many files a container may open, or what is wished for, where `inv build` has brought no image."""
        try:
            return self._nofile
        except ShardsError:
            return self.options.nofile

    async def forget_releases(self, stay: Collection[str]) -> None:
        await asyncio.to_thread(self._forget_releases, {*stay, compose.RELEASE})

    def _forget_releases(self, stay: Collection[str]) -> None:
        keep = {containers.app_image(self.spec.project, release) for release in stay}
        keep |= {image_of(one) for one in self._services.found().values()}
        self._daemons.each(lambda client: forget_releases(client, self.spec.project, keep))

    # -- the keeper

    async def alive(self) -> bool:
        return await asyncio.to_thread(self._services.are_known)

    async def start(self) -> None:
        if await self.alive():
            return
        await asyncio.to_thread(self._services.remove_all)
        # From now on there is something with this directory's mark: it must not be taken for one of nothing.
        self.path.mkdir(exist_ok=True, mode=0o700)
        await asyncio.to_thread(self._services.claim)
        await asyncio.to_thread(lambda: self._services.write(self._secret_texts(), {}))
        found = await asyncio.to_thread(lambda: self._nofile)
        if found < self.options.nofile:
            self._say(f"a container may open {found:,} files here, not {self.options.nofile:,}")

    async def stop(self) -> bool:
        self.path.joinpath("nofile").unlink(missing_ok=True)
        stopped = await asyncio.to_thread(self._services.remove_all)
        if stopped:
            await asyncio.to_thread(self._tell_unasked, "the swarm ends what runs there as soon as it can")
        return stopped

    def _tell_unasked(self, left: str) -> None:
        """Say what is left on nodes that could not be asked; on one that is drained only where parts were there."""
        state = self.directory.read() or FleetState(self.spec)
        had_parts = {place.node for place in state.places.values()}
        names = [node.name for node in self._daemons.unasked() if not node.drained or node.name in had_parts]
        if names:
            self._note(f"{', '.join(names)}: could not be asked; {left}")

    def _secrets(self) -> dict[str, dict[str, str]]:
        """Give what each kind of service may know."""
        fleet = self.directory
        return {
            "app": files.app_secrets(fleet),
            "redis": files.redis_secrets(fleet),
            "route": {fleet.app_password_file.name: fleet.app_password()},
        }

    def _secret_texts(self) -> dict[str, str]:
        return {
            stack.file_name(kind, name, text): text
            for kind, files in self._secrets().items()
            for name, text in files.items()
        }

    # -- parts

    async def add(self, parts: Sequence[Part]) -> None:
        await aio.in_thread(lambda cancelled: self._add(parts, cancelled))

    def _add(self, parts: Sequence[Part], cancelled: threading.Event) -> None:
        state = self.directory.read() or FleetState(self.spec)
        known = self._daemons.nodes()
        cores = min((node.cores for node in known if node.usable), default=0.0)
        shape = Stack(state, self.options, self._secrets(), cores)
        services = [shape.of(part) for part in parts]
        if any(isinstance(part, EdgePart) for part in parts):
            services.insert(0, shape.route(state.deployed[state.active].release))
        running = self._services.found()
        # A service with a task on every node has one on those that have joined since, too.
        self._stock.supply(image_of(one) for one in running.values())
        new = [one for one in services if _is_new(one, running)]
        if not new:
            return
        ids = self._services.write(self._secret_texts(), shape.configs(parts))
        for service in new:
            if cancelled.is_set():
                return
            image = self._stock.bring(service.image)
            template = stack.task_template(self.spec.project, service, image, ids, self._nofile, cores)
            self._services.run(service, template)

    @cached_property
    def _nofile(self) -> int:
        """How many files a container may open on every node; tried once a fleet, since it takes a container."""
        known = self.path / "nofile"
        if known.exists():
            return int(known.read_text())
        image, wanted = containers.redis_image(self.spec.project), self.options.nofile
        found = min(self._daemons.each(lambda client: daemon.descriptors(client, image, wanted)), default=wanted)
        self.path.mkdir(exist_ok=True, mode=0o700)
        write_atomically(known, str(found))
        return found

    async def remove(self, names: Collection[str]) -> None:
        await asyncio.to_thread(self._services.remove, [containers.service_name(name) for name in names])

    async def running(self) -> dict[str, Running]:
        return await asyncio.to_thread(self._running)

    def _running(self) -> dict[str, Running]:
        tasks, answering = self._services.tasks(), {node.id for node in self._daemons.nodes() if node.answers}
        found = {}
        for name, service in self._services.found().items():
            part, task = service["Spec"]["Labels"].get(containers.PART_LABEL), tasks.get(name)
            if part:
                found[part] = _running(stack.full_name(self.spec.project, name), task, answering)
        return found

    async def lost_hosts(self) -> set[str]:
        state = self.directory.read() or FleetState(self.spec)
        return nodes.lost(state.places.values(), await asyncio.to_thread(self._daemons.nodes))

    async def usage(self, running: Mapping[str, Running]) -> dict[str, processes.Usage]:
        found = await asyncio.to_thread(self._services.containers)
        parts = {str(one.labels.get(containers.PART_LABEL)): one for one in found.values() if one.status == "running"}
        return await usage.measure({part: one for part, one in parts.items() if part in running})

    # -- where requests go

    async def route(self, route: Route) -> None:
        state = self.directory.read() or FleetState(self.spec)
        port, host = state.ports[layout.CONTROL], layout.host(state, layout.CONTROL)
        said = edges.as_json(edges.dynamic(route)).encode()
        client = probe.redis_client(port, self.directory.password(), _ASK_S, host)
        try:
            await probe.insist(lambda: Control(client).write_route(said))
        except RedisError as error:
            log = str(await self.log(layout.CONTROL))
            raise PartFailed(layout.CONTROL, f"does not answer: {error}", log) from None
        finally:
            await client.aclose()

    async def ask_edge(self, edge: EdgePart, path: str) -> probe.Answer | None:
        state = self.directory.read() or FleetState(self.spec)
        token = token_of(self.directory.app_password())
        answer = await probe.get(
            state.ports[layout.ROUTE], f"/edges/{edge.port}{path}", edge.host, within_s=_ASK_S, token=token
        )
        return None if answer is None or answer.status == 502 else answer

    async def routed(self, edge: EdgePart, route: Route) -> bool:
        return await edges.works_by(partial(self.ask_edge, edge), route, "http")

    async def connects_from(self, edge: EdgePart) -> set[Peer]:
        container = (await asyncio.to_thread(self._services.containers)).get(containers.service_name(edge.name))
        if container is None or container.status != "running":
            return set()
        return await asyncio.to_thread(connections.outgoing, container, (self.spec.port, edge.port))

    # -- what they leave behind

    async def kept(self) -> set[str]:
        return set(await asyncio.to_thread(self._services.kept))

    async def descriptors(self) -> int:
        # That of the manager's daemon: the other nodes have no image yet to try it with.
        return await asyncio.to_thread(self._images.descriptors)

    def newest(self, state: FleetState) -> dict[str, str]:
        return {}

    async def log(self, name: str) -> Path:
        # Not in the event loop: a node that hangs would keep the lease from being renewed meanwhile.
        return await asyncio.to_thread(self._log, name)

    def _log(self, name: str) -> Path:
        path, service = self.directory.logs / f"{name}.log", containers.service_name(name)
        container = self._services.containers().get(service)
        said = container_logs.tail(container, _LOG_LINES) if container else ""
        task = self._services.tasks().get(service)
        # What never became a container has said nothing: the swarm says why.
        if task and (wrong := _wrong(task)):
            said += f"\n{wrong}\n"
        said += self._missed(name)
        path.write_text(said)
        return path

    def _missed(self, name: str) -> str:
        """Say so where a part's node bears nothing: the swarm only speaks of constraints that it can't meet."""
        place = (self.directory.read() or FleetState(self.spec)).places.get(name)
        if place is None or place.address not in nodes.lost([place], self._daemons.nodes()):
            return ""
        return f"\n{place.node}, where it shall run, is gone or drained: see `docker node ls`\n"

    def lines(self, name: str | None, follow: bool) -> AsyncIterator[tuple[str, str]]:
        return container_logs.lines(self._services.containers, name, follow)

    async def forget_data(self, names: Collection[str]) -> None:
        volumes = [f"{name}_data" for name in names]
        if volumes:
            await asyncio.to_thread(self._services.remove_volumes, volumes)
            full = ", ".join(stack.full_name(self.spec.project, name) for name in volumes)
            await asyncio.to_thread(self._tell_unasked, f"remove the volume {full} there before parts come to it again")

    async def spread_secrets(self, parts: Sequence[Part]) -> None:
        raise ShardsError(
            "a swarm's secrets can't be changed while services have them: `inv down`, delete the files in "
            f"{self.directory.password_file.parent} that shall be new, then `inv up` makes them"
        )

    async def left_alone(self) -> str:
        marks = await asyncio.to_thread(self._services.marks)
        return ownership.left_alone(self.spec.project, marks, self._mark, self.directory.id_file)

    async def purge(self) -> None:
        await asyncio.to_thread(self._services.remove_data)
        if left := await asyncio.to_thread(self._stock.remove_all):
            raise ShardsError(daemon.not_all("images", left))
        label = f"label={containers.FLEET_LABEL}={self.spec.project}"
        await asyncio.to_thread(
            self._tell_unasked, f"the fleet's data and images stay there: `docker volume ls --filter {label}` there"
        )


def _is_new(service: Service, running: Mapping[str, Mapping[str, object]]) -> bool:
    known = running.get(service.name)
    if known is None:
        return True
    return bool(known["Spec"]["Labels"].get(stack.NODE_LABEL, "") != service.node)  # type: ignore[index]


def _running(service: str, task: Task | None, answering: Collection[str]) -> Running:
    if task is None:
        return Running(False)
    status = task["Status"]
    up = status["State"] == "running" and task.get("NodeID") in answering
    failed = status["State"] in {"failed", "rejected"} or "Err" in status
    # Of a node that is gone nobody knows whether the container is there.
    there = status.get("ContainerStatus") and task.get("NodeID") in answering
    name = f"{service}.{task.get('Slot', task.get('NodeID'))}.{task['ID']}"
    return Running(up, container=name if there else None, retried=not up and failed, note=_wrong(task))


def _wrong(task: Task) -> str:
    status = task["Status"]
    return f"the swarm says: {status['State']}: {status['Err']}" if status.get("Err") else ""
