"""The dashboard: what it tells of a fleet, and to whom."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from shards.router.control import Event, WorkerRecord
from shards.router.table import Shard, SlotTable
from shards.server.dashboard.figures import Reading, shown
from shards.server.dashboard.observer import Observer, newest_reports
from shards.server.dashboard.seats import Seats
from tests.replica import Replica
from tests.server.test_wire import enter

View = dict[str, Any]
DELIVERED, BUCKET = ("app_messages_delivered_total", ""), "app_delivery_seconds_bucket"


def record(name: str, connections: int) -> WorkerRecord:
    replica = name.split("/")[0]
    return WorkerRecord(name, replica.split("-")[0], replica, "0", 1, "active", connections, "r1", 3, 0.0)


class TestFigures:
    """Pure."""

    def test_rates_and_latencies_are_of_the_time_in_between(self) -> None:
        before = Reading(10.0, [record("blue-0/1", 5)], {"blue-0/1": {DELIVERED: 100.0, (BUCKET, "0.01"): 100.0}})
        counts = {DELIVERED: 600.0, (BUCKET, "0.01"): 100.0, (BUCKET, "0.1"): 600.0, (BUCKET, "+Inf"): 600.0}
        now = Reading(15.0, [record("blue-0/1", 5)], {"blue-0/1": counts})
        seen = shown(now, before)
        assert seen["rates"]["delivered"] == 100.0
        assert 10 < seen["latency_ms"]["p50"] < 100, "those of before, which were fast, are not of this time"

    def test_a_worker_that_is_new_counts_from_nothing_and_one_that_went_takes_nothing_back(self) -> None:
        before = Reading(0.0, [], {"blue-0/1": {DELIVERED: 1000.0}})
        now = Reading(1.0, [record("blue-0/2", 1)], {"blue-0/2": {DELIVERED: 10.0}})
        assert shown(now, before)["rates"]["delivered"] == 10.0

    def test_the_first_look_has_no_rates(self) -> None:
        seen = shown(Reading(1.0, [], {}), None)
        assert (seen["rates"], seen["latency_ms"], seen["ring"]) == (None, None, None)

    def test_workers_of_a_replica_are_one_line(self) -> None:
        seen = shown(Reading(1.0, [record("blue-0/1", 5), record("blue-0/2", 6), record("green-0/1", 7)], {}), None)
        assert [(one["name"], one["workers"], one["connections"]) for one in seen["replicas"]] == [
            ("blue-0", 2, 11),
            ("green-0", 1, 7),
        ]
        assert seen["connections"] == 18

    def test_the_ring_is_told_in_runs(self) -> None:
        table = SlotTable.first([Shard("shared-0", "redis://a"), Shard("shared-1", "redis://b")])
        ring = shown(Reading(1.0, [], {}, table), None)["ring"]
        told = [ring["shards"][index] for index, length in ring["runs"] for _ in range(length)]
        assert told == list(table.owner_names())

    def test_what_goes_wrong_is_counted_over_codes_and_workers(self) -> None:
        errors = ("app_errors_total", "")
        counts = {"blue-0/1": {errors: 3.0}, "blue-1/1": {errors: 2.0}}
        assert shown(Reading(1.0, [], counts), None)["trouble"]["error frames"] == 5.0

    def test_of_a_cutover_it_tells_no_more_than_where_it_stands(self) -> None:
        """Why a step failed is the app's own words: strangers may read this page."""
        told = {"verb": "promote", "old": "blue", "new": "green", "step": "withdraw"}
        journal = {**told, "id": "7", "release": "r2", "failure": "no connection to 10.0.0.5 (/home/me/.fleet/logs)"}
        assert shown(Reading(1.0, [], {}, cutover=journal), None)["cutover"] == told
        assert shown(Reading(1.0, [], {}), None)["cutover"] is None

    @pytest.mark.parametrize(
        ("events", "expected"),
        [
            (["blue-1/9 is gone without a word", "blue-1/9 came"], ["blue-1"]),
            (["blue-1/10 came", "blue-1/9 is gone without a word"], []),
            (["blue-1/9 left", "blue-1/9 came"], []),
            (["blue-0/8 is gone without a word"], []),
            (["green-0/3 is gone without a word"], []),
        ],
        ids=["gone", "back", "left", "another worker is there", "of a color that does not serve"],
    )
    def test_a_replica_that_went_without_a_word_is_missing(self, events: list[str], expected: list[str]) -> None:
        told = [Event(1, "worker", text) for text in events]
        seen = shown(Reading(1.0, [record("blue-0/1", 5)], {}, events=told), None)
        assert seen["missing"] == expected

    def test_events_come_with_their_time(self) -> None:
        seen = shown(Reading(1.0, [], {}, events=[Event(1000, "cutover", "promote")]), None)
        assert seen["events"] == [{"at_ms": 1000, "kind": "cutover", "text": "promote"}]


def test_reports_that_can_be_read_are_told_newest_first(tmp_path: Path) -> None:
    for name, started in (("stress", "2026-01-01T00:00:00+00:00"), ("failover", "2026-01-02T00:00:00+00:00")):
        folder = tmp_path / "history" / name
        folder.mkdir(parents=True)
        run = {"scenario": name, "started": started, "verdict": "pass", "connections": 10, "wrong": 0}
        (folder / "1.run.json").write_text(json.dumps({**run, "delivered_per_s": 1.5, "p99_ms": 2.0, "more": []}))
        (folder / "2.run.json").write_text("{")
    assert [run["scenario"] for run in newest_reports(tmp_path)] == ["failover", "stress"]
    assert newest_reports(tmp_path / "nowhere") == []


class TestSeats:
    """Who may watch."""

    def test_one_address_does_not_take_them_all(self) -> None:
        seats = Seats(most=50, each=10, kept=10)
        assert [seats.take("203.0.113.7") for _ in range(11)] == [True] * 10 + [False]
        assert seats.take("203.0.113.8")
        seats.give_back("203.0.113.7")
        assert seats.take("203.0.113.7")

    def test_addresses_of_one_network_are_one(self) -> None:
        seats = Seats(most=50, each=2, kept=0)
        assert [seats.take(f"2001:db8::{number}") for number in range(3)] == [True, True, False]
        assert seats.take("2001:db8:0:1::1")

    @pytest.mark.parametrize("own", ["127.0.0.1", "127.0.0.9", "::1", "::ffff:127.0.0.1"])
    def test_who_may_log_in_to_the_host_finds_a_seat_however_many_others_there_are(self, own: str) -> None:
        seats = Seats(most=50, each=10, kept=10)
        others = sum(seats.take(f"203.0.113.{number}") for number in range(200))
        assert others == 40
        assert [seats.take(own) for _ in range(11)] == [True] * 10 + [False]

    def test_what_is_no_address_counts_too(self) -> None:
        seats = Seats(most=3, each=2, kept=0)
        assert [seats.take("") for _ in range(3)] == [True, True, False]


class Registry:
    """A control Redis; `fails` is raised by it where it is set."""

    def __init__(self) -> None:
        self.fails: Exception | None = None

    async def workers(self) -> list[WorkerRecord]:
        if self.fails is not None:
            raise self.fails
        return [record("blue-0/1", 5)]

    async def nothing(self, *_: object) -> None:
        """Nothing is known."""

    async def none(self, *_: object) -> list[object]:
        """There are none."""
        return []

    table = journal = nothing
    metrics = events = none


@pytest.mark.parametrize("error", [ConnectionError("away"), msgspec.ValidationError("of another release")], ids=repr)
async def test_whatever_goes_wrong_with_a_view_is_told_and_it_goes_on(error: Exception) -> None:
    registry = Registry()
    async with aclosing(Observer().watch(cast(Any, registry))) as views:
        assert json.loads(await anext(views))["connections"] == 5
        registry.fails = error
        async with asyncio.timeout(10):
            while "away" not in json.loads(await anext(views)):
                pass
            registry.fails = None
            while "away" in (seen := json.loads(await anext(views))):
                pass
    assert seen["connections"] == 5


async def test_servers_that_do_not_answer_are_named() -> None:
    async def down() -> list[str]:
        return ["shared-0"]

    async with aclosing(Observer().watch(cast(Any, Registry()), down)) as views:
        assert json.loads(await anext(views))["down"] == ["shared-0"]


def live(replica: Replica, **headers: str) -> connect:
    return connect(replica.ws.replace("/ws/", "/fleet/live"), additional_headers=headers)


async def until(socket: ClientConnection, wanted: Callable[[View], bool]) -> View:
    """Read on until a view is as wanted."""
    async with asyncio.timeout(30):
        while not wanted(view := json.loads(await socket.recv())):
            pass
    return view


async def test_it_tells_of_the_whole_fleet_while_it_works(service: list[Replica]) -> None:
    async with live(service[0]) as page:
        member = await enter(service[1].ws)
        view = await until(page, lambda view: view["connections"] == 2)
        assert [one["name"] for one in view["replicas"]] == ["blue-0", "blue-1"]
        assert all(one["rss_bytes"] > 1_000_000 for one in view["replicas"])
        assert view["ring"]["shards"] == ["shared-0", "shared-1"]
        assert any(event["text"].startswith("blue-1/") for event in view["events"])
        await member.say(type="subscribe", group="watched")
        assert (await member.hear())["type"] == "subscribed"
        await member.say(type="publish", group="watched", id="1", data=1)
        view = await until(page, lambda view: view["rates"] is not None and view["rates"]["delivered"] > 0)
        assert view["latency_ms"]["p50"] > 0
        await member.close()
        await until(page, lambda view: view["connections"] == 1)


async def test_whoever_leaves_without_a_word_is_an_event(service: list[Replica]) -> None:
    async with live(service[0]) as page:
        await asyncio.to_thread(service[1].stop, True)
        try:
            await until(page, lambda view: any("is gone without a word" in e["text"] for e in view["events"]))
        finally:
            await asyncio.to_thread(service[1].start)


async def test_a_stranger_cannot_take_all_the_places(service: list[Replica]) -> None:
    """As an edge says who it is."""
    stranger = {"x-forwarded-for": "203.0.113.7"}
    async with AsyncExitStack() as stack:
        with pytest.raises(InvalidStatus) as refused:
            for _ in range(60):
                await stack.enter_async_context(live(service[0], **stranger))
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["retry-after"]
        async with live(service[0]) as page:
            await until(page, lambda view: view["down"] == [])
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(InvalidStatus):
                async with live(service[0], **stranger):
                    break
            await asyncio.sleep(0.1)


async def test_pages_of_other_origins_are_not_told(service: list[Replica]) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with live(service[0], origin="http://elsewhere.example"):
            pass
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    "method,path,status",
    [
        ("GET", "/fleet/", 200),
        ("GET", "/fleet/dashboard.js", 200),
        ("GET", "/fleet/dashboard.css", 200),
        ("GET", "/fleet", 308),
        ("GET", "/fleet/nothing", 404),
        ("GET", "/fleet/../settings.py", 404),
        ("POST", "/fleet/", 405),
    ],
)
def test_its_pages(service: list[Replica], method: str, path: str, status: int) -> None:
    found, headers = service[0].head(method, path)
    assert found == status
    if found == 200:
        assert "default-src 'none'" in headers["content-security-policy"]
