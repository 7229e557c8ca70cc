"""A port that was chosen stays its chooser's, and a server of any kind can listen on it."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator

import pytest

from shards import ports
from shards.ports import free_port


@pytest.fixture
def one_port(monkeypatch: pytest.MonkeyPatch) -> int:
    """Leave one port to choose from, which is chosen."""
    port = free_port(())
    monkeypatch.setattr(ports, "LISTEN_PORTS", (port, port + 1))
    return port


def test_it_is_not_chosen_again_before_anything_listens_on_it(one_port: int) -> None:
    with pytest.raises(OSError, match="no free port"):
        free_port(())


def test_servers_can_listen_on_it_also_several_that_share_it() -> None:
    with socket.create_server(("127.0.0.1", free_port(()))):
        pass
    address = ("127.0.0.1", free_port(()))
    with socket.create_server(address, reuse_port=True), socket.create_server(address, reuse_port=True):
        pass


def test_what_others_listen_on_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(ports, "LISTEN_PORTS", (port, port + 1))
        with pytest.raises(OSError, match="no free port"):
            free_port(())


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin with none chosen, and let go in the end."""
    held: deque[socket.socket] = deque()
    monkeypatch.setattr(ports, "_held", held)
    yield
    for sock in held:
        sock.close()


@pytest.mark.usefixtures("held")
def test_of_very_many_the_first_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long test run chooses thousands, and each is an open file."""
    monkeypatch.setattr(ports, "_MOST_HELD", 1)
    first = free_port(())
    free_port(())
    monkeypatch.setattr(ports, "LISTEN_PORTS", (first, first + 1))
    assert free_port(()) == first


def test_promised_ones_are_avoided(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(ports, "LISTEN_PORTS", (port, port + 1))
    with pytest.raises(OSError, match="no free port"):
        free_port([port])
