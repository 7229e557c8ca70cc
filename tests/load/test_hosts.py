"""Several hosts: each is a process here, which comes over TCP with its own clock and its own generator processes."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import psutil
import pytest

from shards.errors import UsageError
from shards.load import joining, wire
from shards.load.children import Clock
from shards.load.coordinator import Coordinator, Load, Outcome
from shards.load.hosts import OtherHosts
from shards.load.limits import check_ports
from shards.load.resources import Resources
from shards.load.schedule import even_groups, shares
from shards.load.worker import End, end_of
from shards.ports import free_port
from tests.load.elsewhere import Elsewhere, greeted, joined
from tests.load.plain_server import running
from tests.load.server import until
from tests.load.test_coordinator import Nobody
from tests.load.test_main import load, report, start, tmp_path

__all__ = ["tmp_path"]

SMALL = ("--connections", "40", "--group-size", "10", "--rate", "1000", "--connect-rate", "200", "--dialect", "plain")

JOINED = ("--url", "ws://127.0.0.1:1/ws/", "--coordinator", "tcp://127.0.0.1:1", "--secret-file", "good")


class Hosts:
    """A coordinator and its workers."""

    def __init__(self, folder: Path, url: str, workers: int = 2) -> None:
        self.folder, self.url, self.workers = folder, url, workers
        self.address = f"tcp://127.0.0.1:{free_port(())}"
        self.secret = folder / "secret"
        self.secret.write_text("correct horse battery staple\n")

    async def coordinator(self, *arguments: str) -> asyncio.subprocess.Process:
        joined = ("--coordinator", self.address, "--workers", str(self.workers), "--secret-file", str(self.secret))
        return await start(self.folder, "run", "--url", self.url, *SMALL, *joined, *arguments)

    async def worker(self, secret: Path | None = None, processes: int = 1) -> asyncio.subprocess.Process:
        joined = ("--worker", self.address, "--secret-file", str(secret or self.secret))
        return await start(self.folder, *joined, "--processes", str(processes))


async def ended(*processes: asyncio.subprocess.Process) -> list[tuple[int | None, str]]:
    """Wait until all have ended; give their exit status and what they said."""
    async with asyncio.timeout(240):
        said = [await process.communicate() for process in processes]
    return [(process.returncode, (out + err).decode()) for process, (out, err) in zip(processes, said, strict=True)]


async def test_two_hosts_make_one_report(tmp_path: Path) -> None:
    async with running() as server:
        hosts = Hosts(tmp_path, server.url)
        first = await hosts.worker(processes=2)
        coordinator = await hosts.coordinator("--duration", "2")
        second = await hosts.worker()
        (status, said), *workers = await ended(coordinator, first, second)
    document = report(tmp_path)
    assert (status, document["verdict"]) == (0, "pass"), said
    assert [worker[0] for worker in workers] == [0, 0], workers
    assert "Traceback" not in said
    assert "2 of 2 processes were through" in workers[0][1]
    assert document["generator"]["processes"] == 3
    assert document["connections"]["opened"] == 40
    messages = document["messages"]
    assert messages["expected"] == messages["delivered"] == 10 * messages["published"] >= 2000
    assert sum(second["delivered"] for second in document["timeline"]) == messages["delivered"]
    assert {host["host"] for host in document["hosts"]} == {f"{socket.gethostname()} (127.0.0.1)"}
    for host in document["hosts"]:
        assert abs(host["clock_ahead_ms"]) <= host["clock_error_ms"], "these hosts have one clock"


async def test_a_worker_that_is_killed_meanwhile_is_named_and_fails_the_run(tmp_path: Path) -> None:
    async with running() as server:
        hosts = Hosts(tmp_path, server.url)
        coordinator = await hosts.coordinator("--duration", "4")
        workers = [await hosts.worker(), await hosts.worker()]
        await until(lambda: len(server.texts) > 50, seconds=120)
        orphans = psutil.Process(workers[0].pid).children()
        workers[0].kill()
        (status, _), _, (survivor, _) = await ended(coordinator, *workers)
    document = report(tmp_path)
    assert (status, document["verdict"], survivor) == (1, "fail", 0)
    assert len(document["problems"]) == 1
    assert f"on {socket.gethostname()} ended before it was through" in document["problems"][0]
    messages = document["messages"]
    assert messages["expected"] == messages["delivered"] > 0, "the other worker's clients are in the figures"
    await until(lambda: not any(orphan.is_running() for orphan in orphans))


async def test_who_brings_more_processes_than_there_are_groups_is_told_so_and_nothing_failed(tmp_path: Path) -> None:
    async with running() as server:
        hosts = Hosts(tmp_path, server.url)
        coordinator = await hosts.coordinator("--duration", "1")
        assert coordinator.stderr
        first = await hosts.worker(processes=5)
        async with asyncio.timeout(120):
            while b"joined with 5 processes" not in await coordinator.stderr.readline():
                assert not coordinator.stderr.at_eof()
        (status, said), *workers = await ended(coordinator, first, await hosts.worker())
    document = report(tmp_path)
    assert (status, document["problems"]) == (0, []), said
    assert [worker[0] for worker in workers] == [0, 0], workers
    assert "4 of 5 processes were through, 1 not needed: the load has fewer groups than there" in workers[0][1]
    assert "this worker was not needed: the load has fewer groups than there are processes" in workers[1][1]
    assert (document["generator"]["processes"], len(document["hosts"])) == (4, 4), "the four that carried something"


@pytest.mark.parametrize(
    ("told", "said", "end"),
    [
        (("Ask", "Plan", "Go", "Stop", "Bye"), "Done", End.THROUGH),
        (("Ask", "Plan", "Go", "Stop"), "Tick", End.EARLY),
        (("Ask", "Plan", "Go"), "Tick", End.EARLY),
        (("Ask", "Plan"), "Hello", End.EARLY),
        (("Bye",), "Hello", End.SPARE),
        ((), "Hello", End.EARLY),
        ((), "", End.EARLY),
    ],
)
def test_how_a_process_ended_is_known_by_what_it_was_told(told: tuple[str, ...], said: str, end: End) -> None:
    assert end_of(told, said) is end


async def test_a_worker_whose_coordinator_is_killed_ends(tmp_path: Path) -> None:
    async with running() as server:
        hosts = Hosts(tmp_path, server.url, workers=1)
        coordinator = await hosts.coordinator("--duration", "60")
        worker = await hosts.worker()
        await until(lambda: len(server.texts) > 20, seconds=120)
        coordinator.kill()
        [(status, said)] = await ended(worker)
        await coordinator.communicate()
    assert status == 1
    assert "0 of 1 processes were through" in said


async def test_who_has_another_secret_is_refused_and_the_run_waits_for_those_who_belong(tmp_path: Path) -> None:
    async with running() as server:
        hosts = Hosts(tmp_path, server.url, workers=1)
        other = tmp_path / "other"
        other.write_text("incorrect horse battery staple")
        coordinator = await hosts.coordinator("--duration", "1")
        [(status, said)] = await ended(await hosts.worker(other))
        assert (status, "refused this worker: it has another secret" in said) == (1, True), said
        results = await ended(await hosts.worker(), coordinator)
    assert [status for status, _ in results] == [0, 0], results


async def test_workers_that_do_not_come_are_waited_for_no_longer_than_asked(tmp_path: Path) -> None:
    async with running() as server:
        hosts = Hosts(tmp_path, server.url)
        [(status, said)] = await ended(await hosts.coordinator("--join-timeout", "1"))
    assert status == 1
    assert "error: 0 of 2 workers joined within 1 s: start the others with" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "--coordinator", "tcp://127.0.0.1:1"), "share a secret: --secret-file FILE"),
        (("run", "--coordinator", "127.0.0.1:1"), "is no address to join at: write for instance tcp://10.0.0.1:7000"),
        (("--worker", "tcp://127.0.0.1:1", "--secret-file", "nowhere"), "cannot read the secret in nowhere"),
        (("--worker", "tcp://127.0.0.1:1", "--secret-file", "short"), "too short: make one with `openssl rand"),
        (("run", "--coordinator", "tcp://127.0.0.1:1", "--secret-file", "good"), "give a --url that workers reach"),
        (("run", *JOINED, "--steps", "10,20"), "are there for one load, so no steps (--steps) with --coordinator"),
        (("gradual", *JOINED), "are there for one load, so no steps (--steps) with --coordinator"),
        (("run", *JOINED, "--runs", "2"), "are there for one load, so no runs (--runs, RUNS) with --coordinator"),
        ((), "which scenario? there are: loadtest-10k"),
    ],
)
async def test_wrong_usage_is_one_line(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    (tmp_path / "short").write_text("abc")
    (tmp_path / "good").write_text("x" * 32)
    status, said = await load(tmp_path, *arguments)
    assert (status, says in said) == (2, True), said


SECRET = b"correct horse battery staple"
CHALLENGE = joining.Challenge("1" * 32)
JOIN = joining.Join("w", "web-2", 0, 2, "2" * 32)


def test_a_proof_holds_for_its_secret_its_run_and_what_was_said() -> None:
    proof = joining.worker_proof(SECRET, CHALLENGE, JOIN)
    assert joining.same(proof, joining.worker_proof(SECRET, CHALLENGE, JOIN))
    others = [
        joining.worker_proof(b"another", CHALLENGE, JOIN),
        joining.worker_proof(SECRET, joining.Challenge("3" * 32), JOIN),
        joining.worker_proof(SECRET, CHALLENGE, msgspec.structs.replace(JOIN, of=3)),
        joining.coordinator_proof(SECRET, CHALLENGE, JOIN),
    ]
    assert not any(joining.same(proof, other) for other in others)


async def test_the_secret_is_not_sent_and_a_worker_obeys_nobody_who_has_it_not(tmp_path: Path) -> None:
    """An impostor says Welcome to all; what it heard is all that a worker sends."""
    heard: list[bytes] = []

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        joining.say(writer, CHALLENGE)
        heard.append(await reader.readline())
        joining.say(writer, joining.Welcome("0" * 64))
        heard.append(await reader.read())
        writer.close()

    async with await asyncio.start_server(impostor, "127.0.0.1", 0) as listening:
        hosts = Hosts(tmp_path, "ws://127.0.0.1:1/ws/")
        hosts.address = f"tcp://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        [(status, said)] = await ended(await hosts.worker())
    assert (status, "has another secret: it is not obeyed" in said) == (1, True), said
    assert json.loads(heard[0])["type"] == "Join"
    assert b"horse" not in b"".join(heard)
    assert heard[1] == b""


@pytest.mark.parametrize("there_and_back", [(100, 100), (900, 100), (0, 1000)])
def test_a_clock_is_known_to_half_of_the_time_that_asking_takes(there_and_back: tuple[int, int]) -> None:
    there, back = there_and_back
    clock = Clock()
    clock.learn(10_000, 10_000 + there + 5_000_000, 10_000 + there + back)
    assert clock.error_ns is not None
    assert abs(clock.ahead_ns - 5_000_000) <= clock.error_ns


def test_the_quickest_answer_counts() -> None:
    clock = Clock()
    clock.learn(0, 5_000_900, 1000)
    clock.learn(2000, 5_002_001, 2002)
    clock.learn(3000, 5_003_400, 3500)
    assert (clock.ahead_ns, clock.error_ns) == (5_000_000, 1)


def test_a_host_with_too_few_ports_for_its_part_is_named() -> None:
    parts = shares(even_groups(60_000, 10, 1000), 3)
    check_ports([("a", 22_585), ("b", 22_585), ("c", 22_585)], parts)
    with pytest.raises(UsageError, match=r"40000 connections from a need more ports .* at most 22585, or more workers"):
        check_ports([("a", 22_585), ("a", 22_585), ("b", 22_585)], parts)


@asynccontextmanager
async def namesakes(*sources: str) -> AsyncIterator[tuple[asyncio.Task[Outcome], list[Elsewhere]]]:
    """Load with two processes that have 15 ports each, on hosts of one name at these addresses; all carry ten."""
    address = ("127.0.0.1", free_port(()))
    team = OtherHosts(address, SECRET, 2, 60, lambda _: None)
    load = Load("ws://127.0.0.1:1/ws/", connections=20, duration_s=1, rate=400, dialect="plain")
    run = asyncio.create_task(Coordinator(load, Resources(), Nobody(), team=team).run())
    came = []
    for source in sources:
        join = joining.Join(joining.new_nonce(), "web", 0, 1, joining.new_nonce())
        came.append(await joined(address, SECRET, join, source, ports=15))
    listening = [asyncio.create_task(process.listen()) for process in came]
    try:
        yield run, came
    finally:
        for process in came:
            process.hang_up()
        await asyncio.wait([run, *listening], timeout=60)


async def test_hosts_that_call_themselves_alike_are_told_apart_by_their_addresses() -> None:
    async with namesakes("127.0.0.1", "127.0.0.2") as (run, processes):
        await until(lambda: run.done() or all(process.told for process in processes))
        plans = [order for process in processes for order in process.told if isinstance(order, wire.Plan)]
    assert [sum(group.size for group in plan.groups) for plan in plans] == [10, 10]


async def test_processes_of_one_host_share_its_ports() -> None:
    async with namesakes("127.0.0.1", "127.0.0.1") as (run, _):
        with pytest.raises(UsageError, match=r"20 connections from web \(127.0.0.1\) need more ports .* at most 15"):
            await run


class Waiting:
    """A coordinator's `OtherHosts`, as long as it waits for two workers.

    Attributes:
        told: what it told the user.
    """

    def __init__(self) -> None:
        self.address = ("127.0.0.1", free_port(()))
        self.told: list[str] = []
        self.team = OtherHosts(self.address, SECRET, 2, 60, self.told.append)
        self.came: list[Elsewhere] = []

    async def joins(self, worker: str, index: int = 0, of: int = 1) -> Elsewhere:
        join = joining.Join(worker, worker, index, of, joining.new_nonce())
        self.came.append(await joined(self.address, SECRET, join))
        return self.came[-1]

    async def refused(self, worker: str, index: int = 0, of: int = 1) -> str:
        join = joining.Join(worker, worker, index, of, joining.new_nonce())
        _, writer, answer = await greeted(self.address, SECRET, join)
        writer.close()
        assert isinstance(answer, joining.Refused)
        return answer.why

    async def leaves(self, process: Elsewhere) -> None:
        """Have a process hang up, and wait until that has been noticed."""
        before = self.left()
        process.hang_up()
        await until(lambda: self.left() > before, seconds=20)

    def left(self) -> int:
        return sum("left before all workers were there" in text for text in self.told)


@asynccontextmanager
async def waiting() -> AsyncIterator[tuple[Waiting, asyncio.Task[list[str]]]]:
    """Give who waits, and a task that gives of each process its number and host, once all are there."""

    async def assemble() -> list[str]:
        async with asyncio.timeout(60), made.team.assembled() as children:
            return [str(child) for child in children]

    made = Waiting()
    task = asyncio.create_task(assemble())
    try:
        yield made, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for process in made.came:
            process.hang_up()


async def test_a_worker_that_leaves_before_the_others_are_there_leaves_its_place_to_the_next() -> None:
    async with waiting() as (made, children):
        await made.leaves(await made.joins("a"))
        await made.joins("b")
        await made.joins("c")
        assert await children == ["generator process 0 on b", "generator process 1 on c"]
    assert made.told[1:3] == [
        "a joined with 1 processes",
        "a left before all workers were there: its place is free again",
    ]


async def test_a_worker_that_leaves_with_one_of_its_processes_leaves_with_all() -> None:
    async with waiting() as (made, children):
        first, second = await made.joins("a", 0, 3), await made.joins("a", 1, 3)
        await made.leaves(first)
        async with asyncio.timeout(60):
            await second.listen()
        assert await made.refused("a", 2, 3) == "another process of this worker has left"
        for worker, index, of in (("b", 1, 2), ("b", 0, 2), ("c", 0, 1)):
            await made.joins(worker, index, of)
        assert [child.split()[-1] for child in await children] == ["b", "b", "c"]
    assert made.left() == 1


async def test_as_long_as_it_is_there_a_worker_keeps_its_place() -> None:
    async with waiting() as (made, children):
        await made.joins("a", 0, 2)
        await made.joins("b")
        assert await made.refused("c") == "all 2 workers are there already"
        assert await made.refused("a", 0, 2) == await made.refused("a", 1, 3) == "that place is taken"
        await made.joins("a", 1, 2)
        assert len(await children) == 3
    assert made.left() == 0


async def test_a_run_begins_with_the_workers_that_are_there(tmp_path: Path) -> None:
    async with running() as server:
        hosts = Hosts(tmp_path, server.url)
        coordinator = await hosts.coordinator("--duration", "1")
        first = await hosts.worker()
        assert first.stderr
        assert coordinator.stderr
        async with asyncio.timeout(120):
            assert b"joined the coordinator" in await first.stderr.readline()
            first.kill()
            while b"left before all workers were there" not in await coordinator.stderr.readline():
                assert not coordinator.stderr.at_eof()
        results = await ended(coordinator, await hosts.worker(), await hosts.worker(), first)
    assert [status for status, _ in results[:3]] == [0, 0, 0], results
    assert report(tmp_path)["connections"]["opened"] == 40


async def test_a_process_that_reports_nonsense_is_left_out_and_named(tmp_path: Path) -> None:
    """Somebody who has the secret, and speaks something else."""

    async def nonsense(address: str) -> None:
        join = joining.Join("w", "elsewhere", 0, 1, joining.new_nonce())
        reader, writer, _ = await greeted(joining.tcp_address(address), SECRET, join)
        writer.write(b'{"type":"Hello","descriptors":20000,"sockets_per_address":20000}\nnonsense\n')
        await reader.read()
        writer.close()

    async with running() as server:
        hosts = Hosts(tmp_path, server.url, workers=1)
        coordinator = await hosts.coordinator("--duration", "1")
        async with asyncio.timeout(240):
            await asyncio.gather(nonsense(hosts.address), results := asyncio.ensure_future(ended(coordinator)))
    [(status, said)] = results.result()
    assert status == 1, said
    assert "on elsewhere said what is no report" in report(tmp_path)["problems"][0]
