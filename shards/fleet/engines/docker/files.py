"""The files that containers mount: the edges' configuration, and secrets.

Containers do not run as the user who starts the fleet, so files must be readable to all; the directory above them
(``.fleet/<project>``, ``secrets``) lets nobody else of this host in.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from shards.errors import ShardsError
from shards.fleet import accounts
from shards.fleet.engines import edge as edges
from shards.fleet.engines.base import EdgePart, Route
from shards.fleet.engines.docker.stack import DYNAMIC, WEB_PORT, edge_port, routed, static_file
from shards.fleet.engines.edge import Tls
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetDir, write_atomically

ROUTE_FILE = "fleet.yml"


def static(part: EdgePart) -> str:
    """Write an edge's static configuration."""
    inside = EdgePart(part.name, edge_port(part))
    # Only this host's loopback leads to the admin port, see `Stack.pause`.
    return edges.dump(edges.static(inside, "", WEB_PORT, Path(DYNAMIC), admin=""))


def dynamic(route: Route, tls: Tls | None = None) -> str:
    """Write the configuration that all edges watch."""
    return edges.dump(edges.dynamic(routed(route), tls))


def targets(spec: FleetSpec) -> dict[str, str]:
    """Write whom Prometheus asks: the fleet, through its edges, and each edge about itself."""
    inside = [f"pause_edge:{edge_port(EdgePart(f'edge-{i}', 0))}" for i in range(spec.edges)]
    fleet: dict[str, Any] = {"targets": [f"pause_edge:{WEB_PORT}"]}
    if spec.tls_certificate:
        fleet["labels"] = {"__scheme__": "https"}
    return {name: yaml.safe_dump([asked]) for name, asked in (("fleet", fleet), ("edges", {"targets": inside}))}


def write_edge(directory: Path, part: EdgePart) -> None:
    """Write what an edge reads when it starts."""
    _write(directory / "traefik" / static_file(part), static(part))


def write_route(directory: Path, route: Route, tls: Tls | None) -> None:
    """Write where the edges send requests, and what they show; they take it up within moments."""
    _write(directory / "traefik" / "dynamic" / ROUTE_FILE, dynamic(route, tls), directory)


def app_secrets(fleet: FleetDir) -> dict[str, str]:
    """Give what a replica may know, by the names of the files: not the admin's password of the Redis servers."""
    known = (fleet.app_password_file, fleet.secret_key_file, fleet.token_key_file, fleet.credentials_file)
    return {file.name: file.read_text() for file in known}


def redis_secrets(fleet: FleetDir) -> dict[str, str]:
    """Give what a Redis server may know, by the names of the files: digests, and what its own health check shows."""
    users = accounts.configuration(accounts.server_users(fleet.passwords()))
    return {"password": fleet.app_password(), "redis.conf": "\n".join([*users, ""])}


def write_secrets(directory: Path, fleet: FleetDir) -> None:
    """Copy the secrets of a fleet to where containers find them, each kind only its own."""
    for folder in ("secrets", "secrets/app", "secrets/redis", "secrets/grafana"):
        (directory / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / "secrets").chmod(0o700)
    for name, text in app_secrets(fleet).items():
        _write(directory / "secrets" / "app" / name, text)
    # Where an earlier release of ours put the only password there was.
    (directory / "secrets" / "app" / fleet.password_file.name).unlink(missing_ok=True)
    if fleet.grafana_password_file.exists():  # not in a fleet's directory that is older than the profile `monitoring`
        _write(directory / "secrets" / "grafana" / "password", fleet.grafana_password_file.read_text())
    for name, text in redis_secrets(fleet).items():
        _write(directory / "secrets" / "redis" / name, text)


def open_to_containers(directories: Iterable[Path]) -> None:
    """Make directories that containers mount, readable to all who get there."""
    for directory in directories:
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)


def _write(path: Path, text: str, by_way_of: Path | None = None) -> None:
    if path.exists() and path.read_text() == text:
        return
    try:
        open_to_containers([path.parent])
        write_atomically(path, text, by_way_of, mode=0o644)
    except OSError as error:
        raise ShardsError(f"cannot write {path}, which containers read: {error.strerror}") from None
