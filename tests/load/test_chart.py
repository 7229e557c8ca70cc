"""Axes end on round numbers, peaks survive thinning, and marks say what happened when."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from shards.load.chart import Line, Mark, line_chart, scale_for, share_bar, stack_chart, thinned
from shards.load.page import marks_of


def svg(chart: str) -> ET.Element:
    return ET.fromstring(chart[: chart.index("</svg>") + 6])


def test_a_log_axis_holds_the_least_and_the_most() -> None:
    scale = scale_for([0.0, 0.7, 3, 120], log=True)
    assert (scale.low, scale.high) == (0.1, 200)
    assert scale.part(0.0) == 0.0
    assert scale.part(200) == 1.0
    assert scale.ticks() == pytest.approx([0.1, 1, 10, 100])


def test_a_linear_axis_starts_at_nothing() -> None:
    assert scale_for([3, 9_800]).ticks() == [0, 2_500, 5_000, 7_500, 10_000]
    assert scale_for([11_000]).high == 12_000


@pytest.mark.parametrize(("right", "last"), [(7, 6), (22, 20), (75, 60), (400, 400), (3600, 3000)])
def test_seconds_are_told_at_round_ones(right: float, last: int) -> None:
    told = re.findall(r">(\d+) s</text>", line_chart([Line("x", [(0, 1), (right, 1)], "c0")]))
    assert told[0] == "0"
    assert int(told[-1]) == last
    assert 3 <= len(told) <= 5


def test_no_peak_disappears() -> None:
    points = [(float(t), 1.0) for t in range(5000)]
    points[3333] = (3333.0, 99.0)
    assert len(thinned(points)) <= 600
    assert (3333.0, 99.0) in thinned(points)


def test_what_is_drawn_is_xml_and_names_are_explained_once() -> None:
    lines = [Line("edges <b>", [(0, 1), (9, 2)], "c0"), Line("edges <b>", [(0, 2), (9, 3)], "c0")]
    chart = line_chart(lines, [Mark(1, 2, 4, "promote & co")])
    assert len(svg(chart).findall("polyline")) == 2
    assert chart.count("<li>") == 1
    assert "promote &amp; co at 2.0 s" in chart


def test_layers_lie_on_each_other() -> None:
    chart = stack_chart([Line("blue-0", [(0, 10), (10, 0)], "c0"), Line("green-0", [(0, 0), (10, 10)], "c5")])
    blue, green = (re.split("[ ,]", layer.get("points", "")) for layer in svg(chart).findall("polygon"))
    assert blue[1] == green[1], "at the start the upper layer is empty"
    assert blue[3] > green[3], "at the end the lower one is"


def test_nothing_to_draw_is_said() -> None:
    assert "nothing was measured" in line_chart([Line("p50", [], "c0")])
    assert "nothing was measured" in stack_chart([])


def test_a_share_is_as_long_as_its_size() -> None:
    bar = share_bar([("shared-0", 256, "c0"), ("shared-1", 768, "c1"), ("gone", 0, "c2")], "slots")
    assert "flex-grow:0.2500" in bar
    assert "flex-grow:0.7500" in bar
    assert "gone" not in bar


def test_a_command_is_one_mark_from_start_to_end() -> None:
    marks = marks_of(
        [
            {"t": 1, "name": "connected"},
            {"t": 2, "name": "reshard --shards 4: start"},
            {"t": 3, "name": "kill edge: edge-0", "pid": 1},
            {"t": 5, "name": "reshard --shards 4: end"},
        ]
    )
    assert [(m.number, m.begin, m.end, m.name) for m in marks] == [
        (1, 2, 5, "reshard --shards 4"),
        (2, 3, 3, "kill edge: edge-0"),
    ]
