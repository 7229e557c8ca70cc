"""What is shown of a run: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import re

from rich.console import Console

from shards.load.coordinator import Load, Second
from shards.load.spread import Spread
from shards.load.watch import Show, sparkline

LOAD = Load(url="ws://127.0.0.1:1/ws/", connections=100, duration_s=10, rate=1000)


def watched(terminal: bool) -> tuple[Show, io.StringIO]:
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=100, color_system=None)
    spread = Spread(None)
    spread.samples.append({"t": 1.0, "replicas": {"blue-0": 60, "green-0": 40}})
    with Show(console) as show:
        show.begin(LOAD, spread)
        show.phase("load")
        for number in range(6):
            back = 3 if number in {1, 2} else 0
            show.second(number, Second(100, 10, 1000 * number, 2.0, 10.0 * number, back))
        show.event("promote: start")
    return show, written


def test_the_highest_bar_is_full() -> None:
    assert sparkline([0, 5, 10]) == "▁▅█"
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([]) == ""


def test_on_a_terminal_all_of_it_is_seen() -> None:
    show, _ = watched(terminal=True)
    written = io.StringIO()
    Console(file=written, width=100).print(show.view())
    for word in ("100 of 100", "5,000/s", "50.0 ms", "blue-0", "60", "promote: start", "load, 5 s"):
        assert word in written.getvalue()
    assert re.search(r"reconnects +6 ", written.getvalue()), "of the whole run"


def test_elsewhere_there_are_plain_lines_now_and_then() -> None:
    _, written = watched(terminal=False)
    lines = written.getvalue().splitlines()
    assert lines[0] == "100 sockets, 1,000 messages a second, 10 s"
    assert [line.split(" s ")[0].split()[-1] for line in lines if "msg/s" in line] == ["0", "5"]
    assert lines[-1] == "· promote: start"
    assert "\x1b" not in written.getvalue()
