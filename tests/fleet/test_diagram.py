"""The documentation draws the procedure as it is."""

from __future__ import annotations

import re
from pathlib import Path

from shards.fleet.cutover import TABLE, Action
from shards.fleet.diagram import actions, diagram

DESIGN = Path(__file__).resolve().parents[2] / "docs" / "design.md"


def test_the_diagram_in_the_documentation_is_the_table() -> None:
    text = DESIGN.read_text()
    assert f"```mermaid\n{diagram()}\n```" in text, "put there what `python -m shards.fleet.diagram` prints"
    assert actions() in text, "put there what `python -m shards.fleet.diagram` prints"


def test_every_action_is_done_somewhere_and_every_step_is_drawn() -> None:
    assert {action for row in TABLE.values() for action in row.does} == set(Action)
    assert {step for step in TABLE if re.search(rf"^  {step} --> ", diagram(), re.M)} == set(TABLE)
