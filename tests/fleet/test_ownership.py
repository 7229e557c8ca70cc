"""Fleets of one name, kept from several directories: what is another's is left alone."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError, NotFound

from shards.errors import ShardsError, UsageError
from shards.fleet import reconcile
from shards.fleet.engines.base import Engine
from shards.fleet.engines.docker import by_hand
from shards.fleet.engines.docker.containers import Containers
from shards.fleet.engines.docker.images import forget_all
from shards.fleet.engines.docker.ownership import MARK_LABEL, Claim, is_anothers, left_alone, mark_of, nobodys, refusal
from shards.fleet.engines.docker.stack import FLEET_LABEL, WHEELS_LABEL
from shards.fleet.engines.swarm.services import Services
from shards.fleet.fleet import Fleet
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetDir, FleetState, Place

OURS = mark_of("a1", Path("/a/.fleet/p"), "here")
ANOTHERS = mark_of("b2", Path("/b/.fleet/p"), "there")
NOBODYS = mark_of("", Path("/b/.fleet/p"), "there")


@pytest.mark.parametrize(
    ("found", "anothers"),
    [
        ("", False),
        (OURS, False),
        (mark_of("a1", Path("/moved/.fleet/p"), "renamed"), False),
        (ANOTHERS, True),
        (mark_of("b2", Path("/a/.fleet/p"), "here"), True),
        (NOBODYS, False),
    ],
    ids=[
        "no mark",
        "ours",
        "ours, from before it was moved",
        "another's",
        "another's that was kept here before",
        "of a directory without an id",
    ],
)
def test_whose_something_is(found: str, anothers: bool) -> None:
    assert is_anothers(found, OURS) is anothers


def test_who_has_no_id_has_nothing_that_is_marked() -> None:
    assert is_anothers(OURS, mark_of("", Path("/a/.fleet/p"), "here"))


def test_a_fleet_that_is_anothers_is_told_with_where_it_is_kept() -> None:
    file = Path("/a/.fleet/p/id")
    assert refusal("p", ["", OURS], OURS, file) is None
    said = refusal("p", ["", OURS, ANOTHERS], OURS, file)
    assert said is not None
    assert "kept in /b/.fleet/p on host there: run its commands from there" in said
    assert "`mkdir -p /a/.fleet/p && echo b2 > /a/.fleet/p/id`" in said


def test_a_directory_that_has_lost_its_id_is_told_how_to_have_it_again() -> None:
    file, now = Path("/a/.fleet/p/id"), mark_of("new", Path("/a/.fleet/p"), "here")
    said = refusal("p", [OURS], now, file)
    assert said is not None
    assert said.startswith("fleet p is this directory's, which has lost its id: ")
    assert "`mkdir -p /a/.fleet/p && echo a1 > /a/.fleet/p/id` gives it back" in said
    assert "run its commands from there" not in said
    # Of the same path on another host nothing is known.
    said = refusal("p", [mark_of("a1", Path("/a/.fleet/p"), "there")], now, file)
    assert said is not None
    assert "run its commands from there" in said
    left = left_alone("p", [OURS, ANOTHERS], now, file)
    assert "kept in /b/.fleet/p on host there is left alone" in left
    assert "`mkdir -p /a/.fleet/p && echo a1 > /a/.fleet/p/id`" in left
    assert left_alone("p", [OURS], now, file).startswith("what Docker has of fleet p under an id that this directory")


def test_what_is_left_alone_is_told_in_one_line() -> None:
    file = Path("id")
    assert left_alone("p", ["", OURS], OURS, file) == ""
    said = left_alone("p", ["", OURS, ANOTHERS, mark_of("c3", Path("/c"), "there")], OURS, file)
    assert (
        said == "what Docker has of a fleet p that is kept in /b/.fleet/p on host there, /c on host there is left alone"
    )


def test_what_has_no_mark_is_whose_the_data_is_and_nobody_is_asked_for_nothing() -> None:
    asked = []

    def beside_data(mark: str) -> str:
        asked.append(mark)
        return mark

    marked = [{MARK_LABEL: OURS}, {MARK_LABEL: ANOTHERS}]
    unmarked: list[Any] = [None, {"other": "label"}, {MARK_LABEL: NOBODYS}]
    assert Claim(OURS, lambda: beside_data("")).among(marked, lambda one: one) == marked[:1]
    assert asked == []
    assert Claim(OURS, lambda: beside_data("")).among(unmarked, lambda one: one) == unmarked
    assert Claim(OURS, lambda: beside_data(OURS)).among(unmarked, lambda one: one) == unmarked
    assert Claim(OURS, lambda: beside_data(ANOTHERS)).among(unmarked, lambda one: one) == []
    assert len(asked) == 3, "once for all of them"


def test_a_fleet_keeps_its_id_and_takes_it_along(tmp_path: Path) -> None:
    first, second = FleetDir(tmp_path / "a", "p"), FleetDir(tmp_path / "b", "p")
    assert first.id() == ""
    for directory in (first, second, first):
        directory.create()
    assert first.id() not in ("", second.id())
    moved = FleetDir(tmp_path / "moved", "p")
    before = first.id()
    shutil.move(first.path, moved.path)
    assert moved.id() == before


def test_whatever_changes_a_fleet_gives_it_an_id_where_it_has_none(tmp_path: Path) -> None:
    directory = FleetDir(tmp_path, "p")
    directory.create()
    directory.id_file.unlink()
    with directory.lock("promote"):
        made = directory.id()
        assert made
        with pytest.raises(ShardsError, match="is changing fleet p"), directory.lock("up"):
            pass
    with directory.lock("restart"):
        assert directory.id() == made
    directory.id_file.write_text("\n")
    with directory.lock("reshard"):
        assert directory.id() not in ("", made)


def test_a_disk_that_is_full_keeps_nobody_from_holding_a_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shards.fleet.state.write_atomically", full)
    directory = FleetDir(tmp_path, "p")
    with directory.lock("down"):
        assert directory.id() == ""


def test_a_directory_with_nothing_but_an_id_is_not_left(tmp_path: Path) -> None:
    directory = FleetDir(tmp_path, "p")
    with directory.lock("up"):
        directory.create()
    assert not directory.path.exists()


# -- a daemon with what two directories have made


class Kept:
    """A volume, or an image, that a daemon has."""

    def __init__(self, kept: dict[str, Kept], name: str, labels: dict[str, str] | None) -> None:
        self._kept, self.name, self.attrs = kept, name, {"Labels": labels}
        self.in_use = False

    def remove(self) -> None:
        if self.in_use:
            raise APIError("409", explanation=f"volume {self.name} is in use")
        del self._kept[self.name]


class Volumes:
    """The volumes of a daemon."""

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}

    def create(self, name: str, labels: dict[str, str]) -> None:
        # As Docker does: one that is there stays as it is.
        self.kept.setdefault(name, Kept(self.kept, name, labels))

    def get(self, name: str) -> Kept:
        if name not in self.kept:
            raise NotFound(f"no such volume: {name}")
        return self.kept[name]

    def list(self, filters: object) -> list[Kept]:
        return list(self.kept.values())


class Nothing:
    """What a daemon has none of."""

    def list(self, **asked: object) -> list[Any]:
        return []


class FakeApi:
    """A manager's API: services, secrets and configurations."""

    def __init__(self) -> None:
        self.kept: dict[str, list[dict[str, Any]]] = {"services": [], "secrets": [], "configs": []}

    def _make(self, kind: str, name: str, labels: dict[str, str]) -> dict[str, str]:
        id = f"{kind}-{name}-{len(self.kept[kind])}"
        assert name not in [one["Spec"]["Name"] for one in self.kept[kind]]
        self.kept[kind].append({"ID": id, "Spec": {"Name": name, "Labels": labels}})
        return {"ID": id}

    def _forget(self, kind: str, id: str) -> None:
        self.kept[kind] = [one for one in self.kept[kind] if one["ID"] != id]

    def services(self, filters: object) -> list[dict[str, Any]]:
        return list(self.kept["services"])

    def secrets(self, filters: object) -> list[dict[str, Any]]:
        return list(self.kept["secrets"])

    def configs(self, filters: object) -> list[dict[str, Any]]:
        return list(self.kept["configs"])

    def tasks(self) -> list[dict[str, Any]]:
        return []

    def create_service(self, template: object, name: str, labels: dict[str, str], **rest: object) -> dict[str, str]:
        return self._make("services", name, labels)

    def create_secret(self, name: str, data: bytes, labels: dict[str, str]) -> dict[str, str]:
        return self._make("secrets", name, labels)

    def create_config(self, name: str, data: bytes, labels: dict[str, str]) -> dict[str, str]:
        return self._make("configs", name, labels)

    def remove_service(self, id: str) -> None:
        self._forget("services", id)

    def remove_secret(self, id: str) -> None:
        self._forget("secrets", id)

    def remove_config(self, id: str) -> None:
        self._forget("configs", id)


class FakeDaemon:
    """A daemon that has no containers, and manages a swarm of itself."""

    def __init__(self) -> None:
        self.volumes, self.api = Volumes(), FakeApi()
        self.containers = self.networks = self.images = Nothing()


class FakeDaemons:
    """The daemons of a swarm of one node."""

    def __init__(self, manager: FakeDaemon) -> None:
        self.manager, self.by_node = manager, {"id1": manager}

    def nodes(self) -> list[Any]:
        return []

    def each(self, ask: Any) -> list[Any]:
        return [ask(self.manager)]

    def refuse_silence(self) -> None:
        """Its only node answers."""

    def heeding(self, node: str) -> contextlib.AbstractContextManager[None]:
        """Its only node answers."""
        return contextlib.nullcontext()


@pytest.fixture
def daemon() -> Any:
    """A daemon with data that Compose has left."""
    made = FakeDaemon()
    for name in ("p_shared-0_data", "p_redis_shared_data"):
        made.volumes.create(name, {FLEET_LABEL: "p"})
    return made


def in_docker(daemon: Any, mark: str) -> Containers:
    return Containers(daemon, "p", Path("/"), mark)


def in_swarm(daemon: Any, mark: str) -> Services:
    daemons: Any = FakeDaemons(daemon)
    return Services(daemons, "p", mark)


def test_data_without_a_mark_is_anybodys_until_one_goes_on_with_it(daemon: Any) -> None:
    ours, theirs = in_docker(daemon, OURS), in_docker(daemon, ANOTHERS)
    assert ours.kept() == theirs.kept() == {"shared-0", "redis_shared"}
    ours.claim()
    assert (ours.kept(), theirs.kept()) == ({"shared-0", "redis_shared"}, set())
    assert refusal("p", theirs.marks(), ANOTHERS, Path("id"))
    theirs.remove_volumes(["shared-0_data"])
    theirs.remove_everything_kept()
    assert set(daemon.volumes.kept) == {"p_owner", "p_shared-0_data", "p_redis_shared_data"}
    ours.remove_volumes(["shared-0_data"])
    ours.remove_everything_kept()
    assert not daemon.volumes.kept


class Things:
    """Containers, or networks, of a daemon."""

    def __init__(self, kept: dict[str, dict[str, str]]) -> None:
        self.kept = kept

    def list(self, **asked: object) -> list[Thing]:
        return [Thing(self.kept, name, labels) for name, labels in self.kept.items()]


class Thing:
    """A container, or a network."""

    def __init__(self, kept: dict[str, dict[str, str]], name: str, labels: dict[str, str]) -> None:
        self._kept, self.name, self.labels, self.attrs = kept, name, labels, {"Labels": labels}

    def stop(self) -> None:
        """It stops at once."""

    def remove(self, **how: bool) -> None:
        del self._kept[self.name]


def test_what_compose_runs_is_anybodys_to_see_and_take_down_whoevers_the_data_is(daemon: Any) -> None:
    in_docker(daemon, OURS).claim()
    compose, marked = {FLEET_LABEL: "p"}, {FLEET_LABEL: "p", MARK_LABEL: OURS}
    daemon.containers = Things({"p-redis_shared": compose, "p-pause_0": compose, "p-shared-0": marked})
    daemon.networks = Things({"p": compose, "p_other": marked})
    theirs = in_docker(daemon, ANOTHERS)
    assert set(theirs.found()) == {"p-redis_shared", "p-pause_0"}
    assert theirs.has_network()
    before = set(daemon.volumes.kept)
    assert theirs.remove_all()
    assert (set(daemon.containers.kept), set(daemon.networks.kept)) == ({"p-shared-0"}, {"p_other"})
    theirs.remove_everything_kept()
    assert set(daemon.volumes.kept) == before


def test_the_mark_beside_the_data_says_where_the_directory_is_now(daemon: Any) -> None:
    in_docker(daemon, OURS).claim()
    moved = mark_of("a1", Path("/moved"), "here")
    for _ in range(2):
        in_docker(daemon, moved).claim()
    assert in_docker(daemon, OURS).marks() == {"", moved}


def test_whose_the_data_is_stays_while_some_of_it_does(daemon: Any) -> None:
    ours = in_docker(daemon, OURS)
    ours.claim()
    daemon.volumes.kept["p_redis_shared_data"].in_use = True
    with pytest.raises(ShardsError, match="p_redis_shared_data is in use"):
        ours.remove_everything_kept()
    assert "p_owner" in daemon.volumes.kept


def test_in_a_swarm_what_is_anothers_is_left_alone(daemon: Any) -> None:
    ours, theirs = in_swarm(daemon, OURS), in_swarm(daemon, ANOTHERS)
    assert set(ours.kept()) == set(theirs.kept()) == {"shared-0", "redis_shared"}
    ours.claim()
    ours.write({"redis-1": "secret"}, {"route-1": "route"})
    daemon.api.create_service(None, "p_shared-0", {FLEET_LABEL: "p", MARK_LABEL: OURS})
    assert ours.are_known()
    assert list(ours.found()) == ["p_shared-0"]
    assert (theirs.found(), theirs.kept(), theirs.are_known()) == ({}, {}, False)
    assert refusal("p", theirs.marks(), ANOTHERS, Path("id"))
    assert refusal("p", ours.marks(), OURS, Path("id")) is None
    before = {kind: list(kept) for kind, kept in daemon.api.kept.items()}
    assert not theirs.remove_all()
    theirs.remove(["p_shared-0"])
    theirs.remove_volumes(["shared-0_data"])
    theirs.remove_data()
    assert daemon.api.kept == before
    assert len(daemon.volumes.kept) == 2


def test_in_a_swarm_data_stays_whose_it_is_while_the_fleet_is_down(daemon: Any) -> None:
    ours, theirs = in_swarm(daemon, OURS), in_swarm(daemon, ANOTHERS)
    ours.claim()
    ours.write({"redis-1": "secret"}, {"route-1": "route"})
    assert ours.remove_all()
    assert [one["Spec"]["Name"] for one in daemon.api.kept["configs"]] == ["p_owner"]
    assert daemon.api.kept["secrets"] == []
    assert not ours.are_known()
    assert refusal("p", theirs.marks(), ANOTHERS, Path("id"))
    in_swarm(daemon, mark_of("a1", Path("/moved"), "here")).claim()
    assert set(ours.kept()) == {"shared-0", "redis_shared"}
    ours.remove_data()
    assert not daemon.volumes.kept
    assert daemon.api.kept["configs"] == []


def test_services_of_a_stack_are_told_from_those_of_inv(daemon: Any) -> None:
    ours = in_swarm(daemon, OURS)
    daemon.api.create_service(None, "p_shared-0", {FLEET_LABEL: "p", MARK_LABEL: OURS})
    assert not ours.are_deployed_by_hand()
    daemon.api.create_service(None, "p_shared-1", {FLEET_LABEL: "p"})
    assert ours.are_deployed_by_hand()


class Image:
    """An image."""

    def __init__(self, id: str, *tags: str) -> None:
        self.id, self.tags = id, tags


def test_all_images_go_and_what_does_not_is_told() -> None:
    removed = []

    class Images:
        def list(self, filters: dict[str, str]) -> list[Image]:
            if filters["label"] == f"{WHEELS_LABEL}=p":
                return [Image("stage")]
            assert filters["label"] == f"{FLEET_LABEL}=p"
            return [Image("1", "app:p-1", "app:p-2"), Image("2"), Image("3", "used"), Image("4", "gone"), Image("5")]

        def remove(self, name: str, force: bool) -> None:
            if name == "used":
                raise APIError("409", explanation="a container uses\nit")
            if name == "gone":
                raise NotFound("no such image")
            removed.append(name)

    client: Any = FakeDaemon()
    client.images = Images()
    assert forget_all(client, "p") == ["a container uses it"]
    assert removed == ["app:p-1", "app:p-2", "2", "5", "stage"]


# -- a first `inv up` that fails


class Alone:
    """An engine with nothing of its own."""

    def __init__(self, left: str = "", fails: bool = False, runs: bool = False, ours: bool = False) -> None:
        self.left, self.fails, self.runs, self.ours = left, fails, runs, ours

    async def running(self) -> dict[str, Any]:
        return {}

    async def stop(self) -> bool:
        stopped, self.runs = self.runs, False
        return stopped

    async def has_ours(self) -> bool:
        if self.fails:
            raise ShardsError("no Docker daemon answers")
        return self.ours

    async def purge(self) -> None:
        self.ours = False

    async def left_alone(self) -> str:
        if self.fails:
            raise ShardsError("no Docker daemon answers")
        return self.left


class WithEngine(Fleet):
    """A fleet whose engine is another one."""

    def __init__(
        self, root: Path, engine: Alone, say: Callable[[str], None] = lambda text: None, local: Alone | None = None
    ) -> None:
        nothing: Any = None
        super().__init__(FleetDir(root, "p"), nothing, say)
        self.__dict__.update(alone=engine, local=local or engine, asked=[])

    def engine(self, spec: FleetSpec) -> Engine:
        self.__dict__["asked"].append(spec.engine)
        engine: Engine = self.__dict__["local" if spec.engine == "local" else "alone"]
        return engine


@pytest.fixture(autouse=True)
def no_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing found that Compose has started."""
    monkeypatch.setattr(by_hand, "find", lambda project: None)


class Fails(Alone):
    """An engine that can't start anything, nor delete all that it has made."""

    def free_port(self, taken: object) -> int:
        return 1

    def place(self, state: FleetState, only: object = None) -> dict[str, Place]:
        return {}

    def newest(self, state: FleetState) -> dict[str, str]:
        return {}

    async def alive(self) -> bool:
        return False

    def check(self, port_is_ours: bool) -> None:
        """Everything is there."""

    async def check_app(self, release: str) -> None:
        """It imports."""

    async def kept(self) -> set[str]:
        return set()

    async def lost_hosts(self) -> set[str]:
        return set()

    async def start(self) -> None:
        raise ShardsError("blue-0 does not import")

    async def purge(self) -> None:
        raise ShardsError("not all images are deleted")


async def test_a_purge_that_fails_does_not_hide_why_a_first_start_did(tmp_path: Path) -> None:
    told: list[str] = []
    fleet = WithEngine(tmp_path, Fails(), told.append)
    with pytest.raises(ShardsError, match="blue-0 does not import"):
        await reconcile.up(fleet, FleetSpec("p", "docker", app_dir=str(tmp_path)), 1.0)
    assert "not all images are deleted" in told
    assert fleet.directory.read() is None


# -- `inv down`


@pytest.mark.parametrize("purge", [False, True])
@pytest.mark.parametrize("kept", ["nothing", "a directory", "a state"])
async def test_down_tells_what_it_leaves_alone(tmp_path: Path, purge: bool, kept: str) -> None:
    fleet = WithEngine(tmp_path, Alone("that of another"))
    if kept != "nothing":
        fleet.directory.create()
    if kept == "a state":
        fleet.directory.write(FleetState(FleetSpec("p", "docker")))
    ended = await reconcile.down(fleet, purge)
    assert ended.left == "that of another"
    assert ended.deleted is (purge and kept != "nothing")
    assert fleet.directory.path.exists() is (not purge and kept != "nothing")
    assert "docker" in fleet.__dict__["asked"]


@pytest.mark.parametrize("purge", [False, True])
@pytest.mark.parametrize("has_directory", [False, True])
async def test_down_takes_down_what_compose_has_started_with_a_directory_of_it_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, purge: bool, has_directory: bool
) -> None:
    fleet = WithEngine(tmp_path, Alone(runs=True))
    monkeypatch.setattr(by_hand, "find", lambda project: FleetState(FleetSpec(project, "docker"), up=True))
    if has_directory:
        fleet.directory.create()
    assert (await reconcile.down(fleet, purge)).stopped
    assert fleet.__dict__["asked"][0] == "docker"
    assert fleet.directory.path.exists() is (has_directory and not purge)


async def test_down_does_without_docker(tmp_path: Path) -> None:
    assert (await reconcile.down(WithEngine(tmp_path, Alone(fails=True)), purge=True)).left == ""


@pytest.mark.parametrize("engine", ["local", "docker", "swarm"])
async def test_what_nothing_remembers_is_taken_down_by_the_engine_that_has_had_it(tmp_path: Path, engine: str) -> None:
    fleet = WithEngine(tmp_path, Alone())
    fleet.directory.create()
    if engine != "local":
        (fleet.directory.path / engine).mkdir()
    await reconcile.down(fleet, purge=False)
    # Where it is that of this host, nobody knows whether Docker has one of that name as well.
    assert fleet.__dict__["asked"] == (["local", "docker"] if engine == "local" else [engine])


@pytest.mark.parametrize("engine", ["docker", "swarm"])
async def test_the_engine_of_a_damaged_state_tells_what_it_leaves_alone(tmp_path: Path, engine: str) -> None:
    fleet = WithEngine(tmp_path, Alone("that of another"))
    fleet.directory.create()
    (fleet.directory.path / engine).mkdir()
    (fleet.directory.path / "fleet.json").write_text("{")
    assert (await reconcile.down(fleet, purge=True)).left == "that of another"
    assert fleet.__dict__["asked"] == [engine]


@pytest.mark.parametrize("remembered", [True, False])
async def test_a_purge_deletes_what_docker_has_under_our_mark_though_another_engine_was_the_last(
    tmp_path: Path, remembered: bool
) -> None:
    """An `up` on another engine than the last is refused, but files can be lost, and older ones did not refuse."""
    in_docker = Alone(ours=True)
    fleet = WithEngine(tmp_path, in_docker, local=Alone())
    fleet.directory.create()
    if remembered:
        fleet.directory.write(FleetState(FleetSpec("p", "local")))
    await reconcile.down(fleet, purge=False)
    assert in_docker.ours
    await reconcile.down(fleet, purge=True)
    assert not in_docker.ours


async def test_a_purge_of_a_local_fleet_does_without_docker(tmp_path: Path) -> None:
    fleet = WithEngine(tmp_path, Alone(fails=True))
    fleet.directory.create()
    assert (await reconcile.down(fleet, purge=True)).deleted


async def test_a_purge_that_can_not_ask_docker_though_it_had_the_fleet_says_what_may_be_left(tmp_path: Path) -> None:
    fleet = WithEngine(tmp_path, Alone(fails=True), local=Alone())
    fleet.directory.create()
    fleet.directory.write(FleetState(FleetSpec("p", "local")))
    (fleet.directory.path / "docker").mkdir()
    id = fleet.directory.id()
    left = (await reconcile.down(fleet, purge=True)).left
    assert left == f"what Docker has of it, under the id {id}, is left alone, since no Docker daemon answers"


def test_data_that_nobody_has_marked_is_told_of_with_what_deletes_it() -> None:
    """It is not ours to delete: Compose has made it."""
    said = nobodys("p", ["", ""])
    assert "`inv up --engine docker --project p` goes on with its data" in said
    assert "docker volume ls -q --filter label=shards.fleet=p" in said
    assert nobodys("p", ["", OURS]) == nobodys("p", []) == ""


# -- `inv up` on another engine than before


@pytest.mark.parametrize("up", [True, False])
async def test_data_of_one_engine_is_not_left_behind_by_another(tmp_path: Path, up: bool) -> None:
    fleet = WithEngine(tmp_path, Fails())
    fleet.directory.create()
    was = FleetState(FleetSpec("p", "docker"), up=up)
    fleet.directory.write(was)
    with pytest.raises(UsageError, match=r"`inv up --engine docker --project p` goes on with it"):
        await reconcile.up(fleet, FleetSpec("p", "local", app_dir=str(tmp_path)), 1.0)
    assert fleet.directory.read() == was


async def test_a_fleet_that_comes_up_elsewhere_than_it_was_says_so(tmp_path: Path) -> None:
    told: list[str] = []
    fleet = WithEngine(tmp_path, Fails(), told.append)
    fleet.directory.create()
    was = FleetSpec("p", port=8650, tls_certificate="/c.pem", tls_key="/k.pem", app_dir=str(tmp_path))
    fleet.directory.write(FleetState(was, up=False))
    with pytest.raises(ShardsError, match="blue-0 does not import"):
        await reconcile.up(fleet, FleetSpec("p", port=8000, app_dir=str(tmp_path)), 1.0)
    assert [line for line in told if "before" in line] == [
        "warning: fleet p comes up at port 8000, where it was at 8650 before (--port)",
        "warning: fleet p comes up without TLS, which it had before (--tls-certificate, --tls-key)",
    ]
