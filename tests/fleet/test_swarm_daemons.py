"""The daemons of a swarm's nodes, and the images on them: how they are reached, and what is said where one is not."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any, cast

import docker
import pytest
import requests
from docker.errors import APIError, ImageNotFound

from shards.errors import ShardsError
from shards.fleet import status as looking
from shards.fleet.engines.docker.images import superfluous
from shards.fleet.engines.docker.options import DockerOptions
from shards.fleet.engines.docker.stack import FLEET_LABEL
from shards.fleet.engines.swarm import daemons, reach, ssh
from shards.fleet.engines.swarm.daemons import Daemons
from shards.fleet.engines.swarm.engine import SwarmEngine
from shards.fleet.engines.swarm.nodes import Node
from shards.fleet.engines.swarm.services import Services
from shards.fleet.engines.swarm.stock import Stock
from shards.fleet.fleet import Fleet
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetDir, FleetState, Place

NODES = [Node(f"id{i}", f"n{i}", f"10.0.0.{i}", True, True, i == 1, 2) for i in (1, 2, 3)]

LEADS = """#!{python}
import os, socket, sys, threading
open({told!r}, "a").write(" ".join(sys.argv[1:]) + "\\n")
there = socket.socket(socket.AF_UNIX)
there.connect({socket!r})
def send():
    while data := os.read(0, 65536):
        there.sendall(data)
    there.shutdown(socket.SHUT_WR)
threading.Thread(target=send, daemon=True).start()
while data := there.recv(65536):
    os.write(1, data)
"""


class _Answers(BaseHTTPRequestHandler):
    """Answers as a daemon does."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        said = {"/version": {"ApiVersion": "1.43"}, "/v1.43/info": {"Swarm": {"NodeID": "id2"}}}[self.path]
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Path]:
    """The socket of a daemon, of which we only need that it says who it is."""
    path = tmp_path / "daemon"
    with ThreadingUnixStreamServer(str(path), _Answers) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield path
        server.shutdown()
        thread.join()


@pytest.fixture
def as_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have a script in the place of `ssh`."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))

    def write(script: str) -> None:
        (programs / "ssh").write_text(script)
        (programs / "ssh").chmod(0o755)

    return write


@pytest.fixture
def tunnels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close tunnels, which otherwise last as long as the process."""
    made: list[ssh.Tunnel] = []

    class Tunnel(ssh.Tunnel):
        def __init__(self, url: str) -> None:
            super().__init__(url)
            made.append(self)

        def close(self) -> None:
            made.remove(self)
            super().close()

    monkeypatch.setattr(ssh, "Tunnel", Tunnel)
    yield
    for one in [*made]:
        one.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ssh://node2", ["--", "node2"]),
        ("ssh://root@Node-2.example:2222", ["-l", "root", "-p", "2222", "--", "Node-2.example"]),
        ("ssh://me@[fd00::2]/", ["-l", "me", "--", "fd00::2"]),
    ],
)
def test_an_url_says_whom_ssh_is_to_connect_to(url: str, words: list[str]) -> None:
    said = ssh.command(url)
    assert said[0] == "ssh"
    assert said[-1 - len(words) :] == [*words, "docker system dial-stdio"]


@pytest.mark.parametrize("url", ["ssh://", "ssh://node2/var/run/docker.sock", "ssh://node2:port", "ssh://a b"])
def test_an_url_that_makes_no_sense_is_refused(url: str) -> None:
    with pytest.raises(ShardsError, match="makes no sense"):
        ssh.command(url)


@pytest.mark.usefixtures("tunnels")
def test_a_daemon_is_reached_by_ssh(listening: Path, as_ssh: Callable[[str], None], tmp_path: Path) -> None:
    told = tmp_path / "told"
    as_ssh(LEADS.format(python=sys.executable, told=str(told), socket=str(listening)))
    client = reach.reach("ssh://node2")
    try:
        assert client.api.api_version == "1.43"
        assert client.info()["Swarm"]["NodeID"] == "id2"
    finally:
        client.close()
    assert told.read_text().splitlines()[0].endswith("-- node2 docker system dial-stdio")


def ssh_left() -> list[str]:
    """What leads to other hosts from here: threads, and directories with a socket."""
    threads = [thread.name for thread in threading.enumerate() if thread.name == "ssh"]
    return [*threads, *map(str, Path(tempfile.gettempdir()).glob("shards-ssh-*"))]


def test_a_tunnel_ends_with_the_client_that_it_was_opened_for(
    listening: Path, as_ssh: Callable[[str], None], tmp_path: Path
) -> None:
    before = ssh_left()
    as_ssh(LEADS.format(python=sys.executable, told=str(tmp_path / "told"), socket=str(listening)))
    client = reach.reach("ssh://node2")
    assert len(ssh_left()) == len(before) + 2
    client.info()
    client.close()
    assert ssh_left() == before


@pytest.mark.usefixtures("tunnels")
def test_why_a_daemon_is_not_reached_by_ssh_is_told(as_ssh: Callable[[str], None]) -> None:
    as_ssh("#!/bin/sh\necho 'me@node2: Permission denied (publickey).' >&2\nexit 255\n")
    with pytest.raises(ShardsError) as refused:
        reach.reach("ssh://node2")
    assert str(refused.value) == "no Docker daemon answers at ssh://node2: me@node2: Permission denied (publickey)."


def test_a_host_without_ssh_is_told(as_ssh: Callable[[str], None]) -> None:
    with pytest.raises(ShardsError, match="no Docker daemon answers at ssh://node2: there is no `ssh` on PATH"):
        reach.reach("ssh://node2")


def test_a_daemon_by_tcp_is_shown_what_the_environment_names(tmp_path: Path) -> None:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    environment = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path), "DOCKER_HOST": "tcp://node1:2376"}
    said = reach.arguments("tcp://node2:2376", environment)
    assert said["base_url"] == "tcp://node2:2376"
    assert (said["tls"].verify, said["tls"].ca_cert) == (True, str(tmp_path / "ca.pem"))
    assert said["tls"].cert == (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    assert reach.arguments("tcp://node2:2375", {}) == {"base_url": "tcp://node2:2375"}
    assert reach.arguments("unix:///run/docker.sock", environment) == {"base_url": "unix:///run/docker.sock"}


def test_certificates_that_are_not_there_are_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    with pytest.raises(ShardsError, match=r"answers at tcp://node2:2376: .*certificate") as refused:
        reach.reach("tcp://node2:2376")
    assert "\n" not in str(refused.value)


# -- the nodes' daemons, and what images they have


class FakeImage:
    def __init__(self, id: str, *tags: str) -> None:
        self.id, self.tags = id, list(tags)

    def save(self, named: str | bool) -> Iterator[bytes]:
        yield json.dumps([self.id, named]).encode()


class FakeDaemon:
    """A daemon with images; it is its own `images`, and its own `api`."""

    def __init__(self, node: str, *images: FakeImage) -> None:
        self.node, self.kept = node, list(images)
        self.images = self.api = self
        self.api_version = "1.43"
        self.loaded: list[Any] = []
        self.removed: list[str] = []
        self.closed = False

    def info(self) -> dict[str, Any]:
        return {"Swarm": {"NodeID": self.node, "ControlAvailable": self.node == "id1"}}

    def close(self) -> None:
        self.closed = True

    def get(self, name: str) -> FakeImage:
        for image in self.kept:
            if name in (image.id, *image.tags):
                return image
        raise ImageNotFound(f"No such image: {name}")

    def load_image(self, chunks: Iterator[bytes]) -> Iterator[dict[str, str]]:
        id, named = json.loads(b"".join(chunks))
        self.loaded.append((id, named))
        self.kept.append(FakeImage(id))
        return iter(())

    def list(self, filters: dict[str, str]) -> list[FakeImage]:
        return list(self.kept) if filters["label"].startswith(f"{FLEET_LABEL}=") else []

    def remove(self, name: str, force: bool = False) -> None:
        self.removed.append(name)


def swarm_of(*found: FakeDaemon, known: list[Node] = NODES) -> Daemons:
    """Give the daemons of a swarm; the first is the manager's."""
    made = Daemons([])
    vars(made).update(_manager=found[0], _opened={one.node: one for one in found})
    vars(made)["nodes"] = lambda: known
    return made


@pytest.fixture
def told() -> list[str]:
    """What was said."""
    return []


def stock(found: Daemons, told: list[str]) -> Stock:
    return Stock(found, "t", told.append, told.append)


def test_a_daemon_that_is_not_reached_is_named_where_it_is_missed(
    monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    stranger = FakeDaemon("elsewhere")

    def open_one(url: str) -> docker.DockerClient:
        if url == "ssh://node2":
            raise ShardsError("no Docker daemon answers at ssh://node2: Permission denied")
        return cast(Any, stranger if url == "ssh://other" else FakeDaemon("id3"))

    monkeypatch.setattr(daemons, "reach", open_one)
    made = Daemons(["ssh://node2", "ssh://node3", "ssh://other"])
    vars(made)["_manager"] = FakeDaemon("id1", FakeImage("sha256:1", "shards-app:t-1"))
    vars(made)["nodes"] = lambda: NODES
    assert set(made.by_node) == {"id1", "id3"}
    assert stranger.closed
    assert made.unasked() == [NODES[1]]
    with pytest.raises(ShardsError) as refused:
        stock(made, told).bring("shards-app:t-1")
    for words in (
        "n2: images can't be brought there: name its daemon in docker.daemons",
        "for instance ssh://n2",
        "no Docker daemon answers at ssh://node2: Permission denied",
        "the Docker daemon at ssh://other is no other node of this swarm",
    ):
        assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_nobody_knocks_at_a_host_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    knocked: list[str] = []

    def open_one(url: str) -> docker.DockerClient:
        knocked.append(url)
        return cast(Any, FakeDaemon("id3"))

    monkeypatch.setattr(daemons, "reach", open_one)
    made = Daemons(["ssh://me@N2:22", "tcp://10.0.0.2:2376", "ssh://n3", "ssh://[n3"])
    vars(made)["_manager"] = FakeDaemon("id1")
    vars(made)["nodes"] = lambda: [NODES[0], replace(NODES[1], usable=False, answers=False), NODES[2]]
    assert set(made.by_node) == {"id1", "id3"}
    assert knocked[0] == "ssh://n3"
    assert len(knocked) == 2, "what makes no sense as a URL is told by who opens it"
    assert "the swarm does not hear from the node of tcp://10.0.0.2:2376" in made.why_not(NODES[1])


def test_a_host_that_joined_anew_by_another_name_is_not_the_one_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemons, "reach", lambda url: FakeDaemon("id4"))
    made = Daemons(["tcp://10.0.0.2:2376"])
    vars(made)["_manager"] = FakeDaemon("id1")
    was = replace(NODES[1], usable=False, answers=False)
    vars(made)["nodes"] = lambda: [NODES[0], was, replace(NODES[1], id="id4", name="n4")]
    assert set(made.by_node) == {"id1", "id4"}


@pytest.mark.parametrize(
    ("version", "control", "words"),
    [("1.40", True, "speaks API 1.40: a swarm's must be 20.10 or newer"), ("1.43", False, "is no manager")],
)
def test_a_manager_that_will_not_do_is_refused(
    monkeypatch: pytest.MonkeyPatch, version: str, control: bool, words: str
) -> None:
    manager = FakeDaemon("id1" if control else "id2")
    manager.api_version = version
    monkeypatch.setenv("DOCKER_HOST", "ssh://node1")
    monkeypatch.setattr(daemons, "reach", lambda url: manager)
    with pytest.raises(ShardsError, match=words):
        assert Daemons([]).manager
    assert manager.closed


class Opens:
    """Opens the daemons of a swarm's nodes, which are called by their ids; and knows which are open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[FakeDaemon] = []
        monkeypatch.setenv("DOCKER_HOST", "ssh://id1")
        monkeypatch.setattr(daemons, "reach", self)
        monkeypatch.setattr(Daemons, "nodes", lambda _: NODES)

    def __call__(self, url: str) -> docker.DockerClient:
        one = FakeDaemon(url.removeprefix("ssh://"))
        self.made.append(one)
        # Long enough for whoever else asks to find it not yet open.
        time.sleep(0.02)
        return cast(Any, one)

    @property
    def left(self) -> list[str]:
        return [one.node for one in self.made if not one.closed]


def test_daemons_are_opened_once_whoever_asks_and_closed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    opens, made = Opens(monkeypatch), Daemons(["ssh://id2", "ssh://id3", "ssh://elsewhere"])
    with ThreadPoolExecutor(8) as pool:
        assert {frozenset(found) for found in pool.map(lambda _: made.by_node, range(8))} == {
            frozenset({"id1", "id2", "id3"})
        }
        assert set(pool.map(lambda _: made.manager, range(8))) == {opens.made[0]}
    assert sorted(one.node for one in opens.made) == ["elsewhere", "id1", "id2", "id3"]
    assert sorted(opens.left) == ["id1", "id2", "id3"]
    made.close()
    assert opens.left == []
    assert set(made.by_node) == {"id1", "id2", "id3"}, "who asks on opens them anew"


async def test_who_looks_again_and_again_opens_nothing_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opens = Opens(monkeypatch)
    spec, asked = FleetSpec("t", "swarm"), 0

    async def look(fleet: Fleet) -> looking.Status:
        nonlocal asked
        engine = fleet.engine(spec)
        assert isinstance(engine, SwarmEngine)
        both = await asyncio.gather(*(asyncio.to_thread(lambda: set(engine._daemons.by_node)) for _ in range(2)))
        assert both == [{"id1", "id2"}] * 2
        asked += 1
        return {}

    monkeypatch.setattr(looking, "status", look)
    options = DockerOptions(Path(), daemons=("ssh://id2",))
    with Fleet(FleetDir(tmp_path, "t"), cast(Any, None), print, docker=options) as fleet:
        watch = looking.Watch(fleet)
        for _ in range(5):
            await watch.look()
        assert (asked, len(opens.made)) == (5, 2)
        monkeypatch.setattr(looking, "_RENEWED_S", 0.0)
        await watch.look()
        assert (len(opens.made), len(opens.left)) == (4, 2), "a node that is back is asked again"
    assert opens.left == []


def test_a_node_that_did_not_answer_is_not_waited_for_again(told: list[str]) -> None:
    waited: list[str] = []

    class Hangs(FakeDaemon):
        def get(self, name: str) -> FakeImage:
            waited.append(name)
            raise requests.ReadTimeout("Read timed out.")

    manager = FakeDaemon("id1", FakeImage("sha256:1"), FakeImage("sha256:2"))
    found = swarm_of(manager, Hangs("id2"), FakeDaemon("id3", *manager.kept))
    images = stock(found, told)
    images.supply(["sha256:1", "sha256:2"])
    assert waited == ["sha256:1"]
    assert told == ["n2: images can't be brought there: its Docker daemon does not answer: Read timed out."]
    assert found.unasked() == [NODES[1]]
    with pytest.raises(ShardsError, match="n2: what is there can't be told: its Docker daemon does not answer"):
        Services(found, "t", "mark").kept()
    with pytest.raises(ShardsError, match="n2: images can't be brought there: its Docker daemon does not answer"):
        images.bring("sha256:1")
    assert waited == ["sha256:1"]


def test_one_that_says_no_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(client: docker.DockerClient) -> str:
        node = cast(Any, client).node
        asked.append(node)
        if node == "id3":
            raise APIError("conflict")
        if node in silent:
            raise requests.ConnectionError("gone")
        return str(node)

    asked: list[str] = []
    silent = {"id1", "id2"}
    found = swarm_of(FakeDaemon("id1"), FakeDaemon("id2"), FakeDaemon("id3"))
    assert found.each(ask) == []
    asked.clear()
    silent.clear()
    assert found.each(ask) == ["id1"], "the manager's is asked on"
    assert sorted(asked) == ["id1", "id3"]
    monkeypatch.setattr(daemons, "_LEFT_OUT_S", 0.0)
    assert sorted(found.each(ask)) == ["id1", "id2"], "one that was being restarted is asked again after a while"


def test_a_node_that_joins_gets_the_images_that_run_and_is_asked_once(told: list[str]) -> None:
    first, edge = FakeImage("sha256:1", "shards-app:t-1"), FakeImage("sha256:2")
    manager, old, new = FakeDaemon("id1", first, edge), FakeDaemon("id2", first, edge), FakeDaemon("id3")
    images = stock(swarm_of(manager, old, new), told)
    for _ in range(2):
        images.supply(["sha256:1", "sha256:2", "sha256:1", "sha256:gone"])
    assert new.loaded == [("sha256:1", "shards-app:t-1"), ("sha256:2", False)]
    assert (manager.loaded, old.loaded) == ([], [])


def test_a_node_that_joins_and_can_not_be_reached_is_told_of_in_one_line(told: list[str]) -> None:
    manager = FakeDaemon("id1", FakeImage("sha256:1"), FakeImage("sha256:2"))
    stock(swarm_of(manager, known=NODES[:2]), told).supply(["sha256:1", "sha256:2"])
    assert [line.split(": ")[0] for line in told] == ["n2"]


def test_releases_that_are_over_go_and_nothing_that_runs() -> None:
    keep = {"shards-app:t-2", "sha256:route"}
    assert superfluous("t", "sha256:1", ["shards-app:t-1"], keep) == ["shards-app:t-1"]
    assert superfluous("t", "sha256:1", ["shards-app:t-1", "shards-app:t-2"], keep) == ["shards-app:t-1"]
    assert superfluous("t", "sha256:route", ["shards-app:t-0"], keep) == []
    assert superfluous("t", "sha256:3", ["shards-redis:t"], keep) == []
    assert superfluous("t", "sha256:4", [], keep) == ["sha256:4"], "what was built anew has lost its name"


def test_a_purge_removes_images_by_each_name_and_those_without(told: list[str]) -> None:
    manager = FakeDaemon("id1", FakeImage("sha256:1", "shards-app:t-1", "shards-app:t-2"), FakeImage("sha256:2"))
    node = FakeDaemon("id2", FakeImage("sha256:2"))
    stock(swarm_of(manager, node), told).remove_all()
    assert manager.removed == ["shards-app:t-1", "shards-app:t-2", "sha256:2"]
    assert node.removed == ["sha256:2"]


# -- the engine


class FakeServices:
    """Services that run, of some images."""

    def __init__(self, *images: str) -> None:
        self.running = {
            f"one-{i}": {"Spec": {"Labels": {}, "TaskTemplate": {"ContainerSpec": {"Image": image}}}}
            for i, image in enumerate(images)
        }

    def found(self) -> dict[str, Any]:
        return self.running

    def remove_all(self) -> bool:
        return bool(self.running)

    def remove_volumes(self, names: list[str]) -> None:
        pass

    def remove_data(self) -> None:
        pass


def engine(tmp_path: Path, found: Daemons, services: FakeServices, told: list[str]) -> SwarmEngine:
    directory = FleetDir(tmp_path, "t")
    directory.create()
    made = SwarmEngine(FleetSpec("t", "swarm"), directory, DockerOptions(Path()), found, told.append)
    vars(made).update(_services=services)
    return made


async def test_what_is_left_on_a_node_that_could_not_be_asked_is_told(tmp_path: Path, told: list[str]) -> None:
    made = engine(tmp_path, swarm_of(FakeDaemon("id1"), FakeDaemon("id3")), FakeServices("i"), told)
    assert await made.stop()
    assert told == ["n2: could not be asked; the swarm ends what runs there as soon as it can"]
    told.clear()
    await made.purge()
    assert [line.partition("`")[0] for line in told] == [
        "n2: could not be asked; the fleet's data and images stay there: "
    ]
    told.clear()
    await made.forget_data([])
    await made.forget_data(["shared-1"])
    assert told == ["n2: could not be asked; remove the volume t_shared-1_data there before parts come to it again"]


async def test_a_drained_node_on_which_nothing_was_is_no_matter(tmp_path: Path, told: list[str]) -> None:
    known = [NODES[0], *(replace(node, usable=False, drained=True) for node in NODES[1:])]
    made = engine(tmp_path, swarm_of(FakeDaemon("id1"), known=known), FakeServices("i"), told)
    made.directory.write(FleetState(made.spec, places={"shared-0": NODES[2].place}))
    await made.stop()
    assert [line.partition(":")[0] for line in told] == ["n3"]


async def test_a_fleet_that_was_not_up_leaves_nothing_anywhere(tmp_path: Path, told: list[str]) -> None:
    assert not await engine(tmp_path, swarm_of(FakeDaemon("id1")), FakeServices(), told).stop()
    assert told == []


async def test_nodes_get_the_images_that_run_where_nothing_is_new_too(tmp_path: Path, told: list[str]) -> None:
    route = FakeImage("sha256:route")
    new = FakeDaemon("id2")
    made = engine(
        tmp_path, swarm_of(FakeDaemon("id1", route), new, known=NODES[:2]), FakeServices("sha256:route"), told
    )
    await made.add([])
    assert new.loaded == [("sha256:route", False)]


async def test_hosts_are_lost_where_parts_were_or_nodes_are(tmp_path: Path, told: list[str]) -> None:
    made = engine(tmp_path, swarm_of(FakeDaemon("id1")), FakeServices(), told)
    made.directory.write(FleetState(made.spec, places={"edge-0": Place("left", "10.0.0.9")}))
    assert await made.lost_hosts() == {"10.0.0.9"}


async def test_what_a_part_has_said_is_not_waited_for_in_the_event_loop(tmp_path: Path, told: list[str]) -> None:
    beats = threading.Event()

    class Hangs(FakeServices):
        def containers(self) -> dict[str, Any]:
            assert beats.wait(5), "nothing else goes on meanwhile"
            return {}

        def tasks(self) -> dict[str, Any]:
            return {"app_blue_0": {"Status": {"State": "rejected", "Err": "no such image"}}}

    made = engine(tmp_path, swarm_of(FakeDaemon("id1")), Hangs(), told)
    made.directory.logs.mkdir(exist_ok=True)
    reading = asyncio.create_task(made.log("blue-0"))
    await asyncio.sleep(0.01)
    beats.set()
    assert "the swarm says: rejected: no such image" in (await reading).read_text()


async def test_why_a_part_does_not_start_names_its_node_where_that_is_gone(tmp_path: Path, told: list[str]) -> None:
    class Waits(FakeServices):
        def containers(self) -> dict[str, Any]:
            return {}

        def tasks(self) -> dict[str, Any]:
            return {}

    made = engine(tmp_path, swarm_of(FakeDaemon("id1")), Waits(), told)
    made.directory.logs.mkdir(exist_ok=True)
    made.directory.write(FleetState(made.spec, places={"blue-0": Place("left", "10.0.0.9"), "blue-1": NODES[0].place}))
    assert "left, where it shall run, is gone or drained" in (await made.log("blue-0")).read_text()
    assert (await made.log("blue-1")).read_text() == ""
