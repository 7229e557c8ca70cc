"""What a fleet's services are in a swarm, and the stack file that says the same."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from shards.errors import ShardsError
from shards.fleet import layout
from shards.fleet.engines.base import EdgePart
from shards.fleet.engines.docker import compose
from shards.fleet.engines.docker.options import DockerOptions
from shards.fleet.engines.swarm import nodes, render, stack
from shards.fleet.engines.swarm.daemons import Daemons
from shards.fleet.engines.swarm.engine import SwarmEngine
from shards.fleet.engines.swarm.nodes import Node
from shards.fleet.engines.swarm.stack import Stack
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetDir, FleetState

SECRET = "not to be seen"
SECRETS = {kind: {"redis": SECRET} for kind in ("app", "redis", "route")}
NODES = [Node(f"id{i}", f"n{i}", f"10.0.0.{i}", True, True, i == 1, 2) for i in (1, 2, 3)]


def fleet() -> FleetState:
    state = compose.fresh(FleetSpec(engine="swarm", replicas=3, shards=3, edges=3), "swarm")
    places = nodes.place(layout.names(state), {}, NODES)
    return FleetState(**{**state.__dict__, "places": places})


def shape() -> Stack:
    return Stack(fleet(), DockerOptions(Path()), SECRETS, 2)


def test_parts_find_one_another_at_their_nodes_addresses() -> None:
    state, found = fleet(), {one.name: one for one in stack.services(shape())}
    replica = found["app_blue_1"]
    assert replica.node == "n2"
    assert replica.environment["SHARDS_HOST"] == "10.0.0.2", "not on every address that the node may have"
    assert replica.environment["MESSAGE_REDIS_URL"] == f"redis://10.0.0.1:{state.ports['redis_shared']}/0"
    assert layout.shards(state)[2].url == f"redis://10.0.0.3:{state.ports['shared-2']}/0"
    assert found["shared-2"].command[3:6] == ("--bind", "10.0.0.3", "127.0.0.1")
    assert json.loads(found["prepare"].environment["SHARDS_ROUTE"])["http"]["services"]["blue"]["loadBalancer"][
        "servers"
    ] == [{"url": f"http://10.0.0.{i}:{state.ports[f'blue-{i - 1}']}"} for i in (1, 2, 3)]


def test_edges_ask_on_loopback_where_to_send_requests_and_answer_about_themselves_there_only() -> None:
    state = fleet()
    edge = yaml.safe_load(stack.static(EdgePart("edge-1", 28_000, "10.0.0.2"), state))
    assert edge["entryPoints"]["web"]["address"] == "10.0.0.2:8000"
    assert edge["entryPoints"]["traefik"]["address"] == "127.0.0.1:28000"
    assert edge["providers"]["http"]["endpoint"] == f"http://127.0.0.1:{state.ports['route']}/route"


def test_no_secret_is_in_a_service_or_in_the_stack_file(tmp_path: Path) -> None:
    found = shape()
    ids = dict.fromkeys([*render.texts(found)[0], *render.texts(found)[1]], "id")
    for one in stack.services(found):
        said = json.dumps(stack.task_template("shards", one, one.image, ids, 4096, 2))
        assert SECRET not in said
    assert SECRET not in render.render(found, tmp_path, 4096)


async def test_no_service_is_given_the_admins_password_and_none_changes_while_they_run(tmp_path: Path) -> None:
    directory = FleetDir(tmp_path, "p")
    directory.create()
    engine = SwarmEngine(FleetSpec("p", "swarm"), directory, DockerOptions(Path()), Daemons([]), print)
    given = engine._secrets()
    assert set(given["route"]) == {"redis-app"} < set(given["app"])
    assert not [name for names in given.values() for name, text in names.items() if directory.password() in text]
    with pytest.raises(ShardsError, match="while services have them"):
        await engine.spread_secrets([])


def test_no_task_may_use_more_cores_than_its_node_has() -> None:
    one = next(one for one in stack.services(shape()) if one.name == "app_blue_0")
    ids = {file.name: "id" for file in one.secrets}
    limits = stack.task_template("shards", one, one.image, ids, 4096, 2)["Resources"]["Limits"]
    assert limits == {"MemoryBytes": 4 * 2**30, "NanoCPUs": 2_000_000_000}


def test_no_log_grows_without_end_whoever_has_made_the_service(tmp_path: Path) -> None:
    found = shape()
    rendered = yaml.safe_load(render.render(found, tmp_path, 4096))["services"]
    ids = dict.fromkeys([*render.texts(found)[0], *render.texts(found)[1]], "id")
    for one in stack.services(found):
        driver = stack.task_template("shards", one, one.image, ids, 4096, 2)["LogDriver"]
        assert rendered[one.name]["logging"] == {"driver": driver["Name"], "options": driver["Options"]}, one.name
        assert driver["Options"].keys() == {"max-size", "max-file"}, one.name


def test_a_secret_that_changes_is_another_one() -> None:
    assert stack.file_name("app", "redis", "a") != stack.file_name("app", "redis", "b")


def test_docker_takes_the_stack_file(tmp_path: Path) -> None:
    if shutil.which("docker") is None:
        pytest.skip("no docker on PATH")
    file = tmp_path / "stack.yml"
    file.write_text(render.render(shape(), tmp_path, 4096))
    said = subprocess.run(["docker", "stack", "config", "-c", str(file)], check=False, capture_output=True, text=True)
    if "unknown" in said.stderr or "is not a docker command" in said.stderr:
        pytest.skip("this docker has no `stack config`")
    assert said.returncode == 0, said.stderr
    services = yaml.safe_load(said.stdout)["services"]
    assert {"shared-0", "redis_shared", "prepare", "route", "app_blue_2", "traefik_2"} <= set(services)
    route = services["prepare"]["environment"]["SHARDS_ROUTE"].replace("$$", "$")
    assert "(?i)^websocket$" in route, "a dollar is no variable"
