"""A fleet's services as a stack file, as `docker stack deploy` takes it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shards.fleet import layout
from shards.fleet.engines import edge as edges
from shards.fleet.engines.docker.stack import FLEET_LABEL, LOG_DRIVER, LOG_FILES, SECRETS
from shards.fleet.engines.swarm import stack
from shards.fleet.engines.swarm.stack import File, Service, Stack

_HEAD = """\
# Written by `inv render --engine swarm`. Nodes and addresses are those of the swarm it was written for.
#
#   inv build --engine swarm                                  images, on every node
#   inv render --engine swarm > stack.yml
#   docker stack deploy --resolve-image never -c stack.yml {project}
"""


def texts(shape: Stack) -> tuple[dict[str, str], dict[str, str]]:
    """Give the secrets and the configurations of a fleet, by their names."""
    secrets = {
        stack.file_name(kind, name, text): text for kind, files in shape.secrets.items() for name, text in files.items()
    }
    return secrets, shape.configs(layout.edge_parts(shape.state))


def render(shape: Stack, directory: Path, nofile: int) -> str:
    """Write the stack file of a fleet.

    Args:
        shape: its services.
        directory: that holds its secrets and configurations, in files of their names.
        nofile: files a container may open.
    """
    project = shape.spec.project
    secrets, configs = texts(shape)
    found = stack.services(shape)
    volumes = dict.fromkeys(name for one in found for name in one.volumes)
    document = {
        "version": "3.8",
        "services": {one.name: _escaped(_service(one, shape, nofile)) for one in found},
        "networks": {"host": {"external": True, "name": "host"}},
        "volumes": {
            name: {"name": stack.full_name(project, name), "labels": {FLEET_LABEL: project}} for name in volumes
        },
        "secrets": _files(secrets, project, directory),
        "configs": _files(configs, project, directory),
    }
    return _HEAD.format(project=project) + edges.dump(document)


def _files(names: Mapping[str, str], project: str, directory: Path) -> dict[str, Any]:
    return {
        name: {
            "name": stack.full_name(project, name),
            "file": str(directory / name),
            "labels": {FLEET_LABEL: project},
        }
        for name in names
    }


def _service(one: Service, shape: Stack, nofile: int) -> dict[str, Any]:
    labels = {name: value for name, value in stack.labels(shape.spec.project, one).items() if value}
    # The command that deploys a stack sets it by itself.
    labels.pop(stack.NAMESPACE_LABEL)
    found: dict[str, Any] = {
        "image": one.image,
        "init": True,
        "networks": ["host"],
        "stop_grace_period": f"{one.stop_s}s",
        "ulimits": {"nofile": {"soft": nofile, "hard": nofile}},
        "labels": labels,
        "healthcheck": {"disable": True},
        "logging": {"driver": LOG_DRIVER, "options": dict(LOG_FILES)},
    }
    optional: dict[str, Any] = {
        "command": list(one.command),
        "environment": dict(one.environment),
        "secrets": [_reference(file) for file in one.secrets],
        "configs": [_reference(file) for file in one.configs],
        "volumes": [f"{name}:{target}" for name, target in one.volumes.items()],
        "deploy": _deploy(one, shape, labels),
    }
    return found | {name: value for name, value in optional.items() if value}


def _escaped(value: Any) -> Any:
    """Double each dollar, which would be taken for the beginning of a variable."""
    match value:
        case str():
            return value.replace("$", "$$")
        case list():
            return [_escaped(one) for one in value]
        case dict():
            return {name: _escaped(one) for name, one in value.items()}
    return value


def _reference(file: File) -> dict[str, Any]:
    target = file.target if file.target.startswith("/") else f"{SECRETS}/{file.target}"
    return {"source": file.name, "target": target, "mode": 0o444}


def _deploy(one: Service, shape: Stack, labels: Mapping[str, str]) -> dict[str, Any]:
    ends = one.kind == "prepare"
    found: dict[str, Any] = {
        "labels": dict(labels),
        "restart_policy": {"condition": "none"} if ends else {"condition": "any", "delay": "1s"},
        # A promote brings new services; whoever updates one by hand is stopped by the first fault.
        "update_config": {"parallelism": 1, "order": "stop-first", "failure_action": "pause"},
    }
    if one.node:
        found |= {"replicas": 1, "placement": {"constraints": [f"node.hostname=={one.node}"]}}
    else:
        found["mode"] = "global"
    if one.limits:
        cpus = min(one.limits.cpus, shape.cores) if shape.cores else one.limits.cpus
        found["resources"] = {"limits": {"memory": one.limits.memory, "cpus": f"{cpus:g}"}}
    return found
