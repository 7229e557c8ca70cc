"""Which containers a fleet is: from its parts to images, commands, environments, networks and limits. Pure.

Both colors' replicas of a number share the network namespace of a third container that only waits, ``pause_0`` and so
on, and all replicas share a directory: a socket that a worker hands over lives on when its container is gone. The edges
share the namespace of ``pause_edge``, since they share the port.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from shards.fleet import layout
from shards.fleet.engines.base import EdgePart, Part, RedisPart, ReplicaPart, Route
from shards.fleet.engines.docker.options import DockerOptions, Limits
from shards.fleet.engines.edge import GRACE_S
from shards.fleet.spec import COLORS, REFERENCE_APP, Color, FleetSpec, other_color
from shards.fleet.state import FleetState

WEB_PORT, ADMIN_PORT = 8000, 8080
"""Where edges listen in their network: for everybody, and the first of them for questions about itself."""

APP_PORTS: Mapping[Color, int] = {"blue": 8001, "green": 8002}
"""Two colors' replicas share a network, so they need two ports."""

FLEET_LABEL, PART_LABEL, SERVICE_LABEL, STATE_LABEL = (
    f"shards.{name}" for name in ("fleet", "part", "service", "state")
)
RELEASE_LABEL = "shards.release"
WHEELS_LABEL = "shards.wheels"
"""In place of the fleet's on the stage that images of the app are built from: it has no name, and outlives releases."""
COMPOSE_LABEL = "com.docker.compose.project"
"""By which Compose knows its own."""

LOG_DRIVER, LOG_FILES = "json-file", {"max-size": "10m", "max-file": "3"}
"""Where what each container says is kept, and how much of it, so that nothing grows without end."""

SECRETS, HANDOFF, DYNAMIC = "/run/secrets", "/run/shards", "/etc/traefik/dynamic"
HANDOFF_VOLUME = "handoff"

MONITORING_PROFILE = "monitoring"
_PROMETHEUS_PORT, _GRAFANA_PORT = 9090, 3000

_LOOPBACK = "127.0.0.1"

_SOMAXCONN = {"net.core.somaxconn": "65535"}
MANY_SOCKETS = {
    **_SOMAXCONN,
    "net.ipv4.ip_local_port_range": "1024 65535",
    # What is listened on there: an outgoing connection that took it would keep a part that restarts from listening.
    "net.ipv4.ip_local_reserved_ports": "8000-8100",
    "net.ipv4.tcp_fin_timeout": "30",
    "net.ipv4.tcp_keepalive_intvl": "15",
    "net.ipv4.tcp_keepalive_probes": "3",
    "net.ipv4.tcp_keepalive_time": "300",
    "net.ipv4.tcp_max_syn_backlog": "65535",
    "net.ipv4.tcp_tw_reuse": "1",
}
"""Those of docker/sysctl.conf that belong to a network namespace; the others are the host's."""


@dataclass(frozen=True)
class Mount:
    """A directory of a container: a volume by its short name, or (``./…``) one beside the Compose file, read only."""

    source: str
    target: str

    @property
    def is_volume(self) -> bool:
        """Whether it is a volume."""
        return not self.source.startswith(".")


@dataclass(frozen=True)
class Publish:
    """A port of the host that leads to one of a container."""

    host: str
    port: int
    inner: int


@dataclass(frozen=True)
class Service:
    """One container.

    Attributes:
        name: by which the others find it.
        part: the part of the fleet that it is; empty: it only helps.
        kind: ``app``, ``redis``, ``shared``, ``edge``, ``pause``…: what it has in common with others.
        image: what it runs.
        namespace: the service whose network it shares; empty: it has its own.
        stop_s: how long it may take to stop, in seconds.
        profile: only started where this is asked for; empty: always.
        after: services that must be there first.
    """

    name: str
    part: str
    kind: str
    image: str
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    publish: tuple[Publish, ...] = ()
    namespace: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    limits: Limits | None = None
    stop_s: int = 5
    labels: Mapping[str, str] = field(default_factory=dict)
    profile: str = ""
    after: tuple[str, ...] = ()


def service_name(part: str) -> str:
    """Name the service of a part: ``app_blue_0`` is blue-0, ``traefik_0`` edge-0; Redis servers keep their names."""
    kind, _, number = part.partition("-")
    if kind in COLORS:
        return f"app_{kind}_{number}"
    return f"traefik_{number}" if kind == "edge" else part


def namespace_of(part: str) -> str:
    """Name the service whose network a part shares; empty: it has its own."""
    kind, _, number = part.partition("-")
    if kind in COLORS:
        return f"pause_{number}"
    return "pause_edge" if kind == "edge" else ""


def container_name(project: str, service: str) -> str:
    """Name a service's container."""
    return f"{project}-{service}"


def labels(project: str, service: Service) -> dict[str, str]:
    """Give the labels by which a service's container is found."""
    return {FLEET_LABEL: project, PART_LABEL: service.part, SERVICE_LABEL: service.name, **service.labels}


def app_image(project: str, release: str) -> str:
    """Name the image of a release; a tag holds no ``+``."""
    return f"shards-app:{project}-{release.replace('+', '-')}"


def redis_image(project: str) -> str:
    """Name the image of the Redis servers."""
    return f"shards-redis:{project}"


def edge_image(project: str) -> str:
    """Name the image of the edges."""
    return f"shards-edge:{project}"


def inner(part: ReplicaPart) -> ReplicaPart:
    """Give a replica as the edges know it."""
    return replace(part, address=f"{namespace_of(part.name)}:{APP_PORTS[part.color]}")


def routed(route: Route) -> Route:
    """Give a route as the edges know it."""
    return replace(route, replicas={color: [inner(part) for part in parts] for color, parts in route.replicas.items()})


def edge_port(part: EdgePart) -> int:
    """Give the port, within the edges' network, at which an edge answers questions about itself."""
    return ADMIN_PORT + int(part.name.partition("-")[2])


@dataclass(frozen=True)
class Stack:
    """A fleet's containers.

    Attributes:
        state: of the fleet.
        options: limits.
        cores: of the host; 0: not known.
    """

    state: FleetState
    options: DockerOptions
    cores: int = 0

    @property
    def spec(self) -> FleetSpec:
        """What the fleet shall be."""
        return self.state.spec

    def of(self, part: Part) -> Service:
        """Give the container of a part.

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
        raise TypeError(f"no container for {part}")

    def pause(self, name: str) -> Service:
        """Give the container that holds a network: ``pause_0`` that of two replicas, ``pause_edge`` the edges'."""
        if name == "pause_edge":
            publish = [Publish(self.spec.host, self.spec.port, WEB_PORT), *self._edge_ports()]
        else:
            number = name.partition("_")[2]
            publish = [self._local(f"{color}-{number}", APP_PORTS[color]) for color in COLORS]
        return Service(
            name,
            "",
            "pause",
            redis_image(self.spec.project),
            ("sleep", "infinity"),
            publish=tuple(publish),
            sysctls=MANY_SOCKETS,
            stop_s=1,
        )

    def prepare(self) -> Service:
        """Give the container that tells a fleet what `inv up` tells it otherwise, and ends."""
        color = self.state.active
        first = layout.replica_parts(self.state, color)[0]
        shards = [f"{shard.name}={shard.url}" for shard in layout.shards(self.state)]
        return Service(
            "prepare",
            "",
            "prepare",
            app_image(self.spec.project, first.release),
            ("python", "-m", "shards.server.prepare", color, *shards),
            environment={"MESSAGE_REDIS_URL": f"redis://{layout.CONTROL}:{layout.REDIS_PORT}/0"},
            mounts=(Mount("./secrets/app", SECRETS),),
            after=tuple(part.name for part in layout.redis_parts(self.state)),
        )

    def monitoring(self) -> list[Service]:
        """Give the containers that watch a fleet: Prometheus, and Grafana, which shows what it saw."""
        prometheus = Service(
            "prometheus",
            "",
            "prometheus",
            self.options.prometheus_image,
            (
                "--config.file=/etc/prometheus/prometheus.yml",
                "--storage.tsdb.path=/prometheus",
                "--storage.tsdb.retention.time=15d",
            ),
            mounts=(Mount("./monitoring", "/etc/prometheus"), Mount("prometheus_data", "/prometheus")),
            publish=(self._local("prometheus", _PROMETHEUS_PORT),),
            limits=self.options.monitoring,
            stop_s=20,
            profile=MONITORING_PROFILE,
        )
        grafana = Service(
            "grafana",
            "",
            "grafana",
            self.options.grafana_image,
            environment={
                "GF_SECURITY_ADMIN_PASSWORD__FILE": f"{SECRETS}/password",
                "GF_ANALYTICS_REPORTING_ENABLED": "false",
                "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
                "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
                "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": "/etc/dashboards/shards.json",
            },
            mounts=(
                Mount("./monitoring/grafana/provisioning", "/etc/grafana/provisioning"),
                Mount("./monitoring/grafana/dashboards", "/etc/dashboards"),
                Mount("./secrets/grafana", SECRETS),
                Mount("grafana_data", "/var/lib/grafana"),
            ),
            publish=(self._local("grafana", _GRAFANA_PORT),),
            limits=self.options.monitoring,
            profile=MONITORING_PROFILE,
            after=("prometheus",),
        )
        return [prometheus, grafana]

    def _edge_ports(self) -> list[Publish]:
        edges = [name for name in self.state.ports if name.startswith("edge-")]
        return [self._local(name, edge_port(EdgePart(name, 0))) for name in sorted(edges)]

    def _local(self, part: str, inside: int) -> Publish:
        return Publish(_LOOPBACK, self.state.ports[part], inside)

    def _redis(self, part: RedisPart) -> Service:
        shared = not part.name.startswith("redis_") or part.name == layout.CONTROL
        return Service(
            service_name(part.name),
            part.name,
            "shared" if shared else "redis",
            redis_image(self.spec.project),
            ("/etc/shards/start", *(("--appendfsync", "always") if part.sync_first else ())),
            mounts=(Mount(f"{part.name}_data", "/data"), Mount("./secrets/redis", SECRETS)),
            publish=(Publish(_LOOPBACK, part.port, layout.REDIS_PORT),),
            sysctls=_SOMAXCONN,
            limits=self.options.shared if shared else self.options.redis,
            stop_s=20,
        )

    def _replica(self, part: ReplicaPart) -> Service:
        return Service(
            service_name(part.name),
            part.name,
            "app",
            app_image(self.spec.project, part.release),
            environment=self.environment(part),
            mounts=(Mount("./secrets/app", SECRETS), Mount(HANDOFF_VOLUME, HANDOFF)),
            namespace=namespace_of(part.name),
            limits=self.options.app,
            stop_s=15,
            labels={RELEASE_LABEL: part.release},
            profile="" if part.color == self.state.active else part.color,
            after=(f"redis_{part.color}", layout.CONTROL),
        )

    def environment(self, part: ReplicaPart) -> dict[str, str]:
        """Give what a replica is told."""
        told = {
            **self.state.settings,
            "COLOR": part.color,
            "CHANNEL_REDIS_URL": f"redis://redis_{part.color}:{layout.REDIS_PORT}/0",
            "MESSAGE_REDIS_URL": f"redis://{layout.CONTROL}:{layout.REDIS_PORT}/0",
            "UVICORN_WORKERS": str(part.workers),
            "SHARDS_APP": self.spec.app,
            "SHARDS_REPLICA": part.name,
            "SHARDS_PORT": str(APP_PORTS[part.color]),
            "SHARDS_RELEASE": part.release,
        }
        # Other projects name their settings themselves, in their asgi.py or where the fleet was started.
        if self.spec.app == REFERENCE_APP:
            told["DJANGO_SETTINGS_MODULE"] = "app.settings"
        return told

    def _threads(self) -> dict[str, str]:
        # Edges that each run as many threads as there are cores take them from one another and from the replicas.
        return {"GOMAXPROCS": str(max(1, self.cores // self.spec.edges))} if self.cores else {}

    def _edge(self, part: EdgePart) -> Service:
        configuration = f"/etc/traefik/{static_file(part)}"
        return Service(
            service_name(part.name),
            part.name,
            "edge",
            edge_image(self.spec.project),
            (f"--configFile={configuration}",),
            environment={"EDGE_FILE": configuration, **self._threads()},
            mounts=(Mount("./traefik", "/etc/traefik"),),
            namespace=namespace_of(part.name),
            limits=self.options.edge,
            stop_s=GRACE_S + 5,
            after=tuple(service_name(one.name) for one in layout.replica_parts(self.state, self.state.active)),
        )


def static_file(part: EdgePart) -> str:
    """Name the file of an edge's static configuration."""
    number = part.name.partition("-")[2]
    return "traefik.yml" if number == "0" else f"traefik-{number}.yml"


def idle_parts(state: FleetState) -> list[ReplicaPart]:
    """Give the replicas that the idle color would have, were it deployed like the active one."""
    idle = other_color(state.active)
    return layout.replica_parts(state.with_deployed(idle, state.deployed[state.active]), idle)
