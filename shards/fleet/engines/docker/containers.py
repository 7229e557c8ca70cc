"""Makes, finds and removes the containers of a fleet, its network and its volumes."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.types import LogConfig, Ulimit

from shards.errors import ShardsError
from shards.fleet.engines.docker import stack
from shards.fleet.engines.docker.daemon import errors
from shards.fleet.engines.docker.stack import Service

_LOG = LogConfig(type=LogConfig.types.JSON, config={"max-size": "10m", "max-file": "3"})

_KINDS_IN_ORDER = ("app_", "traefik_", "pause_edge", "shared-", "redis_", "pause_")
"""How a fleet is stopped: replicas say goodbye to clients through the edges, and to the control Redis."""


@dataclass(frozen=True)
class Host:
    """What the daemon's host can give a container.

    Attributes:
        nofile: files it may open.
        cpus: cores there are.
    """

    nofile: int
    cpus: float


class Containers:
    """The containers of one fleet.

    Args:
        client: of the daemon.
        project: the fleet's name.
        directory: of the files that they mount.
    """

    def __init__(self, client: docker.DockerClient, project: str, directory: Path) -> None:
        self._client, self.project, self._directory = client, project, directory

    # -- what there is

    def found(self) -> dict[str, Container]:
        """Find all containers of the fleet, those that do not run as well, by their services' names."""
        with errors():
            label = f"{stack.FLEET_LABEL}={self.project}"
            found = self._client.containers.list(all=True, filters={"label": label}, ignore_removed=True)
        return {container.labels.get(stack.SERVICE_LABEL) or str(container.name): container for container in found}

    def has_network(self) -> bool:
        """Tell whether the fleet's network is there."""
        return bool(self._networks())

    def _networks(self) -> list[Any]:
        with errors():
            return list(self._client.networks.list(filters={"label": f"{stack.FLEET_LABEL}={self.project}"}))

    # -- making

    def make_network(self) -> None:
        """Make the network, in which parts find one another by name."""
        if not self.has_network():
            with errors():
                self._client.networks.create(
                    self.project, driver="bridge", labels={stack.FLEET_LABEL: self.project}, check_duplicate=True
                )

    def run(self, service: Service, host: Host) -> None:
        """Have a service run: make its container where there is none, start it where it is stopped."""
        container = self.found().get(service.name)
        with errors():
            if container is None:
                container = self._make(service, host)
            if container.status != "running":
                self._start(container)

    def _start(self, container: Container) -> None:
        try:
            container.start()
        except APIError:
            # One that can't be started is of no use: the next try makes it anew.
            container.remove(force=True)
            raise

    def _make(self, service: Service, host: Host) -> Container:
        for mount in service.mounts:
            if mount.is_volume:
                self._client.volumes.create(self.volume(mount.source), labels={stack.FLEET_LABEL: self.project})
        arguments: dict[str, Any] = {
            "name": stack.container_name(self.project, service.name),
            "command": list(service.command) or None,
            "environment": dict(service.environment),
            "labels": stack.labels(self.project, service),
            "volumes": [self._bind(mount) for mount in service.mounts],
            "restart_policy": {"Name": "unless-stopped"},
            "init": True,
            "ulimits": [Ulimit(name="nofile", soft=host.nofile, hard=host.nofile)],
            "log_config": _LOG,
            "stop_signal": "SIGTERM",
        }
        if service.kind == "pause":
            # Redis's image would have a volume without a name there.
            arguments |= {"tmpfs": {"/data": "size=64k"}, "healthcheck": {"test": ["NONE"]}}
        if service.limits:
            arguments |= {
                "mem_limit": service.limits.memory_bytes,
                # Swap would only hide that it takes too much.
                "memswap_limit": service.limits.memory_bytes,
                "nano_cpus": int(min(service.limits.cpus, host.cpus) * 1e9),
            }
        if service.namespace:
            arguments["network_mode"] = f"container:{self._namespace(service.namespace)}"
        else:
            arguments["sysctls"] = dict(service.sysctls)
            arguments["ports"] = {f"{one.inner}/tcp": (one.host, one.port) for one in service.publish}
            arguments["networking_config"] = self._network(service.name)
            arguments["network"] = self.project
        return self._client.containers.create(service.image, **arguments)

    def _network(self, name: str) -> Mapping[str, Any]:
        return {self.project: self._client.api.create_endpoint_config(aliases=[name])}

    def _namespace(self, service: str) -> str:
        holder = self.found().get(service)
        if holder is None or holder.id is None:
            raise ShardsError(f"the container {stack.container_name(self.project, service)} is gone: `inv up` makes it")
        return str(holder.id)

    def _bind(self, mount: stack.Mount) -> str:
        if mount.is_volume:
            return f"{self.volume(mount.source)}:{mount.target}"
        return f"{(self._directory / mount.source).resolve()}:{mount.target}:ro"

    def volume(self, name: str) -> str:
        """Name a volume of the fleet."""
        return f"{self.project}_{name}"

    # -- removing

    def remove(self, services: Collection[str], stop_s: Mapping[str, int]) -> None:
        """Stop containers, all at once, and remove them with what has no name.

        Args:
            services: which; those that are not there are no matter.
            stop_s: how long each may take until it is killed, in seconds; 10 where nothing is said.
        """
        found = self.found()
        going = [(name, found[name]) for name in services if name in found]
        if not going:
            return
        with ThreadPoolExecutor(len(going)) as pool:
            list(pool.map(lambda one: _end(one[1], stop_s.get(one[0], 10)), going))

    def remove_all(self) -> bool:
        """Remove the fleet's containers, its network, and the volume that only matters while it runs.

        Returns:
            Whether there was anything.
        """
        names = self.found()
        for kind in _KINDS_IN_ORDER:
            self.remove([name for name in names if name.startswith(kind)], {})
        # Whatever else carries the fleet's label.
        self.remove(self.found(), {})
        networks = self._networks()
        with errors():
            for network in networks:
                with contextlib.suppress(NotFound):
                    network.remove()
        self.remove_volumes([stack.HANDOFF_VOLUME])
        return bool(names or networks)

    def remove_volumes(self, names: Collection[str]) -> None:
        """Delete volumes, by their short names; those that are not there are no matter."""
        with errors():
            for name in names:
                with contextlib.suppress(NotFound):
                    self._client.volumes.get(self.volume(name)).remove()

    def remove_everything_kept(self) -> None:
        """Delete the fleet's data, which is in volumes, and its images."""
        with errors():
            ours = {"label": f"{stack.FLEET_LABEL}={self.project}"}
            for volume in self._client.volumes.list(filters=ours):
                volume.remove()
            images = self._client.images.list(filters=ours)
            for image in images:
                for tag in image.tags:
                    self._client.images.remove(tag, force=True)


def _end(container: Container, stop_s: int) -> None:
    with errors(), contextlib.suppress(NotFound):
        container.stop(timeout=stop_s)
        try:
            container.remove(v=True, force=True)
        except APIError as error:
            # Somebody else removes it already.
            if error.status_code != 409:
                raise
