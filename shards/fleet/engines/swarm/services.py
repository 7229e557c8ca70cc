"""Makes, finds and removes the services of a fleet, their secrets and configurations, and the volumes on the nodes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container

from shards.errors import ShardsError
from shards.fleet.engines.docker import ownership
from shards.fleet.engines.docker.daemon import errors, not_all, reason_of
from shards.fleet.engines.docker.stack import FLEET_LABEL, HANDOFF_VOLUME, SERVICE_LABEL
from shards.fleet.engines.swarm import stack
from shards.fleet.engines.swarm.daemons import Daemons, Task
from shards.fleet.engines.swarm.stack import Service

_KINDS_IN_ORDER = ("app_", "traefik_", "route", "shared-", "redis_")
"""How a fleet is stopped: replicas say goodbye to clients through the edges, and to the control Redis."""

_GONE_S = 60.0
_ENDED = {"complete", "shutdown", "failed", "rejected", "orphaned", "remove"}


class Services:
    """The services of one fleet.

    Args:
        daemons: of the swarm.
        project: the fleet's name.
        mark: by which what is of the fleet is told from what is of another one of the same name.
    """

    def __init__(self, daemons: Daemons, project: str, mark: str) -> None:
        self._daemons, self.project, self._mark = daemons, project, mark
        self._claim = ownership.Claim(mark, self._owner)

    @property
    def _api(self) -> Any:
        # Its types know nothing of swarms.
        return self._daemons.manager.api

    @property
    def _called_so(self) -> dict[str, str | list[str] | bool]:
        """What a daemon is asked for: whatever belongs to a fleet of this name."""
        return {"label": f"{FLEET_LABEL}={self.project}"}

    @property
    def _labels(self) -> dict[str, str]:
        """What a secret or a configuration carries."""
        return {FLEET_LABEL: self.project, ownership.MARK_LABEL: self._mark}

    def _owners(self) -> list[Mapping[str, Any]]:
        """Find the configuration that carries the mark beside the data."""
        name = stack.full_name(self.project, ownership.OWNER)
        with errors():
            found: list[Mapping[str, Any]] = self._api.configs(filters=self._called_so)
        return [one for one in found if one["Spec"]["Name"] == name]

    def _owner(self) -> str:
        """Read the mark beside the data; empty: there is none."""
        return next((ownership.mark_on(_labels_of(one)) for one in self._owners()), "")

    # -- what there is

    def _asked(self, ask: Callable[..., list[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
        """Ask the manager for services, secrets or configurations of the fleet."""
        with errors():
            found = ask(filters=self._called_so)
        return self._claim.among(found, _labels_of)

    def found(self) -> dict[str, Mapping[str, Any]]:
        """Find the services of the fleet, by their names in it."""
        services = self._asked(self._api.services)
        return {one["Spec"]["Labels"].get(SERVICE_LABEL, one["Spec"]["Name"]): one for one in services}

    def marks(self) -> set[str]:
        """Give the marks of all that belongs to a fleet of this name, as far as the nodes' daemons answer."""
        with errors():
            asks = (self._api.services, self._api.secrets, self._api.configs)
            labels = [_labels_of(one) for ask in asks for one in ask(filters=self._called_so)]
        for volumes in self._daemons.each(lambda client: client.volumes.list(filters=self._called_so)):
            labels += map(ownership.labels_of, volumes)
        return {ownership.mark_on(one) for one in labels}

    def are_deployed_by_hand(self) -> bool:
        """Tell whether `docker stack deploy` has made services of this name, which no command of ours keeps."""
        return any(not ownership.mark_on(_labels_of(one)) for one in self.found().values())

    def kept(self) -> dict[str, str]:
        """Give the nodes, by their ids, that have the data of parts; by the parts' names.

        Raises:
            ShardsError: a node that was reached does not answer.
        """
        prefix, suffix = stack.full_name(self.project, ""), "_data"
        found: dict[str, str] = {}
        self._daemons.refuse_silence()
        for node, client in self._daemons.by_node.items():
            with errors(), self._daemons.heeding(node):
                names = [str(volume.name) for volume in self._volumes(client)]
            parts = [name for name in names if name.startswith(prefix) and name.endswith(suffix)]
            found |= {name[len(prefix) : -len(suffix)]: node for name in parts}
        return found

    def _volumes(self, client: docker.DockerClient) -> list[Any]:
        found = client.volumes.list(filters=self._called_so)
        return self._claim.among(found, ownership.labels_of)

    def tasks(self) -> dict[str, Task]:
        """Give the newest task of each service that shall run, by the service's name in the fleet."""
        names = {one["ID"]: name for name, one in self.found().items()}
        newest: dict[str, Task] = {}
        for task in self._tasks(names):
            name = names[task["ServiceID"]]
            if name not in newest or task["CreatedAt"] > newest[name]["CreatedAt"]:
                newest[name] = task
        return newest

    def _tasks(self, services: Collection[str]) -> list[Task]:
        with errors():
            return [task for task in self._api.tasks() if task["ServiceID"] in services]

    def containers(self) -> dict[str, Container]:
        """Give the newest container of each service of one task, as far as the nodes' daemons answer."""
        found: dict[str, Container] = {}
        for containers in self._daemons.each(self._containers):
            for one in containers:
                name = one.labels.get(SERVICE_LABEL, "")
                if name not in found or one.attrs["Created"] > found[name].attrs["Created"]:
                    found[name] = one
        return found

    def _containers(self, client: docker.DockerClient) -> list[Container]:
        found = client.containers.list(all=True, filters=self._called_so, ignore_removed=True)
        return self._claim.among(found, lambda container: container.labels)

    def are_known(self) -> bool:
        """Tell whether the swarm keeps the fleet: its secrets are there."""
        return bool(self._asked(self._api.secrets))

    def ports_of_others(self) -> set[int]:
        """Give the ports that other fleets of the swarm have on the nodes."""
        with errors():
            services = self._api.services(filters={"label": FLEET_LABEL})
        labels = [one["Spec"]["Labels"] for one in services]
        return {
            int(one[stack.PORT_LABEL])
            for one in labels
            if one.get(FLEET_LABEL) != self.project and one.get(stack.PORT_LABEL, "").isdigit()
        }

    # -- making

    def claim(self) -> None:
        """Have the fleet's mark beside its data: volumes that were there before have none, and never get one."""
        if self._owner() != self._mark:
            # Of this fleet too, from before its directory was moved.
            self._disclaim()
            with errors():
                name = stack.full_name(self.project, ownership.OWNER)
                self._api.create_config(name, self._mark.encode(), labels=self._labels)

    def _disclaim(self) -> None:
        for one in self._claim.among(self._owners(), _labels_of):
            with errors(), contextlib.suppress(NotFound):
                self._api.remove_config(one["ID"])

    def write(self, secrets: Mapping[str, str], configs: Mapping[str, str]) -> dict[str, str]:
        """Have secrets and configurations in the swarm.

        Args:
            secrets: their texts, by their names in the fleet.
            configs: the same.

        Returns:
            Their ids, by name.
        """
        told = (*self._asked(self._api.secrets), *self._asked(self._api.configs))
        known = {one["Spec"]["Name"]: one["ID"] for one in told}
        found = {}
        with errors():
            for texts, create in ((secrets, self._api.create_secret), (configs, self._api.create_config)):
                for name, text in texts.items():
                    full = stack.full_name(self.project, name)
                    if full not in known:
                        known[full] = create(full, text.encode(), labels=self._labels)["ID"]
                    found[name] = known[full]
        return found

    def run(self, service: Service, template: Mapping[str, Any]) -> None:
        """Have a service run: make it where there is none, or where it is on another node."""
        known = self.found().get(service.name)
        if known and known["Spec"]["Labels"].get(stack.NODE_LABEL, "") != service.node:
            self.remove([service.name])
            known = None
        if known is None:
            with errors():
                self._api.create_service(
                    stack.marked(template, self._mark),
                    name=stack.full_name(self.project, service.name),
                    labels={**stack.labels(self.project, service), ownership.MARK_LABEL: self._mark},
                    mode=stack.mode(service),
                    update_config=stack.UPDATE,
                )

    # -- removing

    def remove(self, names: Collection[str]) -> None:
        """Remove services, all at once; returns when no task of theirs is left on a node that answers.

        Raises:
            ShardsError: one does not end.
        """
        found = self.found()
        going = {found[name]["ID"]: name for name in names if name in found}
        with errors():
            for id in going:
                with contextlib.suppress(NotFound):
                    self._api.remove_service(id)
        end = time.monotonic() + _GONE_S
        while left := self._left(going):
            if time.monotonic() > end:
                raise ShardsError(
                    f"{', '.join(sorted(left))} did not stop within {_GONE_S:.0f} s: see `docker node ls`"
                )
            time.sleep(0.2)

    def _left(self, going: Mapping[str, str]) -> set[str]:
        if not going:
            return set()
        answering = {node.id for node in self._daemons.nodes() if node.answers}
        return {
            going[task["ServiceID"]]
            for task in self._tasks(going)
            if task.get("NodeID") in answering and task["Status"]["State"] not in _ENDED
        }

    def remove_all(self) -> bool:
        """Remove the fleet's services, what they were told, and the volume that only matters while it runs.

        Returns:
            Whether there was anything.
        """
        names = list(self.found())
        for kind in _KINDS_IN_ORDER:
            self.remove([name for name in names if name.startswith(kind)])
        self.remove(list(self.found()))
        known = self.are_known()
        secrets, configs = self._asked(self._api.secrets), self._asked(self._api.configs)
        # Whose the data is outlives the fleet, as the data does.
        owner = stack.full_name(self.project, ownership.OWNER)
        configs = [config for config in configs if config["Spec"]["Name"] != owner]
        with errors():
            for secret in secrets:
                self._api.remove_secret(secret["ID"])
            for config in configs:
                self._api.remove_config(config["ID"])
        self._daemons.each(self._sweep)
        self.remove_volumes([HANDOFF_VOLUME])
        return bool(names) or known

    def _sweep(self, client: docker.DockerClient) -> None:
        """Remove what is left of tasks on a node: the swarm keeps their containers for a while."""
        for container in self._containers(client):
            with contextlib.suppress(NotFound, APIError):
                container.remove(v=True, force=True)

    def remove_volumes(self, names: Iterable[str]) -> None:
        """Delete volumes, by their short names, on every node that answers."""
        going = {stack.full_name(self.project, name) for name in names}

        def remove(client: docker.DockerClient) -> None:
            for volume in self._volumes(client):
                if volume.name in going:
                    with contextlib.suppress(NotFound):
                        volume.remove()

        self._daemons.each(remove)

    def remove_data(self) -> None:
        """Delete the fleet's data, which is in volumes, on every node that answers.

        Raises:
            ShardsError: some of it is still there.
        """

        def remove(client: docker.DockerClient) -> list[str]:
            left = []
            for volume in self._volumes(client):
                try:
                    volume.remove()
                except NotFound:
                    continue
                except APIError as error:
                    left.append(reason_of(error))
            return left

        if left := [one for each in self._daemons.each(remove) for one in each]:
            raise ShardsError(not_all("volumes", left))
        # Whose it was goes last: until then somebody may be stopped, and run this again.
        self._disclaim()


def _labels_of(one: Mapping[str, Any]) -> Mapping[str, str] | None:
    """Give the labels of a service, a secret or a configuration."""
    found: Mapping[str, str] | None = one["Spec"].get("Labels")
    return found


def image_of(service: Mapping[str, Any]) -> str:
    """Say which image a service runs, as it names it."""
    return str(service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"])
