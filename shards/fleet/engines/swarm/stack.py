"""Which services a fleet is in a swarm: from its parts to images, commands, secrets, nodes and limits. Pure.

Each part is a service of its own with one task, pinned to a node, in the network of its host: parts reach one another
at their nodes' addresses, and a socket that a replica hands over lives on when the replica is gone. One more service,
``route``, has a task on every node: it tells the edges there where to send requests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shards.fleet import layout
from shards.fleet.engines import edge as edges
from shards.fleet.engines.base import EdgePart, Part, RedisPart, ReplicaPart
from shards.fleet.engines.docker import stack as containers
from shards.fleet.engines.docker.options import DockerOptions, Limits
from shards.fleet.engines.docker.ownership import MARK_LABEL
from shards.fleet.engines.docker.stack import FLEET_LABEL, HANDOFF, HANDOFF_VOLUME, RELEASE_LABEL
from shards.fleet.spec import REFERENCE_APP, FleetSpec
from shards.fleet.state import LOOPBACK, FleetState
from shards.server.prepare import ROUTE_VARIABLE

NODE_LABEL, PORT_LABEL = "shards.node", "shards.port"
NAMESPACE_LABEL = "com.docker.stack.namespace"
"""By this `docker stack ls`, `ps` and `rm` know the services."""

EDGE_FILE = "/etc/traefik/traefik.yml"

_S = 1_000_000_000
_EVERYBODY_READS = 0o444


@dataclass(frozen=True)
class File:
    """A secret, or a configuration, as a service sees it.

    Attributes:
        name: of it in the swarm; what it holds is part of the name, since neither can be changed.
        target: the file's name, or its path.
    """

    name: str
    target: str


@dataclass(frozen=True)
class Service:
    """One service.

    Attributes:
        name: of it within the fleet.
        part: the part of the fleet that it is; empty: it only helps.
        kind: ``app``, ``redis``, ``shared``, ``edge`` or ``route``: what it has in common with others.
        image: what it runs.
        node: the node it is pinned to; empty: it has a task on each.
        volumes: their short names, and where they are mounted.
        port: of its node that it takes; no two services of a swarm's fleets have the same.
        stop_s: how long it may take to stop, in seconds.
    """

    name: str
    part: str
    kind: str
    image: str
    node: str = ""
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[File, ...] = ()
    configs: tuple[File, ...] = ()
    volumes: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    limits: Limits | None = None
    stop_s: int = 5
    labels: Mapping[str, str] = field(default_factory=dict)


def full_name(project: str, name: str) -> str:
    """Name a service, a secret, a configuration or a volume in the swarm."""
    return f"{project}_{name}"


def file_name(kind: str, target: str, text: str) -> str:
    """Name a secret or a configuration by what it is and holds."""
    digest = hashlib.blake2b(text.encode(), digest_size=5).hexdigest()
    return f"{kind}_{target.rpartition('/')[2].replace('.', '-')}_{digest}"


def labels(project: str, service: Service) -> dict[str, str]:
    """Give the labels by which a service and its containers are found."""
    found = {
        FLEET_LABEL: project,
        containers.PART_LABEL: service.part,
        containers.SERVICE_LABEL: service.name,
        NODE_LABEL: service.node,
        PORT_LABEL: str(service.port),
        NAMESPACE_LABEL: project,
    }
    return found | dict(service.labels)


def static(part: EdgePart, state: FleetState) -> str:
    """Write an edge's static configuration: it listens on its node's address, or where ``host`` says."""
    host = part.host if state.spec.host == LOOPBACK else state.spec.host
    told = f"http://{LOOPBACK}:{state.ports[layout.ROUTE]}/route"
    return edges.dump(edges.static(part, host, state.spec.port, told))


@dataclass(frozen=True)
class Stack:
    """A fleet's services.

    Attributes:
        state: of the fleet.
        options: limits.
        secrets: what each kind of service may know: its text, by kind and file name.
        cores: of the smallest node; 0: not known.
    """

    state: FleetState
    options: DockerOptions
    secrets: Mapping[str, Mapping[str, str]]
    cores: float = 0

    @property
    def spec(self) -> FleetSpec:
        """What the fleet shall be."""
        return self.state.spec

    def of(self, part: Part) -> Service:
        """Give the service of a part.

        Raises:
            TypeError: the engine has no such parts.
        """
        match part:
            case RedisPart():
                return self._redis(part)
            case ReplicaPart():
                return self._replica(part)
            case EdgePart():
                return self._edge(part)
        raise TypeError(f"no service for {part}")

    def route(self, release: str) -> Service:
        """Give the service that tells the edges where to send requests."""
        port = self.state.ports[layout.ROUTE]
        return Service(
            layout.ROUTE,
            "",
            "route",
            containers.app_image(self.spec.project, release),
            command=("python", "-m", "shards.server.route"),
            environment={
                "MESSAGE_REDIS_URL": self._redis_url(layout.CONTROL),
                "SHARDS_PORT": str(port),
            },
            secrets=self._files("route"),
            port=port,
        )

    def prepare(self) -> Service:
        """Give the service that tells a fleet what `inv up` tells it otherwise, and ends."""
        first = layout.replica_parts(self.state, self.state.active)[0]
        shards = [f"{shard.name}={shard.url}" for shard in layout.shards(self.state)]
        return Service(
            "prepare",
            "",
            "prepare",
            containers.app_image(self.spec.project, first.release),
            node=self.state.places[layout.CONTROL].node,
            command=("python", "-m", "shards.server.prepare", self.state.active, *shards),
            environment={
                "MESSAGE_REDIS_URL": self._redis_url(layout.CONTROL),
                ROUTE_VARIABLE: edges.as_json(edges.dynamic(layout.route(self.state))),
            },
            secrets=self._files("app"),
        )

    def configs(self, parts: Sequence[Part]) -> dict[str, str]:
        """Give the texts of the configurations that parts need, by their names."""
        texts = ((part.name, static(part, self.state)) for part in parts if isinstance(part, EdgePart))
        return {file_name(name, "traefik", text): text for name, text in texts}

    def _files(self, kind: str) -> tuple[File, ...]:
        return tuple(File(file_name(kind, name, text), name) for name, text in self.secrets[kind].items())

    def _redis_url(self, name: str) -> str:
        return f"redis://{layout.host(self.state, name)}:{self.state.ports[name]}/0"

    def _redis(self, part: RedisPart) -> Service:
        shared = not part.name.startswith("redis_") or part.name == layout.CONTROL
        bind = ("--bind", part.host, *(() if part.host == LOOPBACK else (LOOPBACK,)))
        return Service(
            part.name,
            part.name,
            "shared" if shared else "redis",
            containers.redis_image(self.spec.project),
            self.state.places[part.name].node,
            (
                "/etc/shards/start",
                *("--port", str(part.port), *bind),
                *(("--appendfsync", "always") if part.sync_first else ()),
            ),
            secrets=self._files("redis"),
            volumes={f"{part.name}_data": "/data"},
            port=part.port,
            limits=self.options.shared if shared else self.options.redis,
            stop_s=20,
        )

    def _replica(self, part: ReplicaPart) -> Service:
        return Service(
            containers.service_name(part.name),
            part.name,
            "app",
            containers.app_image(self.spec.project, part.release),
            self.state.places[part.name].node,
            environment=self._environment(part),
            secrets=self._files("app"),
            volumes={HANDOFF_VOLUME: HANDOFF},
            port=part.port,
            limits=self.options.app,
            stop_s=15,
            labels={RELEASE_LABEL: part.release},
        )

    def _environment(self, part: ReplicaPart) -> dict[str, str]:
        told = {
            **self.state.settings,
            "COLOR": part.color,
            "CHANNEL_REDIS_URL": self._redis_url(f"redis_{part.color}"),
            "MESSAGE_REDIS_URL": self._redis_url(layout.CONTROL),
            "UVICORN_WORKERS": str(part.workers),
            "SHARDS_APP": self.spec.app,
            "SHARDS_REPLICA": part.name,
            "SHARDS_HOST": part.host,
            "SHARDS_PORT": str(part.port),
            "SHARDS_RELEASE": part.release,
        }
        # Other projects name their settings themselves, in their asgi.py or where the fleet was started.
        if self.spec.app == REFERENCE_APP:
            told["DJANGO_SETTINGS_MODULE"] = "app.settings"
        return told

    def _edge(self, part: EdgePart) -> Service:
        text = static(part, self.state)
        beside = [name for name in layout.edge_names(self.state) if self.state.places[name].address == part.host]
        threads = {"GOMAXPROCS": str(max(1, int(self.cores) // len(beside)))} if self.cores else {}
        return Service(
            containers.service_name(part.name),
            part.name,
            "edge",
            containers.edge_image(self.spec.project),
            self.state.places[part.name].node,
            (f"--configFile={EDGE_FILE}",),
            environment={"EDGE_FILE": EDGE_FILE, **threads},
            configs=(File(file_name(part.name, "traefik", text), EDGE_FILE),),
            port=part.port,
            limits=self.options.edge,
            stop_s=edges.GRACE_S + 5,
        )


def task_template(
    project: str,
    service: Service,
    image: str,
    ids: Mapping[str, str],
    nofile: int,
    cores: float,
) -> dict[str, Any]:
    """Give what the daemon is told of a service's tasks.

    Args:
        project: the fleet's name.
        service: which.
        image: what it runs, as nodes know it.
        ids: of secrets and configurations, by their names in the fleet.
        nofile: files it may open.
        cores: of the smallest node: a node refuses a task that may use more than it has.
    """
    # A swarm kills what fails its image's check, with all its sockets, and does not call it running before the first is
    # through. Edges leave out a replica that is not ready by themselves, and commands ask the parts.
    container: dict[str, Any] = {
        "Image": image,
        "Env": [f"{name}={value}" for name, value in service.environment.items()],
        "Labels": labels(project, service),
        "Init": True,
        "StopGracePeriod": service.stop_s * _S,
        "Secrets": [_reference("Secret", project, file, ids) for file in service.secrets],
        "Configs": [_reference("Config", project, file, ids) for file in service.configs],
        "Mounts": [_mount(project, name, target) for name, target in service.volumes.items()],
        "Ulimits": [{"Name": "nofile", "Soft": nofile, "Hard": nofile}],
        "Healthcheck": {"Test": ["NONE"]},
    }
    if service.command:
        # An edge's image has a command of its own that takes arguments; Redis's and the app's have none.
        container["Args"] = list(service.command)
    return {
        "ContainerSpec": container,
        "Resources": {"Limits": _limits(service.limits, cores)} if service.limits else {},
        "RestartPolicy": {"Condition": "any", "Delay": _S},
        "Placement": {"Constraints": [f"node.hostname=={service.node}"]} if service.node else {},
        "Networks": [{"Target": "host"}],
        "LogDriver": {"Name": containers.LOG_DRIVER, "Options": dict(containers.LOG_FILES)},
    }


def marked(template: Mapping[str, Any], mark: str) -> dict[str, Any]:
    """Give a service's tasks the mark of the fleet's directory: on their containers, and on the volumes they bring."""
    container = template["ContainerSpec"]
    label = {MARK_LABEL: mark}
    mounts = [
        {**mount, "VolumeOptions": {"Labels": {**mount["VolumeOptions"]["Labels"], **label}}}
        for mount in container["Mounts"]
    ]
    return {**template, "ContainerSpec": {**container, "Labels": {**container["Labels"], **label}, "Mounts": mounts}}


def mode(service: Service) -> dict[str, Any]:
    """Give how many tasks a service has."""
    return {"Replicated": {"Replicas": 1}} if service.node else {"Global": {}}


UPDATE = {"Parallelism": 1, "Order": "stop-first", "FailureAction": "pause"}
"""Nothing of ours updates a service: a promote brings new ones. An update by hand stops at the first fault."""


def _reference(kind: str, project: str, file: File, ids: Mapping[str, str]) -> dict[str, Any]:
    return {
        f"{kind}ID": ids[file.name],
        f"{kind}Name": full_name(project, file.name),
        "File": {"Name": file.target, "UID": "0", "GID": "0", "Mode": _EVERYBODY_READS},
    }


def _mount(project: str, name: str, target: str) -> dict[str, Any]:
    label = {"Labels": {FLEET_LABEL: project}}
    return {"Type": "volume", "Source": full_name(project, name), "Target": target, "VolumeOptions": label}


def _limits(limits: Limits, cores: float) -> dict[str, int]:
    cpus = min(limits.cpus, cores) if cores else limits.cpus
    return {"MemoryBytes": limits.memory_bytes, "NanoCPUs": int(cpus * _S)}


def services(stack: Stack) -> Sequence[Service]:
    """Give all services of a fleet: servers, the active color's replicas, what tells edges the route, edges."""
    state = stack.state
    replicas = layout.replica_parts(state, state.active)
    servers = [stack.of(part) for part in layout.redis_parts(state)]
    apps = [stack.of(part) for part in replicas]
    proxies = [stack.of(part) for part in layout.edge_parts(state)]
    return [*servers, stack.prepare(), *apps, stack.route(replicas[0].release), *proxies]
