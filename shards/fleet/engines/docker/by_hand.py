"""Fleets that Docker Compose has started from our file: found by a label, which says what they are."""

from __future__ import annotations

import msgspec
from docker.errors import DockerException
from requests import RequestException

from shards.errors import ShardsError
from shards.fleet.engines.docker import daemon, stack
from shards.fleet.state import FleetState


def find(project: str) -> FleetState | None:
    """Find what a fleet is that runs, though no command of ours has started it; None: there is none here."""
    try:
        daemon.refuse_elsewhere()
        client = daemon.connect()
    except ShardsError:
        return None
    try:
        ours: dict[str, str | list[str] | bool] = {"label": [f"{stack.FLEET_LABEL}={project}", stack.STATE_LABEL]}
        for container in client.containers.list(filters=ours):
            return msgspec.json.decode(container.labels[stack.STATE_LABEL], type=FleetState)
    except (DockerException, RequestException, msgspec.MsgspecError):
        return None
    finally:
        client.close()
    return None


def elsewhere(project: str) -> str:
    """Say that commands which change a fleet leave this one to whoever has started it."""
    return (
        f"fleet {project} was started by Docker Compose, with files of its own: `docker compose down` it, or "
        f"`inv down`; then `inv up --engine docker --project {project}` goes on with its data"
    )
