"""A fleet's containers as a Compose file, for those who run it by hand, and to be read. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import msgspec
import yaml

from shards.fleet import layout
from shards.fleet.engines.docker import files, stack
from shards.fleet.engines.docker.options import DockerOptions
from shards.fleet.engines.docker.stack import Service, Stack
from shards.fleet.shard_list import converge
from shards.fleet.spec import FleetSpec
from shards.fleet.state import Deployment, FleetState

_GIVEN_OUT = 32_768
"""From here on Linux gives ports to connections that go out (ip_local_port_range)."""

RELEASE = "dev"

HERE = "docker"
"""The directory in the clone that `inv build` puts secrets in where it is not told another."""

NOFILE = 65_536
"""Files that a container of the file may open, where `SHARDS_NOFILE` does not say another number."""

_GAP = 5
_LIMITED = ("app", "redis", "shared", "edge")


def first_port(port: int) -> int:
    """Choose where the ports begin by which commands reach the parts of a fleet that was never up.

    They follow from the fleet's own, since there is nobody to look which are free: fleets whose ports are some
    dozens apart run side by side. They are 20,001 above it, or 10,000 below it where that would be among those that
    are given out.

    Args:
        port: the fleet's.
    """
    above = port + 20_001
    return above if above + 100 < _GIVEN_OUT else port - 10_000


def fresh(spec: FleetSpec, engine: str = "docker") -> FleetState:
    """Give the state of a fleet that was never up: what it is after `inv up`, with ports that are always the same."""
    deployed = {"blue": Deployment(RELEASE, spec.replicas, spec.workers)}
    state = FleetState(
        # Where the app comes from is in its image.
        replace(spec, engine=engine, app_dir="."),
        deployed=deployed,  # type: ignore[arg-type]
        up=True,
        shards=converge((), spec.shards),
    )
    first = first_port(spec.port)
    return layout.with_ports(state, lambda taken: max([first - 1, *(port for port in taken if port != spec.port)]) + 1)


def services(state: FleetState, options: DockerOptions) -> list[Service]:
    """Give all containers of a fleet: helpers, servers, both colors' replicas, edges."""
    shape = Stack(state, options)
    replicas = [*layout.replica_parts(state, state.active), *stack.idle_parts(state)]
    edges = layout.edge_parts(state)
    sharing = [part.name for part in replicas] + [part.name for part in edges]
    holders = dict.fromkeys(map(stack.namespace_of, sharing))
    servers = [shape.of(part) for part in layout.redis_parts(state)]
    apps, proxies = [shape.of(part) for part in replicas], [shape.of(part) for part in edges]
    return [*servers, shape.prepare(), *map(shape.pause, holders), *apps, *proxies, *shape.monitoring()]


def render(state: FleetState, options: DockerOptions, into: str = HERE) -> str:
    """Write the Compose file of a fleet.

    Args:
        state: what it is.
        options: limits.
        into: the directory that it goes to, as its head shall name it.
    """
    found = services(state, options)
    common = {kind: _common(kind, found) for kind in dict.fromkeys(one.kind for one in found)}
    project = state.spec.project
    document: dict[str, Any] = {"name": project}
    document |= {f"x-{kind}": common[kind] for kind in common}
    document["services"] = {one.name: _service(one, state, common[one.kind]) for one in found}
    volumes = dict.fromkeys(mount.source for one in found for mount in one.mounts if mount.is_volume)
    label = {stack.FLEET_LABEL: project}
    document["volumes"] = {name: {"name": f"{project}_{name}", "labels": label} for name in volumes}
    document["networks"] = {"default": {"name": project, "labels": label}}
    return _head(state, into) + _dump(document, {id(value): kind for kind, value in common.items()})


def written(state: FleetState, options: DockerOptions, into: str = HERE) -> dict[str, str]:
    """Give all files of a fleet but its secrets: the Compose file, and beside it those that containers mount.

    Args:
        state: what it is.
        options: limits.
        into: the directory that they go to, as the Compose file's head shall name it.
    """
    found = {"compose.yml": render(state, options, into)}
    for part in layout.edge_parts(state):
        found[f"traefik/{stack.static_file(part)}"] = files.static(part)
    found |= {f"monitoring/targets/{name}.yml": text for name, text in files.targets(state.spec).items()}
    return found | {f"traefik/dynamic/{files.ROUTE_FILE}": files.dynamic(layout.route(state))}


def started(into: str, smaller: Mapping[str, str] = MappingProxyType({})) -> str:
    """Give the command that has Compose start the fleet of a file.

    Args:
        into: the directory of the file.
        smaller: what the file is told on a host that has less, see `smaller`.
    """
    told = [f"{name}={value}" for name, value in smaller.items()]
    return shlex.join([*told, "docker", "compose", "-f", f"{into}/compose.yml", "up", "-d"])


def smaller(options: DockerOptions, nofile: int, cpus: float) -> dict[str, str]:
    """Give the variables that the file needs where Docker would refuse what it asks for; none: the host has enough.

    Args:
        options: limits that the file asks for.
        nofile: files that a container may open there.
        cpus: cores that there are.
    """
    found = {"SHARDS_NOFILE": str(nofile)} if nofile < NOFILE else {}
    asked = {kind: getattr(options, kind).cpus for kind in _LIMITED}
    return found | {f"SHARDS_{kind.upper()}_CPUS": f"{cpus:g}" for kind, most in asked.items() if most > cpus}


def _head(state: FleetState, into: str) -> str:
    """Say how the file is used: by commands that find what is beside it."""
    project = state.spec.project
    flags = ["--into", into] if into != HERE else []
    flags += ["--project", project] if project != FleetSpec().project else []
    build = shlex.join(["inv", "build", *flags])
    up = started(into)
    prometheus, grafana = (state.ports[name] for name in layout.MONITORING)
    width = max(len(build), len(up)) + _GAP
    told = [
        (build, f"images, and secrets in {into}/secrets"),
        (up, f"the fleet, at http://127.0.0.1:{state.spec.port}"),
        ("… --profile monitoring up -d", f"also Prometheus at http://127.0.0.1:{prometheus},"),
        ("", f"Grafana at :{grafana}; its password is in {into}/secrets/grafana"),
    ]
    kept = "" if flags else ": a test keeps it so"
    lines = [
        f"Written by `inv render --engine docker`{kept}. docs/docker.md says how to use it.",
        "",
        *(f"  {command:{width}}{meaning}" for command, meaning in told),
        "",
        "SHARDS_NOFILE, SHARDS_<APP|REDIS|SHARED|EDGE>_CPUS and _MEMORY fit it to a host that has less.",
    ]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def _common(kind: str, found: Sequence[Service]) -> dict[str, Any]:
    """Give what the containers of a kind have in common."""
    one = next(service for service in found if service.kind == kind)
    nofile = f"${{SHARDS_NOFILE:-{NOFILE}}}"
    common: dict[str, Any] = {
        "image": one.image,
        "init": True,
        "restart": "no" if kind == "prepare" else "unless-stopped",
        "stop_grace_period": f"{one.stop_s}s",
        "ulimits": {"nofile": {"soft": nofile, "hard": nofile}},
        "logging": {"driver": stack.LOG_DRIVER, "options": dict(stack.LOG_FILES)},
    }
    if kind in layout.MONITORING:
        # Their images are not built here: they come with their own init, and need no more files than they get.
        del common["init"], common["ulimits"]
    if one.sysctls:
        common["sysctls"] = dict(one.sysctls)
    if kind == "pause":
        common |= {"tmpfs": ["/data:size=64k"], "healthcheck": {"disable": True}}
    if one.limits:
        upper = kind.upper()
        limits = {
            "memory": f"${{SHARDS_{upper}_MEMORY:-{one.limits.memory}}}",
            "cpus": f"${{SHARDS_{upper}_CPUS:-{one.limits.cpus}}}",
        }
        common["deploy"] = {"resources": {"limits": limits}}
        # Swap would only hide that it takes too much.
        common["memswap_limit"] = limits["memory"]
    return common


def _service(one: Service, state: FleetState, common: Mapping[str, Any]) -> dict[str, Any]:
    labels = stack.labels(state.spec.project, one)
    if one.name == layout.CONTROL:
        # By this `inv status` knows a fleet that it has not started.
        labels[stack.STATE_LABEL] = msgspec.json.encode(state).decode()
    found: dict[str, Any] = {
        _MERGE: common,
        "container_name": stack.container_name(state.spec.project, one.name),
        "labels": labels,
    }
    optional = {
        "command": list(one.command),
        "environment": dict(one.environment),
        "volumes": [f"{mount.source}:{mount.target}{'' if mount.is_volume else ':ro'}" for mount in one.mounts],
        "ports": [f"{port.host}:{port.port}:{port.inner}" for port in one.publish],
        "network_mode": f"service:{one.namespace}" if one.namespace else "",
        "profiles": [one.profile] if one.profile else [],
        "depends_on": list(one.after),
    }
    return found | {name: value for name, value in optional.items() if value}


class _Merge(str):
    """The key that takes another mapping in."""


_MERGE = _Merge("<<")


def _dump(document: Mapping[str, Any], anchors: Mapping[int, str]) -> str:
    names: dict[int, str] = {}

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return id(data) not in anchors

        def represent_data(self, data: Any) -> yaml.Node:
            node: yaml.Node = super().represent_data(data)
            if id(data) in anchors:
                names[id(node)] = anchors[id(data)]
            return node

        def generate_anchor(self, node: yaml.Node) -> str:
            return names[id(node)]

    Dumper.add_representer(_Merge, lambda dumper, data: dumper.represent_scalar("tag:yaml.org,2002:merge", str(data)))
    return yaml.dump(document, Dumper=Dumper, sort_keys=False, width=1000)
