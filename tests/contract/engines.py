"""The engines that the contract is tested on, and what differs between them: how one looks, and how one kills."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
from docker.errors import DockerException, NotFound

from shards.errors import ShardsError
from shards.fleet.engines.docker import daemon
from shards.fleet.engines.docker.images import forget_all
from shards.fleet.engines.docker.ownership import OWNER
from shards.fleet.engines.docker.stack import FLEET_LABEL
from tests.fleet.runner import Commands
from tests.swarm.lab import Lab

ENGINES = ("local", "docker", "swarm")

_BASES = {
    "INVOKE_DOCKER_PYTHON_IMAGE": ("local/python:3.11", "python:3.12-slim-bookworm"),
    "INVOKE_DOCKER_REDIS_IMAGE": ("local/redis:7", "redis:7-alpine"),
    "INVOKE_DOCKER_TRAEFIK_IMAGE": ("local/traefik:3.7", "traefik:v3.7"),
}


@functools.cache
def docker_environment() -> dict[str, str] | str:
    """Give the settings by which the docker engine finds base images that are here; or say why there can be none."""
    try:
        client = daemon.connect()
        found = {}
        for variable, names in _BASES.items():
            name = next((name for name in names if client.images.list(name=name)), None)
            if name is None:
                return f"there is no image {' or '.join(names)} here"
            found[variable] = name
        client.close()
    except (ShardsError, DockerException, requests.RequestException) as error:
        return f"no Docker engine: {error}"
    return found


def on_this_host(engine: str) -> str:
    """Give an engine's name, or skip the test where the engine is not here."""
    if engine == "swarm" and not os.environ.get("SHARDS_SWARM"):
        pytest.skip("a swarm of several daemons takes minutes: `nox -s swarm`")
    if engine != "local" and isinstance(lacking := docker_environment(), str):
        if os.environ.get("SHARDS_DOCKER_EXPECTED"):
            pytest.fail(lacking)
        pytest.skip(lacking)
    return engine


def unnamed_volumes(client: docker.DockerClient) -> set[str]:
    """Find the volumes without a name that no container uses."""
    names = [str(volume.name) for volume in client.volumes.list(filters={"dangling": True})]
    return {name for name in names if re.fullmatch("[0-9a-f]{64}", name)}


def is_kept(project: str, volume: str | None) -> bool:
    """Tell whether a volume stays when a fleet is down: its data, and whose that is."""
    name = str(volume).removeprefix(f"{project}_")
    return name != volume and (name == OWNER or name.endswith("_data"))


@dataclass
class DockerCommands(Commands):
    """`inv` for a fleet in Docker."""

    base: dict[str, str] = field(default_factory=dict)
    unnamed: set[str] = field(default_factory=set)
    """Volumes without a name, that nobody uses, from before."""

    def __post_init__(self) -> None:
        self.environment = {"INVOKE_FLEET_ENGINE": "docker", **self.base, **self.environment}
        client = docker.from_env()
        self.unnamed = unnamed_volumes(client)
        client.close()

    def gone(self) -> None:
        """Check that no container, network or volume without a name is left, and no port is taken."""
        super().gone()
        with_label = {"label": f"{FLEET_LABEL}={self.project}"}
        client = docker.from_env()
        try:
            # Such a one has no label either by which it could be told whose it was.
            assert unnamed_volumes(client) <= self.unnamed
            assert client.containers.list(all=True, filters=with_label) == []
            assert client.networks.list(filters=with_label) == []
            kept = {volume.name for volume in client.volumes.list(filters=with_label)}
            assert all(is_kept(self.project, name) for name in kept)
        finally:
            client.close()

    def replicas_of(self, color: str) -> list[str]:
        """Name the containers of a color's replicas, those too that do not run."""
        client = docker.from_env()
        try:
            found = client.containers.list(all=True, filters={"label": f"{FLEET_LABEL}={self.project}"})
            return [str(one.name) for one in found if str(one.name).startswith(f"{self.project}-app_{color}_")]
        finally:
            client.close()

    def forget_images(self) -> None:
        """Remove images of fleets that only Compose has run, which `down --purge` knows nothing of."""
        client = docker.from_env()
        try:
            assert forget_all(client, self.project) == []
        finally:
            client.close()

    def kill(self, part: dict[str, object]) -> None:
        """Kill a part as the kernel does, not as `docker kill` would, after which nothing starts it again."""
        client = docker.from_env()
        try:
            pid = client.containers.get(str(part["container"])).attrs["State"]["Pid"]
            os.kill(pid, signal.SIGKILL)
        except NotFound:
            raise AssertionError(f"{part['container']} is no container") from None
        finally:
            client.close()

    def identity(self, part: dict[str, object]) -> object:
        """Give what changes when a part is started anew."""
        client = docker.from_env()
        try:
            container = client.containers.get(str(part["container"]))
            return container.id, container.attrs["State"]["StartedAt"]
        finally:
            client.close()

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Have somebody else listen on the fleet's port."""
        with socket.create_server(("127.0.0.1", self.port)):
            yield


@dataclass
class SwarmCommands(Commands):
    """`inv` for a fleet in a swarm."""

    lab: Lab = field(kw_only=True)
    base: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.environment = {**self.lab.environment(), **self.base, **self.environment}
        self.host = self.lab.manager.address
        # Nodes that are new build everything from nothing.
        self.within_s = 400

    def gone(self) -> None:
        """Check that no service, secret, configuration, container or volume without a name is left."""
        super().gone()
        with_label = {"label": f"{FLEET_LABEL}={self.project}"}
        with self.lab.manager.daemon() as client:
            api: Any = client.api
            for ask in (api.services, api.secrets):
                assert ask(filters=with_label) == []
            assert {one["Spec"]["Name"] for one in api.configs(filters=with_label)} <= {f"{self.project}_{OWNER}"}
        for node in self.lab.nodes:
            with node.daemon() as client:
                assert client.containers.list(all=True, filters=with_label) == []
                kept = {volume.name for volume in client.volumes.list(filters=with_label)}
                assert all(is_kept(self.project, name) for name in kept)

    def _inspect(self, part: dict[str, object]) -> dict[str, Any]:
        node = next(node for node in self.lab.nodes if node.name == part["node"])
        with node.daemon() as client:
            found: dict[str, Any] = client.containers.get(str(part["container"])).attrs
        return found

    def kill(self, part: dict[str, object]) -> None:
        """Kill a part."""
        os.kill(self._inspect(part)["State"]["Pid"], signal.SIGKILL)

    def identity(self, part: dict[str, object]) -> object:
        """Give what changes when a part is started anew."""
        return part["container"]

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Have somebody else listen on the fleet's port, on one of the nodes."""
        node = self.lab.nodes[1]
        listen = "import socket, time; kept = socket.create_server(('', {})); print(flush=True); time.sleep(600)"
        words = ["nsenter", f"--net=/run/netns/{node.namespace}", sys.executable, "-c", listen.format(self.port)]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as stranger:
            try:
                assert stranger.stdout is not None
                stranger.stdout.readline()
                yield
            finally:
                stranger.kill()


@dataclass
class LocalCommands(Commands):
    """`inv` for a fleet of processes."""

    def kill(self, part: dict[str, object]) -> None:
        """Kill a part."""
        os.kill(int(str(part["pid"])), signal.SIGKILL)

    def identity(self, part: dict[str, object]) -> object:
        """Give what changes when a part is started anew."""
        return part["pid"]

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Have somebody else listen on the fleet's port."""
        with socket.create_server(("127.0.0.1", self.port)):
            yield


AnyCommands = LocalCommands | DockerCommands | SwarmCommands


def fleets(engine: str, directory: Path, port: int, project: str, lab: Lab | None) -> Iterator[AnyCommands]:
    """Give commands for a fleet on an engine; nothing of it is left afterwards."""
    commands: AnyCommands
    if lab is not None:
        base = docker_environment()
        assert isinstance(base, dict)
        commands = SwarmCommands(directory, port, project, base=base, lab=lab)
    elif engine == "docker":
        base = docker_environment()
        assert isinstance(base, dict)
        commands = DockerCommands(directory, port, project, base=base)
    else:
        commands = LocalCommands(directory, port, project)
    yield commands
    commands("down")
    commands.gone()
    commands("down", "--purge")
    if isinstance(commands, DockerCommands):
        commands.forget_images()
