"""Fleets of one name in one swarm, kept from two directories: each makes, sees and removes what carries its mark."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from docker.errors import NotFound

from shards.errors import ShardsError
from shards.fleet.engines.docker.options import DockerOptions
from shards.fleet.engines.docker.ownership import MARK_LABEL, mark_of
from shards.fleet.engines.docker.stack import FLEET_LABEL
from shards.fleet.engines.swarm import stack
from shards.fleet.engines.swarm.daemons import Daemons
from shards.fleet.engines.swarm.engine import SwarmEngine
from shards.fleet.engines.swarm.nodes import Node
from shards.fleet.engines.swarm.services import Services
from shards.fleet.engines.swarm.stack import Service
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetDir

OURS, THEIRS = mark_of("a1", Path("/a"), "here"), mark_of("b2", Path("/b"), "there")
REPLICA = Service("app_blue_0", "blue-0", "app", "image", "n1", volumes={"blue-0_data": "/data"})


class Volume:
    def __init__(self, name: str, labels: dict[str, str], removed: Callable[[Volume], None]) -> None:
        self.name, self.attrs, self._removed = name, {"Labels": labels}, removed

    def remove(self) -> None:
        self._removed(self)


class FakeManager:
    """A swarm of one node: services, secrets, configurations and volumes, all found by a label; it is its own `api`.

    Two things of one name may be there, which a swarm would refuse: that is how what is left is told apart.
    """

    def __init__(self) -> None:
        self.api = self.volumes = self.containers = self
        self.kinds: dict[str, dict[str, dict[str, Any]]] = {"service": {}, "secret": {}, "config": {}}
        self.kept: list[Volume] = []
        self._ids = map(str, itertools.count())

    def _make(self, kind: str, name: str, labels: dict[str, str], **more: Any) -> dict[str, Any]:
        one = {"ID": next(self._ids), "Spec": {"Name": name, "Labels": labels, **more}}
        self.kinds[kind][one["ID"]] = one
        return one

    def _found(self, kind: str, filters: dict[str, str]) -> list[dict[str, Any]]:
        name, _, value = filters["label"].partition("=")
        return [one for one in self.kinds[kind].values() if one["Spec"]["Labels"].get(name) == value]

    def services(self, filters: dict[str, str]) -> list[dict[str, Any]]:
        return self._found("service", filters)

    def secrets(self, filters: dict[str, str]) -> list[dict[str, Any]]:
        return self._found("secret", filters)

    def configs(self, filters: dict[str, str]) -> list[dict[str, Any]]:
        return self._found("config", filters)

    def create_service(self, template: dict[str, Any], name: str, labels: dict[str, str], **_: Any) -> None:
        self._make("service", name, labels, TaskTemplate=template)
        for mount in template["ContainerSpec"]["Mounts"]:
            self.kept.append(Volume(mount["Source"], mount["VolumeOptions"]["Labels"], self.kept.remove))

    def create_secret(self, name: str, data: bytes, labels: dict[str, str]) -> dict[str, Any]:
        return self._make("secret", name, labels)

    def create_config(self, name: str, data: bytes, labels: dict[str, str]) -> dict[str, Any]:
        return self._make("config", name, labels)

    def remove_service(self, id: str) -> None:
        del self.kinds["service"][id]

    def remove_secret(self, id: str) -> None:
        del self.kinds["secret"][id]

    def remove_config(self, id: str) -> None:
        del self.kinds["config"][id]

    def tasks(self) -> list[dict[str, Any]]:
        return []

    def list(self, filters: dict[str, str], **of_containers: bool) -> list[Volume]:
        return [] if of_containers else list(self.kept)

    def get(self, name: str) -> Volume:
        for one in self.kept:
            if one.name == name:
                return one
        raise NotFound(f"no such volume: {name}")

    @property
    def marks(self) -> dict[str, list[str]]:
        """Whose each thing is, by its kind."""
        found = {
            kind: [one["Spec"]["Labels"].get(MARK_LABEL, "") for one in there.values()]
            for kind, there in self.kinds.items()
        }
        return {**found, "volume": [one.attrs["Labels"].get(MARK_LABEL, "") for one in self.kept]}


@pytest.fixture
def manager() -> FakeManager:
    return FakeManager()


def daemons(manager: FakeManager) -> Daemons:
    made = Daemons([])
    nodes = [Node("id1", "n1", "10.0.0.1", True, True, True, 2)]
    vars(made).update(_manager=manager, _opened={"id1": manager}, nodes=lambda: nodes)
    return made


def begun(manager: FakeManager, mark: str) -> Services:
    """A fleet of that mark, with a replica, a secret and a configuration."""
    made = Services(daemons(manager), "t", mark)
    made.write({f"secret-{mark}": "a"}, {f"config-{mark}": "b"})
    made.run(REPLICA, stack.task_template("t", REPLICA, "image", {}, 1024, 2))
    return made


def one_of_each(mark: str) -> dict[str, list[str]]:
    return {kind: [mark] for kind in ("service", "secret", "config", "volume")}


def test_all_that_a_fleet_makes_carries_its_mark(manager: FakeManager) -> None:
    ours = begun(manager, OURS)
    assert manager.marks == one_of_each(OURS)
    task = ours.found()["app_blue_0"]["Spec"]["TaskTemplate"]["ContainerSpec"]
    assert (task["Labels"][MARK_LABEL], task["Labels"][FLEET_LABEL]) == (OURS, "t"), "so do its containers"


def test_a_fleet_that_goes_leaves_another_of_its_name_alone(manager: FakeManager) -> None:
    theirs = begun(manager, THEIRS)
    ours = begun(manager, OURS)
    assert {THEIRS, OURS} <= ours.marks()
    assert ours.remove_all()
    assert not (ours.found() or ours.are_known())
    ours.remove_volumes(["blue-0_data"])
    ours.remove_data()
    assert manager.marks == one_of_each(THEIRS)
    assert set(theirs.found()) == {"app_blue_0"}
    assert theirs.are_known()
    assert theirs.kept() == {"blue-0": "id1"}


def test_a_fleet_that_another_directory_keeps_is_refused_up_and_down(manager: FakeManager, tmp_path: Path) -> None:
    theirs = begun(manager, THEIRS)
    directory = FleetDir(tmp_path, "t")
    directory.create()
    spec = FleetSpec("t", "swarm", app_dir=str(tmp_path))
    engine = SwarmEngine(spec, directory, DockerOptions(Path()), daemons(manager), print)
    for _ in ("up", "down"):
        with pytest.raises(ShardsError, match="there is a fleet t already, kept in /b"):
            engine.check(port_is_ours=True)
        theirs.remove_all()
    theirs.remove_data()
    engine.check(port_is_ours=True)
