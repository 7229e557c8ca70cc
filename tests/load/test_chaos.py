"""A scenario with events on a fleet of its own: its parts die, nothing is lost, and a failed run's logs are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.load.test_main import load

SCENARIO = """
load:
  small:
    connections: 40
    group_size: mixed
    duration: 8
    rate: 200
    replicas: 2
    shards: 1
    edges: 2
    lag_ms: 20000
    events:
      - {at: 1, kill: worker}
      - {at: 3, kill: shard}
      - {at: 5, kill: edge}
      - {at: 6, run: status}
    targets: {lost: "== 0", duplicated: "== 0", unacked: "== 0", not_back: "== 0", during_exit: "== 0", p50_ms: "< 0"}
"""


@pytest.mark.fleet
async def test_killed_parts_lose_nothing_and_a_failed_runs_logs_are_kept(tmp_path: Path) -> None:
    (tmp_path / "invoke.yaml").write_text(SCENARIO)
    status, said = await load(tmp_path, "small", "--seed", "1", INVOKE_FLEET_STATE_DIR=str(tmp_path / "state"))
    assert (status, said) == (1, "small: fail — reports/small.json and small.html")
    document = json.loads((tmp_path / "reports" / "small.json").read_text())
    assert [target["name"] for target in document["targets"] if not target["ok"]] == ["p50_ms"]
    names = [event["name"] for event in document["events"]]
    assert names[:2] == ["connected", "load"]
    kinds = sorted(name.split(":")[0] for name in names[2:])
    assert kinds == ["kill edge", "kill shard", "kill worker", "status", "status"]
    assert document["connections"]["closed_by_server"] > 0
    assert document["resume_ms"]["count"] == document["connections"]["reconnects"]
    logs = {path.name for path in (tmp_path / "reports" / "small" / "logs").iterdir()}
    assert {"blue-0.log", "shared-0.log", "edge-0.log"} <= logs
