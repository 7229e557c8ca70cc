"""Makes, finds and removes the containers of a fleet, its network and its volumes."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.types import LogConfig, Ulimit

from shards.errors import ShardsError
from shards.fleet.engines.docker import ownership, stack
from shards.fleet.engines.docker.daemon import errors, not_all
from shards.fleet.engines.docker.images import forget_all
from shards.fleet.engines.docker.stack import Service

_LOG = LogConfig(type=stack.LOG_DRIVER, config=stack.LOG_FILES)

_KEPT_NAME = "default"
"""Beside the networks that every daemon has, it lets none be called so."""

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
        mark: by which the fleet's containers are told from those of another one of the same name.
    """

    def __init__(self, client: docker.DockerClient, project: str, directory: Path, mark: str) -> None:
        self._client, self.project, self._directory, self._mark = client, project, directory, mark
        self._claim = ownership.Claim(mark, self._owner)
        # Containers without a mark run by Compose's word, and come and go without the data: they are anybody's.
        self._claim_of_what_runs = ownership.Claim(mark, lambda: "")

    @property
    def _called_so(self) -> dict[str, str | list[str] | bool]:
        """What the daemon is asked for: whatever belongs to a fleet of this name."""
        return {"label": f"{stack.FLEET_LABEL}={self.project}"}

    @property
    def _labels(self) -> dict[str, str]:
        """What a network or a volume carries."""
        return {stack.FLEET_LABEL: self.project, ownership.MARK_LABEL: self._mark}

    def _owner(self) -> str:
        """Read the mark beside the data; empty: there is none."""
        with errors():
            try:
                return ownership.mark_on(ownership.labels_of(self._client.volumes.get(self.volume(ownership.OWNER))))
            except NotFound:
                return ""

    # -- what there is

    def found(self) -> dict[str, Container]:
        """Find all containers of the fleet, those that do not run as well, by their services' names."""
        with errors():
            found = self._client.containers.list(all=True, filters=self._called_so, ignore_removed=True)
        ours = self._claim_of_what_runs.among(found, lambda container: container.labels)
        return {container.labels.get(stack.SERVICE_LABEL) or str(container.name): container for container in ours}

    def has_network(self) -> bool:
        """Tell whether the fleet's network is there."""
        return bool(self._networks())

    def _networks(self) -> list[Any]:
        with errors():
            found = self._client.networks.list(filters=self._called_so)
        return self._claim_of_what_runs.among(found, ownership.labels_of)

    def is_network_anothers(self) -> bool:
        """Tell whether a network of the fleet's name is of no fleet of this name, but Docker's own or a stranger's."""
        if self.project == _KEPT_NAME:
            return True
        with errors():
            # Those whose names only begin so come along.
            found = [one for one in self._client.networks.list(names=[self.project]) if one.name == self.project]
        return any((ownership.labels_of(one) or {}).get(stack.FLEET_LABEL) != self.project for one in found)

    def _volumes(self) -> list[Any]:
        with errors():
            found = self._client.volumes.list(filters=self._called_so)
        return self._claim.among(found, ownership.labels_of)

    def kept(self) -> set[str]:
        """Name the parts that there is data of."""
        prefix, suffix = self.volume(""), "_data"
        names = [str(volume.name) for volume in self._volumes()]
        return {name[len(prefix) : -len(suffix)] for name in names if name.startswith(prefix) and name.endswith(suffix)}

    def marks(self) -> set[str]:
        """Give the marks of all that belongs to a fleet of this name."""
        with errors():
            containers = self._client.containers.list(all=True, filters=self._called_so, ignore_removed=True)
            networks = self._client.networks.list(filters=self._called_so)
            volumes = self._client.volumes.list(filters=self._called_so)
        labels = [one.labels for one in containers] + [ownership.labels_of(one) for one in (*networks, *volumes)]
        return {ownership.mark_on(one) for one in labels}

    # -- making

    def claim(self) -> None:
        """Have the fleet's mark beside its data: volumes that were there before have none, and never get one."""
        known = self._owner()
        if known == self._mark:
            return
        with errors():
            if known:
                # Of this fleet too, from before its directory was moved.
                self._client.volumes.get(self.volume(ownership.OWNER)).remove()
            self._client.volumes.create(self.volume(ownership.OWNER), labels=self._labels)

    def make_network(self) -> None:
        """Make the network, in which parts find one another by name."""
        if not self.has_network():
            with errors():
                self._client.networks.create(self.project, driver="bridge", labels=self._labels, check_duplicate=True)

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
            container.remove(force=True, v=True)
            raise

    def _make(self, service: Service, host: Host) -> Container:
        for mount in service.mounts:
            if mount.is_volume:
                self._client.volumes.create(self.volume(mount.source), labels=self._labels)
        api: Any = self._client.api
        made = api.create_container(
            service.image,
            name=stack.container_name(self.project, service.name),
            command=list(service.command) or None,
            environment=dict(service.environment),
            labels={**stack.labels(self.project, service), ownership.MARK_LABEL: self._mark},
            ports=[one.inner for one in service.publish],
            host_config=api.create_host_config(**self._host_config(service, host)),
            networking_config=None if service.namespace else self._network(service.name),
            # Redis's image would have a check of its own where only a network is held.
            healthcheck={"test": ["NONE"]} if service.kind == "pause" else None,
            stop_signal="SIGTERM",
            stop_timeout=service.stop_s,
        )
        return self._client.containers.get(made["Id"])

    def _host_config(self, service: Service, host: Host) -> dict[str, Any]:
        found: dict[str, Any] = {
            "binds": [self._bind(mount) for mount in service.mounts],
            "restart_policy": {"Name": "unless-stopped"},
            "init": True,
            "ulimits": [Ulimit(name="nofile", soft=host.nofile, hard=host.nofile)],
            "log_config": _LOG,
        }
        if service.kind == "pause":
            # Redis's image would have a volume without a name there.
            found["tmpfs"] = {"/data": "size=64k"}
        if service.limits:
            found |= {
                "mem_limit": service.limits.memory_bytes,
                # Swap would only hide that it takes too much.
                "memswap_limit": service.limits.memory_bytes,
                "nano_cpus": int(min(service.limits.cpus, host.cpus) * 1e9),
            }
        if service.namespace:
            return {**found, "network_mode": f"container:{self._namespace(service.namespace)}"}
        ports = {one.inner: (one.host, one.port) for one in service.publish}
        return {**found, "network_mode": self.project, "sysctls": dict(service.sysctls), "port_bindings": ports}

    def _network(self, name: str) -> Mapping[str, Any]:
        api: Any = self._client.api
        endpoints: dict[str, Any] = {self.project: api.create_endpoint_config(aliases=[name])}
        network: Mapping[str, Any] = api.create_networking_config(endpoints)
        return network

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

    def remove(self, services: Collection[str]) -> None:
        """Stop containers, all at once, and remove them with what has no name.

        Each may take as long as it was made to (`Service.stop_s`), until it is killed.

        Args:
            services: which; those that are not there are no matter.
        """
        found = self.found()
        going = [found[name] for name in services if name in found]
        if not going:
            return
        with ThreadPoolExecutor(len(going)) as pool:
            list(pool.map(_end, going))

    def remove_all(self) -> bool:
        """Remove the fleet's containers, its network, and the volume that only matters while it runs.

        Returns:
            Whether there was anything.
        """
        names = self.found()
        for kind in _KINDS_IN_ORDER:
            self.remove([name for name in names if name.startswith(kind)])
        # Whatever else carries the fleet's label.
        self.remove(self.found())
        networks = self._networks()
        with errors():
            for network in networks:
                with contextlib.suppress(NotFound):
                    network.remove()
        self.remove_volumes([stack.HANDOFF_VOLUME])
        return bool(names or networks)

    def remove_volumes(self, names: Collection[str]) -> None:
        """Delete volumes, by their short names; those that are not there are no matter."""
        going = {self.volume(name) for name in names}
        self._remove([volume for volume in self._volumes() if volume.name in going])

    def _remove(self, volumes: Iterable[Any]) -> None:
        with errors():
            for volume in volumes:
                with contextlib.suppress(NotFound):
                    volume.remove()

    def remove_everything_kept(self) -> None:
        """Delete the fleet's data, which is in volumes, and its images.

        Raises:
            ShardsError: some of it is still there.
        """
        # Whose it is goes last: until then somebody may be stopped, and run this again.
        owner = self.volume(ownership.OWNER)
        self._remove(sorted(self._volumes(), key=lambda volume: volume.name == owner))
        # Images have names only: those of another fleet of this name are the same.
        if any(ownership.is_anothers(mark, self._mark) for mark in self.marks()):
            return
        with errors():
            left = forget_all(self._client, self.project)
        if left:
            raise ShardsError(not_all("images", left))


def _end(container: Container) -> None:
    with errors(), contextlib.suppress(NotFound):
        container.stop()
        try:
            container.remove(v=True, force=True)
        except APIError as error:
            # Somebody else removes it already.
            if error.status_code != 409:
                raise
