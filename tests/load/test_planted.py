"""The scenarios find what they are for: a leak and a lost message, planted in a service that a real fleet runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shards.load import scenarios
from tests.load.test_main import start

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]

APPS = Path(__file__).parents[1] / "apps"
STRESS = ("--rate", "3000", "--replicas", "1", "--shards", "1", "--edges", "1", "--processes", "1")


def app(name: str) -> dict[str, str]:
    return {"INVOKE_FLEET_APP": f"{name}:application", "INVOKE_FLEET_APP_DIR": str(APPS / name)}


BOUND = 'leak_bytes_per_message: "< 50"'


async def report(folder: Path, scenario: str, *arguments: str, **environment: str) -> tuple[int | None, dict[str, Any]]:
    """Run a scenario with a bound that half a minute can tell, and that holds on a machine others use: not that of
    full runs."""
    text = (scenarios.repository() / "invoke.yaml").read_text()
    assert BOUND in text
    assert "lag_ms: 100 " in text
    (folder / "invoke.yaml").write_text(
        text.replace(BOUND, BOUND.replace("50", "512")).replace("lag_ms: 100 ", "lag_ms: 20000 ")
    )
    environment |= {"INVOKE_FLEET_STATE_DIR": str(folder / "state"), "INVOKE_FLEET_DRAIN_SECONDS": "2"}
    process = await start(folder, scenario, "--seed", "1", *arguments, **environment)
    said, _ = await process.communicate()
    path = folder / "reports" / f"{scenario}.json"
    assert path.is_file(), said.decode()
    return process.returncode, json.loads(path.read_text())


def missed(document: dict[str, Any]) -> set[str]:
    return {target["name"] for target in document["targets"] if not target["ok"]}


async def test_a_leak_of_a_kilobyte_a_message_fails_stress(tmp_path: Path) -> None:
    status, document = await report(tmp_path, "stress", *STRESS, N="100", DURATION="30", **app("leaky"))
    assert status == 1
    assert "leak_bytes_per_message" in missed(document)
    leaking = max(document["wear_together"], key=lambda one: one["bytes_per_message"])
    assert leaking["name"] == "blue"
    assert leaking["bytes_per_message"] == pytest.approx(1024, rel=0.5)


async def test_a_service_that_does_not_leak_is_not_accused(tmp_path: Path) -> None:
    status, document = await report(tmp_path, "stress", *STRESS, N="100", DURATION="30")
    assert (missed(document), document["verdict"], status) == (set(), "pass", 0)
    judged = {target["name"] for target in document["targets"]}
    assert judged >= {"leak_bytes_per_message", "files_risen", "redis_clients_risen", "ended", "lost"}
    assert {one["name"] for one in document["wear"]} >= {"blue-0", "edge-0", "shared-0"}


async def test_a_lost_message_fails_failover(tmp_path: Path) -> None:
    status, document = await report(tmp_path, "failover", "--rate", "500", N="60", DURATION="20", **app("lossy"))
    assert status == 1
    assert missed(document) >= {"lost", "unannounced_gaps"}
    assert not missed(document) & {"delivered_share", "kills_unfelt", "overtaken", "protocol_errors"}
    assert document["messages"]["lost"] == 1
    performed = [one["name"].split(":")[0] for one in document["disruptions"]]
    assert performed[:5] == ["promote", "rollback", "kill replica", "kill edge", "kill shard"]
