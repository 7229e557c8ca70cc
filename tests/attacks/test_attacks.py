"""The attacks do what they say, and their judge sees what went wrong."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.__main__ import with_earlier
from tests.attacks.attacker import ATTACKS, Attack
from tests.attacks.crowd import GROUP_SIZE, Window, quantile
from tests.attacks.judge import cells, grown, judged, markdown, outcome, parts, verdict, why_not
from tests.attacks.page import KEPT, PAGE, with_table
from tests.fleet.runner import ROOT

MOST_P99_ON_A_BUSY_MACHINE_MS = 2000


ATTACK = Attack(lambda _: asyncio.sleep(0), frozenset({"closed 1008"}), frozenset({"cut"}))


def found(crowd: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    noticed = {"lost": 0, "doubled": 0, "unacked": 0, "gaps": 0, "refused": 0, "reconnects": 0, "delivered": 10}
    noticed |= {"p50_ms": 1.0, "p99_ms": 5.0, "max_ms": 9.0, "lag_p99_ms": 1.0} | (crowd or {})
    part = {"name": "blue-0", "before": 100 << 20, "most": 110 << 20, "after": 105 << 20}
    memory = {"replica": part, "edge": part | {"name": "edge-0"}, "redis": part | {"name": "shared-0"}}
    run = {"date": "2026-01-02", "commit": "abc", "replicas": 3, "edges": 2, "clients": 200, "rate": 1000.0}
    told = {"connections": 4, "sent": 9, "closed 1008": 3}
    rest = {"attack": "x", "what": "y", "seconds": 1.0, "told": told, "died": [], "steady": True, "run": run}
    rest |= {"why_not": [], "known": []}
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
        (found({"lost": 1}), "1 lost"),
        (found({"reconnects": 2}), "2 reconnects"),
        (found({"unacked": 1}), "1 unacked"),
        (found(died=["shared-0"]), "shared-0 died"),
        (found(steady=False), "steady"),
        (found(told={"connections": 10, "sent": 10}), "nobody was told: closed 1008"),
        (found(told={"closed 1008": 3, "101": 7}), "7 were told: 101"),
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


def test_what_is_known_to_go_wrong_is_told_and_fails_nothing_else_does() -> None:
    known = replace(ATTACK, known=("p99",))
    wrong = found({"p99_ms": 300.0, "lost": 2})
    row = wrong | judged(wrong, known)
    assert (row["why_not"], row["known"]) == (["2 lost"], ["p99 300.0 ms"])
    assert outcome(row) == "2 lost; known: p99 300.0 ms"
    assert verdict([row]) == "fail"
    slow = found({"p99_ms": 300.0})
    assert verdict([slow | judged(slow, known)]) == "pass"
    assert verdict([slow | judged(slow, ATTACK)]) == "fail"


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
    assert len(ATTACKS) >= 28
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
    assert "Of 2 attacks 1 held" in page
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
        # How late messages are on a machine that does other things too is chance; all else is not.
        assert [why for why in one["why_not"] if not why.startswith(("p99", "the crowd itself"))] == [], one
        assert one["crowd"]["p99_ms"] < MOST_P99_ON_A_BUSY_MACHINE_MS
        assert one["crowd"]["delivered"] >= 100, "the crowd went on all the while"
    assert (run.returncode == 0) is (not any(one["why_not"] for one in result["attacks"]))
    assert (tmp_path / "attacks.md").exists()


def test_an_attack_that_nobody_knows_is_wrong_usage() -> None:
    command = [sys.executable, "-m", "tests.attacks", "--only", "telepathy"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "telepathy" in run.stderr
