"""What of a fleet in containers its host can reach, what everybody can, and what it tells who shows nothing."""

from __future__ import annotations

import http.client
import secrets
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import docker
import pytest

from shards.fleet.engines.docker.stack import FLEET_LABEL, SERVICE_LABEL
from shards.ports import free_port
from tests.contract.engines import DockerCommands, fleets, on_this_host

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]

SECONDS = 10


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerCommands]:
    """A fleet that answers on every address of its host, as one does that the internet shall reach."""
    on_this_host("docker")
    directory = tmp_path_factory.mktemp("public")
    for commands in fleets("docker", directory / "fleets", free_port(()), f"t-{secrets.token_hex(4)}", None):
        assert isinstance(commands, DockerCommands)
        commands.environment["INVOKE_FLEET_HOST"] = "0.0.0.0"
        commands.ok("up", "--replicas", "1", "--shards", "1", "--edges", "1")
        yield commands


@pytest.fixture(scope="module")
def published(public: DockerCommands) -> list[tuple[str, str, int]]:
    """Service, address and port of the host, of all that the daemon publishes of the fleet."""
    client = docker.from_env()
    found = []
    for container in client.containers.list(filters={"label": f"{FLEET_LABEL}={public.project}"}):
        for bindings in container.attrs["NetworkSettings"]["Ports"].values():
            for one in bindings or ():
                found.append((container.labels[SERVICE_LABEL], one["HostIp"], int(one["HostPort"])))
    client.close()
    return found


def test_only_the_fleets_port_can_be_reached_from_elsewhere(
    public: DockerCommands, published: list[tuple[str, str, int]]
) -> None:
    assert {(service, port) for service, address, port in published if address != "127.0.0.1"} == {
        ("pause_edge", public.port)
    }
    services = {service for service, _, _ in published}
    assert {"shared-0", "redis_blue", "redis_green", "redis_shared", "pause_0"} <= services, "docs/security.md says so"


def test_no_redis_answers_who_shows_no_password(published: list[tuple[str, str, int]]) -> None:
    ports = [port for service, _, port in published if service.startswith(("redis_", "shared-"))]
    assert len(ports) == 4
    for port in ports:
        with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as client:
            client.sendall(b"INFO\r\n")
            assert client.recv(100).startswith(b"-NOAUTH")


def status_of(port: int, path: str) -> int | None:
    """Ask for a page; None: Docker has the port, and nobody in the container does."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (http.client.RemoteDisconnected, ConnectionResetError):
        return None


def test_the_edges_admin_routes_are_on_loopback_and_not_on_the_fleets_port(
    public: DockerCommands, published: list[tuple[str, str, int]]
) -> None:
    admin = [port for service, address, port in published if service == "pause_edge" and address == "127.0.0.1"]
    # One for each edge that there may be; of these one is there.
    answers = [found for port in admin if (found := status_of(port, "/api/rawdata")) is not None]
    assert answers == [200], "docs/security.md says that nothing is asked"
    for path in ("/ping", "/dashboard/", "/api/rawdata", "/debug/pprof/"):
        assert status_of(public.port, path) == 404, path
