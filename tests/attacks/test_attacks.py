"""The attacks do what they say, and their judge sees what went wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.frames import Opcode

from tests.attacks import attacker
from tests.attacks.__main__ import with_earlier
from tests.attacks.attacker import ATTACKS, NO_ANSWER, Attack, Attacker, masked
from tests.attacks.crowd import CONNECT_S, GROUP_SIZE, SETTLE_S, Window, quantile
from tests.attacks.judge import (
    cells,
    grown,
    headline,
    judged,
    markdown,
    outcome,
    parts,
    verdict,
    well,
    why_not,
)
from tests.attacks.page import KEPT, PAGE, with_table
from tests.fleet.runner import ROOT

ATTACK = Attack(lambda _: asyncio.sleep(0), frozenset({"closed 1008"}), frozenset({"cut"}))


def found(crowd: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    noticed = {"lost": 0, "doubled": 0, "unacked": 0, "gaps": 0, "refused": 0, "reconnects": 0, "delivered": 10}
    noticed |= {"p50_ms": 1.0, "p99_ms": 5.0, "max_ms": 9.0, "lag_p99_ms": 1.0}
    noticed |= {"connects": 50, "connects_failed": 0, "connect_p99_ms": 20.0, **(crowd or {})}
    part = {"name": "blue-0", "before": 100 << 20, "most": 110 << 20, "after": 105 << 20}
    memory = {"replica": part, "edge": part | {"name": "edge-0"}, "redis": part | {"name": "shared-0"}}
    run = {"date": "2026-01-02", "commit": "abc", "replicas": 3, "edges": 2, "clients": 200, "rate": 1000.0}
    run["fleet"] = "the defaults"
    told = {"connections": 4, "sent": 9, "closed 1008": 3}
    rest = {"attack": "x", "what": "y", "seconds": 1.0, "told": told, "died": [], "steady": True, "run": run}
    rest |= {"why_not": [], "known": [], "quiet": {"p99_ms": 4.0, "lag_p99_ms": 1.0, "connect_p99_ms": 15.0}}
    return {**rest, "memory": memory, "crowd": noticed, **changes}


def test_what_held_held() -> None:
    assert why_not(found(), ATTACK) == []
    assert why_not(found(told={"closed 1008": 3, "cut": 1}), ATTACK) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (found({"p99_ms": 100.0}), "p99"),
        (found({"p99_ms": None}), "p99"),
        (found({"lag_p99_ms": 60.0}), "itself"),
        (found({"connect_p99_ms": 500.0}), "connect p99 500.0 ms"),
        (found({"connects_failed": 1}), "connects: 1 of 50 failed"),
        (found({"connects": 0}), "connects: 0 of 0 failed"),
        (found({"lost": 1}), "1 lost"),
        (found({"reconnects": 2}), "2 reconnects"),
        (found({"unacked": 1}), "1 unacked"),
        (found(died=["shared-0"]), "shared-0 died"),
        (found(steady=False), "steady"),
        (found(told={"connections": 10, "sent": 10}), "nobody was told: closed 1008"),
        (found(told={"closed 1008": 3, "101": 7}), "7 were told: 101"),
        (found(told={"closed 1008": 3, NO_ANSWER: 2}), "2 were told: no answer"),
        (found(told={"closed 1008": 3, "? KeyError": 1}), "1 were told: ? KeyError"),
        (found(told={"closed 1008": 1, "no connection: ConnectionRefusedError": 9}), "9 were told: no connection"),
        (
            found(memory={"redis": {"name": "shared-0", "before": 0, "most": 300 << 20, "after": 0}}),
            "shared-0 grew by 300 MB",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_went_wrong_is_said(wrong: dict[str, Any], words: str) -> None:
    [why] = why_not(wrong, ATTACK)
    assert words in why


def test_what_is_known_to_go_wrong_has_not_held_and_fails_nothing() -> None:
    known = replace(ATTACK, known=("p99", "connect"), worst_p99_ms=1000)
    slow = found({"p99_ms": 300.0})
    row = slow | judged(slow, known)
    assert (row["why_not"], row["known"]) == ([], ["p99 300.0 ms"])
    assert outcome(row) == "not held; known: p99 300.0 ms"
    assert verdict([found(), row]) == "known"
    assert headline([found(), row]) == "Of 2 attacks 1 held; 1 did not, in ways that are known: x."
    assert verdict([slow | judged(slow, ATTACK)]) == "fail"
    assert verdict([found()]) == "pass"


def test_what_is_not_known_fails_beside_what_is() -> None:
    known = replace(ATTACK, known=("p99", "connect"), worst_p99_ms=1000)
    wrong = found({"p99_ms": 300.0, "lost": 2, "connects_failed": 9})
    row = wrong | judged(wrong, known)
    assert outcome(row) == "not held; 2 lost; known: p99 300.0 ms, connects: 9 of 50 failed"
    assert verdict([row]) == "fail"
    assert headline([row]) == "Of 1 attacks 0 held; 1 did not: x."
    slower_than_known = found({"p99_ms": 1000.0})
    assert judged(slower_than_known, known)["why_not"] == ["p99 1000.0 ms"]


def test_what_waited_must_not_be_lost_in_the_end() -> None:
    filled = replace(ATTACK, known=("unacked",), well_again_s=60)
    ever = {"lost": 0, "doubled": 0, "unacked": 0, "gaps": 0, "refused": 4, "reconnects": 0}
    waits = found({"unacked": 9, "ever": ever}, well_again_s=12)
    assert judged(waits, filled) == {"why_not": [], "known": ["9 unacked"]}
    after = "as before 12 s after the end, when 4 publishes had been refused for good"
    assert outcome(waits | judged(waits, filled)) == f"not held; known: 9 unacked; {after}"
    never = found({"ever": ever | {"lost": 1, "unacked": 3}}, well_again_s=None)
    why = ["not as before, long after the end", "1 lost in the end", "3 unacked in the end"]
    assert judged(never, filled) == {"why_not": why, "known": []}


def test_ordinary_clients_are_well_where_they_notice_nothing() -> None:
    assert well(found()["crowd"])
    for wrong in ({"p99_ms": None}, {"p99_ms": 100.0}, {"unacked": 1}, {"refused": 1}, {"connects_failed": 1}):
        assert not well(found(wrong)["crowd"]), wrong


def test_on_a_busy_machine_all_but_times_is_judged() -> None:
    assert why_not(found({"p99_ms": 400.0}), ATTACK) == ["p99 400.0 ms"]
    assert why_not(found({"p99_ms": 400.0}), ATTACK, {}) == []
    assert why_not(found({"p99_ms": 400.0, "lost": 1}), ATTACK, {}) == ["1 lost"]


def test_redis_servers_are_watched_as_well_both_of_each_pair() -> None:
    def part(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "pid": 7, "rss_bytes": 1, **more}

    pair = {"name": "shared-0", "servers": [part("shared-0"), part("shared-0-twin")]}
    single = part("shared-1", servers=[])
    elsewhere = {"name": "external-0", "pid": None, "rss_bytes": None, "servers": []}
    status = {"replicas": [part("blue-0")], "edges": [part("edge-0")], "shards": [pair, single, elsewhere]}
    watched = parts({**status, "redis": [part("redis_shared")]})
    assert watched.keys() == {"blue-0", "edge-0", "shared-0", "shared-0-twin", "shared-1", "redis_shared"}
    most = dict.fromkeys(watched, 1) | {"shared-0-twin": 5}
    assert grown(watched, most, watched)["redis"] == {"name": "shared-0-twin", "before": 1, "most": 5, "after": 1}


def test_every_attack_says_what_has_to_come_of_it() -> None:
    assert len(ATTACKS) >= 30
    for name, attack in ATTACKS.items():
        assert attack.must, name
        assert not attack.must & attack.may, name
        assert attack.what, name


def test_a_row_says_of_which_run_it_is_and_the_verdict_is_of_all(tmp_path: Path) -> None:
    """A page that says "pass" above a red row of last month, or shows two fleets as one, is worth nothing."""
    earlier = found(
        attack="slowloris", why_not=["1 lost"], run=found()["run"] | {"date": "2025-12-31", "commit": "old"}
    )
    (tmp_path / "attacks.json").write_text(json.dumps({"attacks": [earlier, found(attack="no more known")]}))
    rows = with_earlier(tmp_path / "attacks.json", [found(attack="ping-flood", why_not=[])])
    assert [row["attack"] for row in rows] == ["slowloris", "ping-flood"]
    assert verdict(rows) == "fail"
    page = markdown({"attacks": rows})
    assert "Of 2 attacks 1 held; 1 did not: slowloris." in page
    for number, row in enumerate(rows, 1):
        assert f"| {' | '.join(cells(row, number))} |" in page
    assert "Run 1: 2025-12-31, commit old: 3 replicas" in page
    assert "Run 2: 2026-01-02, commit abc: 3 replicas" in page


def test_the_documentation_has_the_table_of_what_is_kept() -> None:
    assert with_table(PAGE.read_text(), KEPT.read_text()) == PAGE.read_text(), "run `python -m tests.attacks.page`"


def test_the_crowd_counts_what_was_acked_and_did_not_come() -> None:
    window = Window(acked={"a", "b"}, pending={"c"})
    window.heard.update({"a": GROUP_SIZE, "b": GROUP_SIZE - 3})
    assert (window.lost(), window.settled(), window.told()["unacked"]) == (3, False, 1)
    window.heard["b"] += 4
    assert (window.told()["lost"], window.told()["doubled"]) == (0, 1)


def test_a_window_waits_for_its_newcomers() -> None:
    assert CONNECT_S < SETTLE_S, "who is on his way when a window ends is counted in it"
    window = Window(connects_ms=[5.0, 7.0], connecting=1)
    window.count["connects_failed"] = 2
    assert not window.settled()
    told = window.told()
    assert (told["connects"], told["connects_failed"], told["connect_p99_ms"]) == (4, 2, 7.0)


async def _counted(monkeypatch: pytest.MonkeyPatch, streams: dict[str, bytes]) -> dict[str, int]:
    """Have streams said to a server that closes whoever sends a text, and ignores all else."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            if (await reader.readexactly(6))[0] == 0x81:
                writer.write(b"\x88\x02\x03\xea")
            else:
                await reader.read()

    monkeypatch.setattr(attacker, "ANSWER_S", 0.3)
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        whose = Attacker("127.0.0.1", server.sockets[0].getsockname()[1], 0.5)
        await whose.broken(20, streams)
    return dict(whose.count)


async def test_a_stream_that_is_let_pass_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four of five that are refused must not hide the one that is not, nor whoever hears nothing at all."""
    count = await _counted(monkeypatch, {"text": masked(Opcode.TEXT, b""), "pong": masked(Opcode.PONG, b"")})
    assert count["text: closed 1002"] == count[NO_ANSWER] == count["connections"] // 2
    assert set(count) == {"connections", "text: closed 1002", NO_ANSWER}


async def test_what_hangs_and_what_nobody_thought_of_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacker, "ANSWER_S", 0.05)

    async def one(index: int) -> None:
        if index:
            await asyncio.Event().wait()
        raise KeyError(index)

    whose = Attacker("127.0.0.1", 1, 0.1)
    await whose.hold(3, 1000, one)
    assert whose.count == {"? KeyError": 1, NO_ANSWER: 2}
    held = Attacker("127.0.0.1", 1, 0.1)
    await held.hold(3, 1000, one, holding=True)
    assert held.count == {"? KeyError": 1, "held to the end": 2}


async def test_the_flood_of_the_apps_page_asks_for_that_alone() -> None:
    asked: set[bytes] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            asked.add((await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")[0])
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        whose = Attacker("127.0.0.1", server.sockets[0].getsockname()[1], 0.05)
        await ATTACKS["app-page-flood"].run(whose)
    assert asked == {b"GET / HTTP/1.1"}
    assert whose.count == {"connections": whose.count["200"], "200": whose.count["200"]}


def test_quantiles() -> None:
    assert quantile([], 0.99) is None
    assert [quantile([*range(100)], share) for share in (0.5, 0.99, 1.0)] == [50, 99, 99]


@pytest.mark.fleet
@pytest.mark.timeout(600)
def test_some_attacks_on_a_small_fleet(tmp_path: Path) -> None:
    small = ("--seconds", "2", "--clients", "20", "--rate", "100", "--replicas", "1", "--json")
    some = "unmasked-frames,ping-flood,token-guessing,big-publishes-to-new-groups,tls-stalled-handshakes,lying-redis"
    run = subprocess.run(
        [sys.executable, "-m", "tests.attacks", *small, "--only", some, "--reports", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert run.returncode in (0, 1), run.stderr
    result = json.loads(run.stdout)
    assert [one["attack"] for one in result["attacks"]] == [name for name in ATTACKS if name in some.split(",")]
    for one in result["attacks"]:
        # How late messages are on a machine that does other things too is chance: `nox -s attacks` judges that.
        assert why_not(one, ATTACKS[one["attack"]], {}) == [], one
        assert one["crowd"]["delivered"] >= 100, "the crowd went on all the while"
    assert (run.returncode == 0) is (not any(one["why_not"] for one in result["attacks"]))
    assert (tmp_path / "attacks.md").exists()


def test_an_attack_that_nobody_knows_is_wrong_usage() -> None:
    command = [sys.executable, "-m", "tests.attacks", "--only", "telepathy"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "telepathy" in run.stderr
