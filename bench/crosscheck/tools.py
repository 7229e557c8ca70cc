"""Runs either tool on a server, and gives what it says of itself."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.crosscheck import tsung
from bench.crosscheck.plan import Plan
from shards.errors import ShardsError
from shards.fleet import processes
from shards.load import target
from shards.load.scenarios import repository
from shards.ports import free_port

_SLACK_SECONDS = 60.0
_STOP_SECONDS = 10.0
_LAST_LINES = 3
_PROGRAMS = ("tsung", "epmd")


@dataclass(frozen=True)
class Claim:
    """What a tool says of itself.

    Attributes:
        said: figure of `plan.FIGURES` → its value, where the tool tells it.
        latency_ms: name → milliseconds.
        problems: what went wrong, in words.
    """

    said: dict[str, float]
    latency_ms: dict[str, float]
    problems: list[str]


Tool = Callable[[Plan, str, Path], Claim]
"""Loads the server at a WebSocket base, with an empty folder to write to.

Raises:
    ShardsError: it did not come to its end.
"""


def check() -> None:
    """See whether tsung is there.

    Raises:
        ShardsError: it is not.
    """
    if missing := [program for program in _PROGRAMS if shutil.which(program) is None]:
        raise ShardsError(f"no {' and no '.join(missing)} on PATH: `apt-get install tsung`, or your system's package")


def ours(plan: Plan, url: str, folder: Path) -> Claim:
    """Run `python -m shards.load run`, as anybody would."""
    path = folder / "run.json"
    options = {
        "--url": url,
        "--connections": plan.connections,
        "--connect-rate": plan.connect_rate,
        "--group-size": plan.group_size,
        "--rate": plan.publish_rate * plan.group_size,
        "--duration": plan.duration_s,
        "--report": path,
    }
    words = [str(word) for option in options.items() for word in option]
    # What it exits with is its verdict on the server; here its figures are asked for, and its own troubles.
    _run([sys.executable, "-m", "shards.load", "run", *words], repository(), {}, folder, plan)
    return claim(_json(path))


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise ShardsError(f"our generator left no report: {_last_lines(path.parent)}") from error


def claim(report: Mapping[str, Any]) -> Claim:
    """Read a report of ours."""
    connections, messages, latency = report["connections"], report["messages"], report["latency_ms"]
    wrong = list(report["problems"])
    if connections["failed"]:
        wrong.append(f"{connections['failed']:,} connections failed")
    if messages["lost"]:
        wrong.append(f"{messages['lost']:,} deliveries were lost")
    if report["generator"]["saturated"]:
        wrong.append("the generator was saturated")
    return Claim(
        said={
            "sockets": connections["opened"],
            "sockets_at_once": max((second["connections"] for second in report["timeline"]), default=0),
            "connects_per_s": connections["rate_per_s"],
            "published": messages["published"],
            "delivered": messages["delivered"],
            "delivered_per_s": messages["per_s"],
        },
        latency_ms={
            name: latency[name] for name in ("p50", "p95", "p99", "max", "naive_mean", "naive_p50", "naive_p99")
        },
        problems=wrong,
    )


def theirs(plan: Plan, url: str, folder: Path) -> Claim:
    """Run tsung, in one Erlang machine, which reaches no other host and opens no page of its own."""
    host, port = target.address(url)
    sockets, scenario, logs = folder / "sockets.csv", folder / "scenario.xml", folder / "logs"
    sockets.write_text(tsung.socket_lines(plan, folder.name))
    scenario.write_text(tsung.scenario(plan, host, port, sockets))
    with _name_server() as environment:
        environment |= {"HOME": str(folder)}
        command = ["tsung", "-n", "-I", "127.0.0.1", "-f", str(scenario), "-l", str(logs), "start"]
        _run(command, folder, environment, folder, plan)
    log, samples = (_text(logs, name) for name in (tsung.LOG, tsung.SAMPLES))
    if not tsung.complete(log):
        raise ShardsError(f"tsung did not come to its end: {_last_lines(folder)}")
    seen = tsung.dumps(log)
    return Claim(tsung.said(seen), tsung.latency_ms(samples), tsung.failures(seen))


def _text(logs: Path, name: str) -> str:
    """Read one of tsung's logs, from the folder that it named after the time."""
    return "".join(path.read_text(errors="replace") for path in logs.glob(f"*/{name}"))


@contextlib.contextmanager
def _name_server() -> Iterator[dict[str, str]]:
    """Run Erlang's name server for tsung alone: the one that it would start by itself stays for ever.

    Yields:
        The environment that leads there.
    """
    port = str(free_port(()))
    command = ["epmd", "-address", "127.0.0.1", "-port", port]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield {"ERL_EPMD_PORT": port, "ERL_EPMD_ADDRESS": "127.0.0.1"}
    finally:
        server.terminate()
        server.wait()


def _run(command: Sequence[str], cwd: Path, environment: Mapping[str, str], folder: Path, plan: Plan) -> None:
    """Run a tool to its end; what it prints goes to a file. Nothing of it is left, however this ends.

    Raises:
        ShardsError: it takes much longer than it may.
    """
    # A closed loop takes the longer, the slower the server answers.
    seconds = 2 * (plan.begin_s + plan.duration_s) + _SLACK_SECONDS
    with _output(folder).open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise ShardsError(f"{command[0]} was not through after {seconds:.0f} s: {_last_lines(folder)}") from error
        finally:
            processes.end(_tree(process.pid), _STOP_SECONDS)


def _tree(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def _output(folder: Path) -> Path:
    return folder / "output"


def _last_lines(folder: Path) -> str:
    lines = [line.strip() for line in _output(folder).read_text(errors="replace").splitlines()]
    return " / ".join([line for line in lines if line][-_LAST_LINES:]) or "it said nothing"
