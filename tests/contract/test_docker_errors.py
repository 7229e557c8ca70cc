"""What goes wrong with containers, and what the docker engine says of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import docker
import pytest
from docker.errors import APIError

from shards.fleet.engines.docker.stack import FLEET_LABEL, WHEELS_LABEL, app_image, edge_image, redis_image
from shards.ports import free_port
from tests.contract.engines import AnyCommands, DockerCommands, on_this_host
from tests.fleet.runner import steady

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]

SMALL = ("--replicas", "1", "--shards", "1", "--edges", "1")


@pytest.fixture(scope="module", params=["docker"])
def engine(request: pytest.FixtureRequest) -> str:
    """The engine's name: what is tested here is about containers."""
    return on_this_host(str(request.param))


@pytest.fixture
def fleet(commands: AnyCommands) -> DockerCommands:
    """Commands for a fleet in Docker that was never started."""
    assert isinstance(commands, DockerCommands)
    return commands


@pytest.fixture
def daemon(fleet: DockerCommands) -> Iterator[docker.DockerClient]:
    """The daemon, asked past the engine."""
    client = docker.from_env()
    yield client
    client.close()


def test_a_base_image_that_is_not_there_is_told(fleet: DockerCommands) -> None:
    refused = fleet("up", *SMALL, INVOKE_DOCKER_REDIS_IMAGE="local/none:1")
    assert refused.code == 1
    assert "base image local/none:1 is not there and can't be pulled" in refused.last
    assert not fleet.remembered()["ports"], "nothing was begun"


def test_a_name_that_is_taken_is_told_and_what_was_started_is_gone(
    fleet: DockerCommands, daemon: docker.DockerClient
) -> None:
    image = fleet.base["INVOKE_DOCKER_REDIS_IMAGE"]
    stranger = daemon.containers.create(image, ["sleep", "60"], name=f"{fleet.project}-redis_green")
    try:
        refused = fleet("up", *SMALL)
        assert refused.code == 1
        assert f"a container {fleet.project}-redis_green is there that is none of this fleet" in refused.last
        fleet.gone()
    finally:
        stranger.remove(force=True)


@pytest.mark.parametrize("project", ["host", "bridge", "none", "default", ""])
def test_a_name_that_a_network_has_is_told_before_anything_is_built(
    fleet: DockerCommands, daemon: docker.DockerClient, project: str
) -> None:
    stranger = None if project else daemon.networks.create(fleet.project)
    name = project or fleet.project
    try:
        refused = fleet("up", *SMALL, "--project", name)
    finally:
        if stranger:
            stranger.remove()
    told = f"Docker has a network {name} that does not belong to this fleet: choose another name with --project"
    assert (refused.code, told in refused.last, "building image" in refused.stderr) == (1, True, False)


def test_containers_of_an_older_run_are_no_matter(fleet: DockerCommands, daemon: docker.DockerClient) -> None:
    image = fleet.base["INVOKE_DOCKER_REDIS_IMAGE"]
    name = f"{fleet.project}-shared-0"
    left = daemon.containers.create(image, ["sleep", "60"], name=name, labels={FLEET_LABEL: fleet.project})
    fleet.ok("up", *SMALL)
    assert daemon.containers.get(name).id != left.id
    # `down` that was stopped half-way is finished by the next.
    daemon.containers.get(name).remove(force=True)
    daemon.containers.get(f"{fleet.project}-pause_0").remove(force=True)
    assert "is down" in fleet.ok("down").stdout


def volumes(fleet: DockerCommands, daemon: docker.DockerClient) -> set[str]:
    """Name the volumes of a fleet."""
    found = daemon.volumes.list(filters={"label": f"{FLEET_LABEL}={fleet.project}"})
    return {str(volume.name) for volume in found}


def elsewhere(fleet: DockerCommands, root: Path) -> DockerCommands:
    """Give commands of another checkout, which remembers a fleet of that name that ran in Docker too."""
    other = replace(fleet, state_dir=root / "others", port=free_port([fleet.port]))
    shutil.copytree(fleet.directory, other.directory)
    (other.directory / "id").write_text("another")
    return other


def test_a_fleet_of_the_same_name_that_is_kept_elsewhere_is_left_alone(
    fleet: DockerCommands, daemon: docker.DockerClient, tmp_path: Path
) -> None:
    fleet.ok("up", *SMALL)
    before = [fleet.identity(one) for one in fleet.status()["redis"]]
    kept, is_told = volumes(fleet, daemon), f"kept in {fleet.directory} on host {os.uname().nodename}"
    other = elsewhere(fleet, tmp_path)
    refused = other("up", *SMALL)
    assert (refused.code, is_told in refused.last) == (1, True), refused.stderr
    assert f"{is_told} is left alone" in other.ok("down").stdout
    assert other.directory.exists()
    assert f"{is_told} is left alone" in other.ok("down", "--purge").stdout
    assert not other.directory.exists()
    assert [fleet.identity(one) for one in fleet.until(steady)["redis"]] == before
    # As one does who has only a name.
    assert f"{is_told} is left alone" in other.ok("down", "--purge").stdout
    fleet.ok("publish", "--group", "g", "--data", "1")
    fleet.ok("down")
    # What it keeps, though it is down, is not another's to go on with, nor to delete.
    assert is_told in other("up", *SMALL).last
    other = elsewhere(fleet, tmp_path)
    assert f"{is_told} is left alone" in other.ok("down", "--purge").stdout
    assert kept - volumes(fleet, daemon) == {f"{fleet.project}_handoff"}
    fleet.ok("up", *SMALL)
    assert fleet.ok("publish", "--group", "g", "--data", "2").stdout.strip() == "2"


def test_a_fleet_whose_directory_is_moved_or_gone_is_its_own_still(
    fleet: DockerCommands, daemon: docker.DockerClient, tmp_path: Path
) -> None:
    fleet.ok("up", *SMALL)
    fleet.ok("publish", "--group", "g", "--data", "1")
    moved = replace(fleet, state_dir=tmp_path / "moved")
    shutil.copytree(fleet.directory, moved.directory)
    shutil.rmtree(fleet.directory)
    assert steady(moved.status())
    # Who has lost the directory is told how to have the fleet nevertheless, and nothing is touched before.
    aside = tmp_path / "aside"
    shutil.move(moved.directory, aside)
    refused = moved("up", *SMALL)
    assert (refused.code, "if that directory is gone for good" in refused.last) == (1, True)
    assert daemon.containers.get(f"{fleet.project}-shared-0").status == "running"
    subprocess.run(["sh", "-c", refused.last.split("`")[3]], check=True)
    moved.ok("up", *SMALL)
    assert moved.ok("publish", "--group", "g", "--data", "2").stdout.strip() == "2"
    moved.ok("down", "--purge")
    assert volumes(fleet, daemon) == set()


def test_data_without_a_mark_is_gone_on_with_and_outlives_a_start_that_fails(
    fleet: DockerCommands, daemon: docker.DockerClient, tmp_path: Path
) -> None:
    """As that of a fleet which Compose has run is."""
    for part in ("shared-0", "shared-1", "shared-2", "redis_shared", "redis_blue", "redis_green"):
        daemon.volumes.create(f"{fleet.project}_{part}_data", labels={FLEET_LABEL: fleet.project})
    fleet.ok("up", "--replicas", "1", "--shards", "3", "--edges", "1")
    groups = [f"g{number}" for number in range(12)]
    for group in groups:
        fleet.ok("publish", "--group", group, "--data", "1")
    fleet.ok("down")
    shutil.rmtree(fleet.directory)
    daemon.volumes.get(f"{fleet.project}_owner").remove()
    stranger = daemon.containers.create(
        fleet.base["INVOKE_DOCKER_REDIS_IMAGE"], ["sleep", "60"], name=f"{fleet.project}-redis_green"
    )
    assert fleet("up", *SMALL).code == 1
    stranger.remove(force=True, v=True)
    # It is somebody's now, though none of it has a mark.
    other = elsewhere(fleet, tmp_path)
    assert f"kept in {fleet.directory}" in other("up", *SMALL).last
    assert "is left alone" in other.ok("down", "--purge").stdout
    # Its three shards become one.
    fleet.ok("up", *SMALL)
    assert [shard["name"] for shard in fleet.status()["shards"]] == ["shared-0"]
    assert {fleet.ok("publish", "--group", group, "--data", "2").stdout.strip() for group in groups} == {"2"}
    fleet.ok("down", "--purge")
    assert volumes(fleet, daemon) == set()


@pytest.mark.parametrize("how", ["killed", "removed"])
def test_replicas_whose_network_died_are_healed_by_up(
    fleet: DockerCommands, daemon: docker.DockerClient, how: str
) -> None:
    fleet.ok("up", *SMALL)
    holder = daemon.containers.get(f"{fleet.project}-pause_0")
    if how == "killed":
        # As the kernel does: Docker starts it again, with a network that nobody else is in.
        os.kill(holder.attrs["State"]["Pid"], signal.SIGKILL)
    else:
        holder.remove(force=True)
    fleet.until(lambda status: status["state"] == "degraded")
    fleet.ok("up")
    fleet.until(steady)


def test_what_docker_could_not_start_is_told_with_its_reason_and_healed_by_up(
    fleet: DockerCommands, daemon: docker.DockerClient
) -> None:
    """As after a restart of the daemon, which starts what shares a network before what holds it."""
    fleet.ok("up", *SMALL)
    replica, holder = (daemon.containers.get(f"{fleet.project}-{name}") for name in ("app_blue_0", "pause_0"))
    for one in (replica, holder):
        one.stop()
    with pytest.raises(APIError, match="non running container"):
        replica.start()
    told = " ".join(fleet.until(lambda status: status["state"] == "degraded")["warnings"])
    assert "blue-0: Docker could not start it (" in told
    assert "cannot join network of a non running container" in told
    assert "`inv up` tries again" in fleet.ok("status").stdout
    fleet.ok("up")
    assert "could not start" not in str(fleet.until(steady)["warnings"])


def test_more_edges_than_there_is_room_for_are_refused_and_nothing_is_changed(fleet: DockerCommands) -> None:
    fleet.ok("up", *SMALL)
    before = fleet.remembered()
    refused = fleet("up", "--edges", "6")
    assert (refused.code, f"room for 4 edges: `inv down --project {fleet.project}`" in refused.last) == (2, True)
    assert fleet.remembered() == before
    fleet.ok("up", "--edges", "4")
    fleet.ok("restart", "edge-3")
    assert len(fleet.until(steady)["edges"]) == 4


def test_edges_are_counted_by_what_a_container_may_open(fleet: DockerCommands) -> None:
    """Not by what this shell may: a container may open 4,000 files here, an edge of it hold 1,750 sockets."""
    settings = {"INVOKE_FLEET_CONNECTIONS": "3000", "INVOKE_DOCKER_NOFILE": "4000"}
    fleet.ok("up", "--replicas", "1", "--shards", "1", **settings)
    assert len(fleet.until(steady)["edges"]) == 2


def test_images_that_were_removed_are_built_anew(fleet: DockerCommands, daemon: docker.DockerClient) -> None:
    fleet.ok("up", *SMALL)
    for image in (redis_image(fleet.project), edge_image(fleet.project)):
        daemon.images.remove(image, force=True)
    for name in ("shared-0", "traefik_0"):
        daemon.containers.get(f"{fleet.project}-{name}").remove(force=True, v=True)
    fleet.ok("up")
    fleet.until(steady)


def test_an_app_that_is_never_through_with_its_import_is_told_and_leaves_nothing(
    fleet: DockerCommands, daemon: docker.DockerClient, tmp_path: Path
) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "endless.py").write_text("import time\ntime.sleep(3600)\n")
    refused = fleet("up", *SMALL, "--app", "endless:application", "--app-dir", str(app))
    assert (refused.code, "--app endless:application took more than 20 s to import" in refused.last) == (2, True)
    image = daemon.images.list(filters={"label": f"{FLEET_LABEL}={fleet.project}"})
    assert not [one for one in daemon.containers.list(all=True) if one.attrs["Image"] in {each.id for each in image}]


def test_an_up_that_is_interrupted_leaves_no_container(fleet: DockerCommands) -> None:
    with fleet.start("up", *SMALL) as up:
        assert up.stderr is not None
        for line in up.stderr:
            if "starting Redis" in line:
                break
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=120)
    assert up.returncode == 130
    fleet.gone()


def test_a_replica_that_takes_more_memory_than_it_may_is_told(fleet: DockerCommands) -> None:
    refused = fleet("up", *SMALL, INVOKE_DOCKER_APP_MEMORY="16M")
    assert refused.code == 1
    assert "blue-0" in refused.last
    assert "took more than the 16 MB of memory" in refused.last
    fleet.gone()


def test_a_part_near_a_limit_is_told_of(fleet: DockerCommands, daemon: docker.DockerClient) -> None:
    fleet.ok("up", *SMALL, INVOKE_DOCKER_APP_MEMORY="256M", INVOKE_DOCKER_APP_CPUS="0.5")
    status = fleet.status()
    replica = status["replicas"][0]
    assert (replica["memory_limit_bytes"], replica["cpu_limit_percent"]) == (256 * 2**20, 50)
    assert not [warning for warning in status["warnings"] if "memory" in warning]
    assert " MB of 256 MB\t" in fleet.ok("status").stdout
    told = urllib.request.urlopen(f"http://127.0.0.1:{fleet.port}/metrics", timeout=5).read().decode()
    assert re.search(r"^app_memory_limit_bytes\{.*\} 2.68435456e\+08$", told, re.MULTILINE)
    assert re.search(r"^app_cpu_limit_cores\{.*\} 0.5$", told, re.MULTILINE)

    container = daemon.containers.get(f"{fleet.project}-app_blue_0")
    nearly = int(replica["rss_bytes"] / 0.85)
    container.update(mem_limit=nearly, memswap_limit=nearly)
    fleet.until(lambda status: "of the memory it may" in str(status["warnings"]), 40)
    fleet.until(lambda _: "warning: blue-0 uses" in fleet.ok("status").stdout, 40)
    # A second program beside the app would take more than is left.
    container.update(mem_limit="256m", memswap_limit="256m")
    container.exec_run(["sh", "-c", "while :; do :; done"], detach=True)
    fleet.until(lambda status: "of the CPU it may (0.5 cores)" in str(status["warnings"]), 40)


GREEDY = """
kept = []

async def application(scope, receive, send):
    if scope["path"] == "/eat":
        while True:
            kept.append(b"x" * 2**20)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
"""


def test_a_replica_that_is_killed_for_its_memory_comes_back_and_is_told_of(
    fleet: DockerCommands, tmp_path: Path
) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "greedy.py").write_text(GREEDY)
    fleet.ok("up", *SMALL, "--app", "greedy:application", "--app-dir", str(app), INVOKE_DOCKER_APP_MEMORY="64M")
    with contextlib.suppress(OSError, http.client.HTTPException):
        urllib.request.urlopen(f"http://127.0.0.1:{fleet.port}/eat", timeout=30).read()
    status = fleet.until(lambda status: bool(status["warnings"]) and status["state"] == "steady", 40)
    assert status["warnings"][0].startswith("blue-0: Docker started it again")


def test_images_of_releases_that_can_not_come_back_are_deleted(
    fleet: DockerCommands, daemon: docker.DockerClient, tmp_path: Path
) -> None:
    app = tmp_path / "app"
    app.mkdir()
    code = app / "greedy.py"
    code.write_text(GREEDY)
    fleet.ok("up", *SMALL, "--app", "greedy:application", "--app-dir", str(app))
    for number, old in enumerate(("blue", "green")):
        assert fleet.replicas_of(old)
        code.write_text(f"{GREEDY}\n# {number}\n")
        fleet.ok("promote")
        assert fleet.replicas_of(old) == []
    tags = {
        tag for image in daemon.images.list(filters={"label": f"{FLEET_LABEL}={fleet.project}"}) for tag in image.tags
    }
    state = fleet.remembered()
    releases = (state["deployed"][state["active"]]["release"], state["previous"])
    last = {app_image(fleet.project, release) for release in releases}
    assert len(last) == 2
    assert {tag for tag in tags if tag.startswith("shards-app:")} == last
    code.write_text(f"{GREEDY}\n# 0\n")
    fleet.ok("rollback")


def test_no_image_is_left_once_a_fleet_is_purged(fleet: DockerCommands, daemon: docker.DockerClient) -> None:
    """Neither the stage which those of the app are built from, which has no name."""

    def unnamed() -> set[str]:
        ours = {"label": f"{WHEELS_LABEL}={fleet.project}", "dangling": True}
        return {str(image.id) for image in daemon.images.list(filters=ours)}  # type: ignore[arg-type]

    fleet.ok("build", "--into", str(fleet.state_dir / "built"))
    assert len(unnamed()) == 1
    fleet.ok("up", *SMALL)
    assert len(unnamed()) == 1, "what two releases of an app have in common is built once"
    fleet.ok("down", "--purge")
    assert unnamed() == set()
    assert not daemon.images.list(filters={"label": f"{FLEET_LABEL}={fleet.project}"})


def test_a_daemon_that_is_not_running_is_told(fleet: DockerCommands, tmp_path: Path) -> None:
    refused = fleet("up", *SMALL, DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert refused.code == 1
    assert "start Docker, or use --engine local" in refused.last
    assert "Traceback" not in refused.stderr


def test_a_port_that_another_container_has_is_told_with_its_name(
    fleet: DockerCommands, daemon: docker.DockerClient
) -> None:
    image, name = fleet.base["INVOKE_DOCKER_REDIS_IMAGE"], f"{fleet.project}-stranger"
    stranger = daemon.containers.run(
        image, ["sleep", "60"], name=name, ports={"6379/tcp": ("127.0.0.1", fleet.port)}, detach=True
    )
    try:
        refused = fleet("up", *SMALL)
        assert refused.code == 1
        assert f"port {fleet.port} is in use by container {name}" in refused.last
    finally:
        stranger.remove(force=True, v=True)


def test_a_shard_whose_disk_is_full_refuses_and_goes_on_once_there_is_room(
    fleet: DockerCommands, daemon: docker.DockerClient
) -> None:
    """Its volume is one of 1 MB."""
    small = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=1777"}
    daemon.volumes.create(f"{fleet.project}_shared-0_data", driver_opts=small, labels={FLEET_LABEL: fleet.project})
    fleet.ok("up", *SMALL)
    for number in range(20):
        said = fleet("publish", "--group", f"full-{number}", "--data", json.dumps("x" * 60_000))
        if said.code:
            break
    assert said.code == 1, "twenty messages of 60 kB are more than 1 MB"
    assert "not published: the group's shard does not answer" in said.last
    assert "Traceback" not in said.stderr
    status = fleet.until(lambda status: status["state"] == "degraded")
    assert [shard["healthy"] for shard in status["shards"]] == [False]
    assert "AOF" in fleet.ok("logs", "shared-0").stdout
    # Once there is room it takes publishes again by itself.
    volume = daemon.volumes.get(f"{fleet.project}_shared-0_data")
    subprocess.run(["mount", "-o", "remount,size=32m", volume.attrs["Mountpoint"]], check=True)
    fleet.until(steady)
    fleet.ok("publish", "--group", "full-0", "--data", "1")


def test_a_replica_that_was_stopped_by_hand_is_told_of_and_comes_back_with_up(
    fleet: DockerCommands, daemon: docker.DockerClient
) -> None:
    fleet.ok("up", *SMALL)
    daemon.containers.get(f"{fleet.project}-app_blue_0").kill()
    status = fleet.until(lambda status: status["state"] == "degraded")
    assert (status["replicas"][0]["state"], status["replicas"][0]["healthy"]) == ("down", False)
    assert any("blue-0: it has ended (exit code 137)" in warning for warning in status["warnings"])
    fleet.ok("up")
    fleet.until(lambda status: status["state"] == "steady")
