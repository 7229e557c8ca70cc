"""A worker that hands sockets to one that errs or dies at every point; and one that is offered what it can't take."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import msgspec
import pytest
from redis.asyncio import Redis
from websockets.exceptions import ConnectionClosed

from shards.carried import Carried
from shards.metrics import Metrics
from shards.router.control import Control, WorkerRecord
from shards.server.handoff import taker as handoff_taker
from shards.server.handoff.giver import ANSWER_SECONDS, Taker
from shards.server.handoff.link import Stranger, check_peer
from shards.server.handoff.message import Frames, Go, Hello, Offer, Ready, Refused, Sorry, Welcome, pack, read_message
from shards.server.handoff.taker import Arrivals
from shards.server.handoff.window import MOST
from tests.replica import Replica
from tests.server.test_handoff import activate, handed, until
from tests.server.test_wire import enter

ENVIRON = {"SHARDS_RATE_LIMIT": "0"}

_SECONDS = 60

ANOTHER_USER = os.geteuid() + 1


class Peer:
    """The other end of a worker's UNIX socket, blocking, with a deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(_SECONDS)
        self.descriptors: list[int] = []
        self._frames = Frames()
        self._read: list[bytes] = []

    def read(self) -> bytes | None:
        """Read a frame; None at the end."""
        while not self._read:
            data, descriptors, _, _ = socket.recv_fds(self.sock, 1 << 16, 200)
            self.descriptors += descriptors
            if not data:
                return None
            self._read += self._frames.feed(data)
        return self._read.pop(0)

    def say(self, message: object) -> None:
        self.sock.sendall(pack(message))  # type: ignore[arg-type]

    def offer(self) -> Offer:
        """Greet, and read the first offer; ConnectionError of a giver that has nothing left to give."""
        self.read()
        self.say(Welcome())
        frame = self.read()
        if frame is None:
            raise ConnectionError("the giver went without an offer")
        offer = read_message(frame)
        assert isinstance(offer, Offer)
        return offer

    def close(self) -> None:
        self.sock.close()
        for descriptor in self.descriptors:
            os.close(descriptor)


def dies_at_once(peer: Peer) -> None:
    """Before it has heard anything."""


def dies_after_hello(peer: Peer) -> None:
    peer.read()


def speaks_another_version(peer: Peer) -> None:
    peer.read()
    peer.say(Sorry("versions 1 are not known here, only 2"))


def welcomes_and_dies(peer: Peer) -> None:
    peer.read()
    peer.say(Welcome())


def dies_with_an_offer(peer: Peer) -> None:
    peer.offer()


def refuses(peer: Peer) -> None:
    peer.say(Refused(peer.offer().id, "not today"))
    peer.read()


def talks_nonsense(peer: Peer) -> None:
    peer.offer()
    peer.sock.sendall(b"\x00\x00\x00\x03abc")
    peer.read()


def hangs(peer: Peer) -> None:
    peer.offer()
    while peer.read() is not None:
        pass


def dies_ready(peer: Peer) -> None:
    """Before it can be told to go."""
    offer = peer.offer()
    peer.sock.shutdown(socket.SHUT_RD)
    peer.say(Ready(offer.id))


def announces_too_much(peer: Peer) -> None:
    peer.offer()
    peer.sock.sendall(b"\xff\xff\xff\xff")
    peer.read()


def homes(replica: Replica) -> set[str]:
    """Name the replicas that some groups are at home at, by what a replica has read of the registry."""
    return {json.loads(replica.get(f"/api/route?group=g{number}")[1])["home"] for number in range(40)}


@asynccontextmanager
async def taker(service: Replica, path: Path, behaves: Callable[[Peer], None]) -> AsyncIterator[str]:
    """A worker in the registry that behaves so towards each giver; gives its replica's name."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with suppress(OSError):
            while True:
                with closing(Peer(listener.accept()[0])) as peer, suppress(ConnectionError):
                    behaves(peer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    record = WorkerRecord("green-9/1", "green", "green-9", "1", 1, "active", 0, "r", 1, 0.0, handoff=str(path))
    async with Redis.from_url(service.control.url) as redis:
        control = Control(redis)

        async def beat() -> None:
            while True:
                await control.heartbeat(record, b"")
                await asyncio.sleep(0.5)

        beating = asyncio.create_task(beat())
        try:
            # A worker that knows of it gives it some of the groups.
            await until(lambda: "green-9" in homes(service))
            yield "green-9"
        finally:
            beating.cancel()
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            await control.forget(record.name)
            await asyncio.to_thread(thread.join, _SECONDS)


BEHAVIOURS = [
    dies_at_once,
    dies_after_hello,
    speaks_another_version,
    welcomes_and_dies,
    dies_with_an_offer,
    refuses,
    talks_nonsense,
    announces_too_much,
    hangs,
    dies_ready,
]


@pytest.mark.parametrize("behaves", BEHAVIOURS, ids=lambda behaves: behaves.__name__)
async def test_a_socket_that_nobody_takes_goes_on_where_it_is(
    service: list[Replica], tmp_path: Path, behaves: Callable[[Peer], None]
) -> None:
    """It misses nothing meanwhile, and is drained in the end."""
    old, other = service
    member, talker = await enter(old.ws + "kept/"), await enter(other.ws + "kept/")
    offset = (await member.hear())["offset"]
    await talker.hear()
    async with taker(old, tmp_path / "s", behaves) as name:
        old.order("draining", 8000, (name,), alone=True)
        try:
            heard = 0
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    await talker.say(type="publish", id=str(heard), data=heard)
                    while (frame := await member.hear())["type"] != "message":
                        assert frame["type"] == "reconnect"
                    await talker.hear_all(2)
                    heard += 1
                    assert frame["offset"] == offset + heard
                    await asyncio.sleep(0.01)
            assert heard
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        finally:
            await activate(old)
    talker.ws.transport.abort()


async def test_one_that_hangs_keeps_nobody_from_going_to_another(service: list[Replica], tmp_path: Path) -> None:
    """It has fewest, so each would be offered to it first."""
    old, other = service
    clients = [await enter(old.ws) for _ in range(3 * MOST)]
    before = handed(other, "taken")
    async with taker(old, tmp_path / "s", hangs) as name:
        old.order("draining", 60_000, (name, other.name), alone=True)
        try:
            await until(lambda: handed(other, "taken") == before + len(clients), seconds=3 * ANSWER_SECONDS)
        finally:
            await activate(old)
    for client in clients:
        await client.say(type="ping")
        assert await client.hear() == {"type": "pong"}
        await client.close()


async def test_a_giver_that_says_nothing_is_sent_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No garbage is collected while it is there."""
    monkeypatch.setattr(handoff_taker, "QUIET_SECONDS", 2.0)
    arrivals = Arrivals(tmp_path / "h" / "r-1", pytest.fail, lambda: False, Metrics())
    arrivals.listen()
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_unix_connection(str(arrivals.path))
            writer.write(pack(Hello("old-0/1")))
            assert await reader.readexactly(len(pack(Welcome())))
            assert not gc.isenabled()
            assert await reader.read() == b""
        assert gc.isenabled()
        writer.close()
    finally:
        arrivals.stop()


async def test_who_dies_after_go_costs_its_sockets_only_a_reconnect(service: list[Replica], tmp_path: Path) -> None:
    old, _ = service
    client = await enter(old.ws + "given/")
    place = await client.hear()

    def takes_and_dies(peer: Peer) -> None:
        offer = peer.offer()
        peer.say(Ready(offer.id))
        frame = peer.read()
        assert frame is not None
        assert isinstance(read_message(frame), Go)

    async with taker(old, tmp_path / "s", takes_and_dies) as name:
        old.order("draining", 20_000, (name,), alone=True)
        try:
            with pytest.raises(ConnectionClosed):
                await client.hear()
        finally:
            await activate(old)
    back = await enter(old.ws + f"given/?epoch={place['epoch']}&offset={place['offset']}")
    assert (await back.hear())["recovered"]
    await back.close()


def connect_to(replica: Replica) -> Peer:
    """Connect to a worker's UNIX socket as a giver would."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(_SECONDS)
    assert replica.process is not None
    sock.connect(str(Path(replica.environ["SHARDS_HANDOFF_DIR"]) / f"{replica.name}-{replica.process.pid}"))
    return Peer(sock)


def an_offer(id: int = 1) -> Offer:
    carried = Carried(session="s", public_id="p")
    return Offer(id, ("127.0.0.1", 1), ("127.0.0.1", 2), "", "/ws/", b"/ws/", b"", [], [], carried=carried)


def offer_with(peer: Peer, message: Offer, descriptor: int | None) -> None:
    descriptors = [] if descriptor is None else [descriptor]
    socket.send_fds(peer.sock, [pack(message)], descriptors)


async def test_a_giver_of_another_version_is_told_so(service: list[Replica]) -> None:
    peer = connect_to(service[0])
    peer.say(Hello("new-0/1", (2, 3)))
    frame = await asyncio.to_thread(peer.read)
    assert frame is not None
    assert msgspec.msgpack.decode(frame)["type"] == "sorry"
    peer.close()


@pytest.mark.parametrize("point", ["offered", "ready"])
async def test_a_giver_that_dies_before_go_leaves_nothing_behind(service: list[Replica], point: str) -> None:
    """Its copy of the socket is closed, and the consumer is gone."""
    new = service[0]
    before = handed(new, "turned_back")
    client, server = socket.socketpair()
    peer = connect_to(new)
    peer.say(Hello("old-0/1"))
    assert await asyncio.to_thread(peer.read)
    offer_with(peer, an_offer(), server.fileno())
    server.close()
    if point == "ready":
        frame = await asyncio.to_thread(peer.read)
        assert frame is not None
        assert read_message(frame) == Ready(1)
    peer.close()
    client.settimeout(_SECONDS)
    assert await asyncio.to_thread(client.recv, 100) == b""
    await until(lambda: handed(new, "turned_back") == before + 1)
    client.close()


@pytest.mark.parametrize("wrong", ["no descriptor", "twice the same", "not its turn", "nonsense", "before the hello"])
async def test_a_giver_that_makes_no_sense_is_cut_off(service: list[Replica], wrong: str) -> None:
    peer = connect_to(service[0])
    client, server = socket.socketpair()
    if wrong != "before the hello":
        peer.say(Hello("old-0/1"))
        assert await asyncio.to_thread(peer.read)
    match wrong:
        case "no descriptor":
            offer_with(peer, an_offer(), None)
        case "twice the same":
            offer_with(peer, an_offer(), server.fileno())
            offer_with(peer, an_offer(), server.fileno())
        case "not its turn":
            peer.say(Ready(1))
        case "nonsense":
            peer.sock.sendall(b"\x00\x00\x00\x02{}")
        case "before the hello":
            offer_with(peer, an_offer(), server.fileno())
    server.close()

    def until_cut_off() -> None:
        with suppress(ConnectionResetError):
            while peer.read() is not None:
                pass

    await asyncio.to_thread(until_cut_off)
    assert client.recv(100) == b""
    peer.close()
    client.close()
    assert service[0].get("/readyz")[0] == 200


async def test_what_is_no_tcp_socket_costs_nobody_else_anything(service: list[Replica], tmp_path: Path) -> None:
    peer = connect_to(service[0])
    peer.say(Hello("old-0/1"))
    assert await asyncio.to_thread(peer.read)
    with (tmp_path / "file").open("wb") as file:
        offer_with(peer, an_offer(), file.fileno())
    frame = await asyncio.to_thread(peer.read)
    assert frame is not None
    peer.say(Go(1))
    await asyncio.to_thread(peer.close)
    await until(lambda: service[0].get("/readyz")[0] == 200)
    client = await enter(service[0].ws)
    await client.close()
    assert service[0].metric_of("app_handoff_total", result="lost") == 1


def test_only_the_same_user_is_let_in() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    check_peer(one)
    with pytest.raises(Stranger):
        check_peer(one, uid=os.geteuid() + 1)
    one.close()
    other.close()


async def test_a_giver_of_another_user_is_not_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrivals = Arrivals(tmp_path / "h" / "r-1", pytest.fail, lambda: False, Metrics())
    arrivals.listen()
    try:
        monkeypatch.setattr(os, "geteuid", lambda: ANOTHER_USER)
        reader, writer = await asyncio.open_unix_connection(str(arrivals.path))
        writer.write(pack(Hello("old-0/1")))
        async with asyncio.timeout(_SECONDS):
            with suppress(OSError):
                assert await reader.read(100) == b""
        writer.close()
    finally:
        arrivals.stop()


async def test_a_taker_of_another_user_is_told_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set_result(await reader.read(100))
        writer.close()

    path = str(tmp_path / "s")
    async with await asyncio.start_unix_server(hear, path):
        monkeypatch.setattr(os, "geteuid", lambda: ANOTHER_USER)
        taker = Taker(WorkerRecord("green-0/1", "green", "green-0", "1", 1, "active", 0, "r", 1, 0.0, handoff=path))
        with pytest.raises(Stranger):
            await taker.greet("old-0/1")
        async with asyncio.timeout(_SECONDS):
            assert await heard == b""


def test_others_cannot_reach_the_sockets(service: list[Replica]) -> None:
    directory = Path(service[0].environ["SHARDS_HANDOFF_DIR"])
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in directory.iterdir()} == {0o600}
