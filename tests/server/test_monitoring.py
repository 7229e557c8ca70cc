"""Prometheus and Grafana as docker/monitoring sets them up: their files, and a real Prometheus that watches a fleet."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from shards.ports import free_port
from tests.replica import Replica
from tests.server.test_wire import enter

HERE = Path(__file__).resolve().parents[2] / "docker" / "monitoring"
RULES = [rule for group in yaml.safe_load((HERE / "rules.yml").read_text())["groups"] for rule in group["rules"]]
CASES: list[dict[str, Any]] = yaml.safe_load((HERE / "rules_test.yml").read_text())["tests"]
BOARD: dict[str, Any] = json.loads((HERE / "grafana" / "dashboards" / "shards.json").read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]

IN_CONTAINERS = {"app_memory_limit_bytes", "app_cpu_limit_cores"}
"""A replica that nothing limits does not tell these; tests/contract asks one in a container."""

OF_EDGES = {"traefik_tls_certs_not_after"}
"""Edges tell this where they show a certificate; tests/fleet/test_at_the_edge.py asks one."""

OF_PROMETHEUS = {"up", "ALERTS"}


def program(name: str) -> str:
    """Find one of Prometheus's programs."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}: it is in Debian's package `prometheus`")
    return found


def promtool(*words: str) -> str:
    done = subprocess.run([program("promtool"), *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def metrics_of(query: str) -> set[str]:
    """Name the metrics of a query: what is neither a function, an operator, a label nor a string."""
    query = re.sub(r'"[^"]*"', "", query)
    query = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)|\{[^}]*\}|\[[^]]*\]|\boffset\s+\w+", " ", query)
    words = re.findall(r"[a-zA-Z_:][\w:]*(?!\w)(?!\s*\()", query)
    return {word for word in words if word not in ("and", "or", "unless", "by", "sum", "max", "min", "count")}


# -- the files


def test_promtool_accepts_configuration_and_rules() -> None:
    assert "28 rules found" in promtool("check", "config", str(HERE / "prometheus.yml"))


def test_each_alert_fires_and_keeps_silent_as_its_test_says() -> None:
    promtool("test", "rules", str(HERE / "rules_test.yml"))


def test_each_alert_has_a_test_of_both_kinds() -> None:
    for rule in RULES:
        of_it = [case for case in CASES if case["name"].split()[0] == rule["alert"]]
        assert of_it, f"rules_test.yml has nothing on {rule['alert']}"
        for case in of_it:
            silent, loud = case["promql_expr_test"]
            assert (silent["exp_samples"], loud["exp_samples"]) == ([], [{"value": 1}])
            assert f'alertname="{rule["alert"]}"' in silent["expr"] == loud["expr"]


def test_each_alert_says_what_is_wrong_and_what_to_do() -> None:
    for rule in RULES:
        assert set(rule["annotations"]) == {"summary", "action"}, rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_each_query_of_the_dashboard_is_promql(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(QUERIES)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(QUERIES)} rules found" in promtool("check", "rules", str(tmp_path / "rules.yml"))


def test_the_dashboard_is_one_that_grafana_can_load() -> None:
    source = yaml.safe_load((HERE / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"][0]
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    for panel in PANELS:
        assert panel["type"] in ("stat", "timeseries")
        assert panel["title"] and panel["targets"], panel
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"] == {"type": source["type"], "uid": source["uid"]}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_no_panel_of_the_dashboard_lies_over_another() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for cell in (
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ):
            assert taken.setdefault(cell, panel["title"]) == panel["title"]


# -- what a fleet tells


def test_alerts_and_dashboard_name_only_what_a_replica_tells(service: list[Replica]) -> None:
    lines = service[0].get("/metrics")[1].splitlines()
    told = {re.split(r"[{ ]", line)[0] for line in lines if line and not line.startswith("#")}
    for query in [*(rule["expr"] for rule in RULES), *QUERIES]:
        assert metrics_of(query)
        assert metrics_of(query) <= told | IN_CONTAINERS | OF_EDGES | OF_PROMETHEUS, query


def test_metrics_tell_what_redis_servers_say_of_themselves(service: list[Replica]) -> None:
    lines = service[0].get("/metrics")[1].splitlines()
    for server in ("shared-0", "shared-1", "redis_shared", "redis_blue"):
        told = {line.partition("{")[0]: float(line.split()[1]) for line in lines if f'{{server="{server}"}}' in line}
        assert told["shards_redis_up"] == 1
        assert 1 <= told["shards_redis_clients"] < told["shards_redis_max_clients"]
        assert told["shards_redis_memory_bytes"] > 0


# -- a real Prometheus


class Prometheus:
    """A Prometheus that watches by the files of docker/monitoring, only more often."""

    def __init__(self, directory: Path, fleet: int) -> None:
        shutil.copytree(HERE, directory, dirs_exist_ok=True)
        (directory / "targets" / "fleet.yml").write_text(f"- targets: ['127.0.0.1:{fleet}']\n")
        (directory / "targets" / "edges.yml").write_text("[]\n")
        config = yaml.safe_load((directory / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.port = free_port(())
        command = [program("prometheus"), f"--config.file={directory}/prometheus.yml"]
        command += [f"--storage.tsdb.path={directory}/data", f"--web.listen-address=127.0.0.1:{self.port}"]
        with (directory / "log").open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    async def until(self, query: str) -> list[dict[str, Any]]:
        """Ask until there is something."""
        async with asyncio.timeout(40):
            while not (found := await asyncio.to_thread(self._ask, query)):
                assert self.process.poll() is None, "Prometheus died"
                await asyncio.sleep(0.2)
            return found

    def _ask(self, query: str) -> list[dict[str, Any]]:
        url = f"http://127.0.0.1:{self.port}/api/v1/query?query={urllib.parse.quote(query)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
                return found
        except OSError:
            return []


@pytest.fixture
def prometheus(service: list[Replica], tmp_path: Path) -> Iterator[Prometheus]:
    """One that watches `service`."""
    program("prometheus")
    watching = Prometheus(tmp_path / "monitoring", service[0].port)
    yield watching
    watching.process.terminate()
    watching.process.wait(20)


async def test_a_real_prometheus_sees_the_whole_fleet_and_an_alert_fires(
    service: list[Replica], prometheus: Prometheus
) -> None:
    await prometheus.until('count(app_gaps_total{job="fleet"}) == 2')
    told = await prometheus.until('process_resident_memory_bytes{job="fleet"} > 0')
    assert {one["metric"]["replica"] for one in told} == {"blue-0", "blue-1"}
    await prometheus.until('count(shards_redis_up{job="fleet"} == 1) == 4')
    client = await enter(service[1].ws)
    await client.say(type="subscribe", group="lost", since={"epoch": "of-long-ago", "offset": 7})
    while (await client.hear())["type"] != "gap":
        pass
    alert = (await prometheus.until('ALERTS{alertname="MessagesLostToSubscribers",alertstate="firing"}'))[0]
    assert alert["metric"]["replica"] == "blue-1"
    await client.close()
