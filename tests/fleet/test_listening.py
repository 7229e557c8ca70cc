"""What of a running fleet listens where, and what it tells who shows nothing: as the kernel has it, and by asking."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import psutil
import pytest
from websockets.sync.client import connect

from shards.fleet import processes
from tests.fleet.conftest import fleet_in
from tests.fleet.runner import Commands

SECONDS = 10


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """A fleet that answers on every address of its host, as one does that the internet shall reach."""
    for commands in fleet_in(tmp_path_factory.mktemp("public"), "public"):
        commands.environment["INVOKE_FLEET_HOST"] = "0.0.0.0"
        commands.ok("up", "--replicas", "1", "--shards", "1", "--edges", "2")
        yield commands


def listeners(commands: Commands) -> dict[tuple[str, int], str]:
    """Give address and port → part, of all that the fleet's processes listen on."""
    found = {}
    for name, part in processes.of_fleet(commands.directory).items():
        for process in part:
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found[connection.laddr.ip, connection.laddr.port] = name
    return found


def test_only_the_fleets_port_can_be_reached_from_elsewhere(public: Commands) -> None:
    found = listeners(public)
    assert {port for address, port in found if address != "127.0.0.1"} == {public.port}
    parts = set(found.values())
    assert {"shared-0", "redis_blue", "redis_green", "redis_shared", "blue-0"} <= parts


def test_no_redis_answers_who_shows_no_password(public: Commands) -> None:
    servers = [port for (_, port), part in listeners(public).items() if part.startswith(("redis_", "shared-"))]
    assert len(servers) == 4
    for port in servers:
        with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as client:
            client.sendall(b"INFO\r\n")
            assert client.recv(100).startswith(b"-NOAUTH")


def status_of(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_edges_admin_routes_are_not_on_the_fleets_port(public: Commands) -> None:
    for path in ("/ping", "/dashboard/", "/api/rawdata", "/api/http/routers", "/debug/pprof/", "/metrics/traefik"):
        code, text = status_of(public.port, path)
        assert code == 404, path
        assert "traefik" not in text.lower(), path


@pytest.mark.parametrize("what", ["messages", "presence"])
def test_the_api_tells_nothing_without_a_token(public: Commands, what: str) -> None:
    assert status_of(public.port, f"/api/groups/room/{what}")[0] == 401


def test_metrics_and_dashboard_tell_no_secret_group_or_address(public: Commands) -> None:
    files = [file for file in (public.directory / "secrets").iterdir() if file.is_file()]
    secrets = {word for file in files for word in file.read_text().split() if len(word) >= 16}
    assert secrets
    sockets = f"ws://127.0.0.1:{public.port}"
    with connect(f"{sockets}/ws/hush-hush/") as member, connect(f"{sockets}/fleet/live") as page:
        session = json.loads(member.recv())["session"]
        member.send('{"type":"publish","id":"1","data":"said in confidence"}')
        views = [str(page.recv()) for _ in range(3)]
        pages = {path: status_of(public.port, path) for path in ("/metrics", "/fleet/", "/readyz", "/livez")}
    assert json.loads(views[-1])["connections"] == 2, "it was looked at while somebody was there"
    assert {code for code, _ in pages.values()} == {200}
    confidential = {*secrets, session, "hush-hush", "said in confidence", "127.0.0.1", str(public.directory)}
    told = [(path, text) for path, (_, text) in pages.items()] + [("/fleet/live", view) for view in views]
    for name, text in told:
        assert not [word for word in confidential if word in text], name


def test_nobody_listens_for_datagrams(public: Commands) -> None:
    kinds = {
        connection.type
        for part in processes.of_fleet(public.directory).values()
        for process in part
        for connection in process.net_connections("inet")
    }
    assert kinds == {socket.SOCK_STREAM}
