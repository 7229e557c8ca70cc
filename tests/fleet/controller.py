"""``python -m tests.fleet.controller``: a promote or rollback to which something happens at a chosen point.

Points are those that `shards.fleet.rollout.Observer` is told of, and ``<step>.under_way``: some sockets have been
handed over, others not.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

import psutil

from shards.errors import ShardsError
from shards.fleet import processes, rollout
from shards.fleet.actions import Options
from shards.fleet.canary import Limits
from shards.fleet.cutover import TABLE, Action, Step, Verb
from shards.fleet.engines.local import LocalOptions
from shards.fleet.fleet import Fleet
from shards.fleet.spec import Color, other_color
from shards.fleet.state import FleetDir
from shards.server.handoff.window import MOST
from tests.fleet.runner import ROOT, Commands, Result, finish

Fault = Literal["kill the controller", "kill the new color", "kill the old color", "restart the control Redis"]
FAULTS: tuple[Fault, ...] = get_args(Fault)

DRAIN_S = 10.0
CANARY = Limits(seconds=2.0)

UNDER_WAY = ".under_way"
_MOVES = {Action.MOVE_TO_NEW, Action.MOVE_TO_OLD}
_SOME = 5

NO_SOCKETS = 4 + 2 * MOST
"""Files that takers have open amid a move which are not sockets that moved: links from two givers to two takers each,
and what is on offer and may yet stay."""

_UNDER_WAY_S = 10.0


def points(*steps: Step) -> list[str]:
    """Enumerate, from the table, where something can happen: before each action, while sockets move, and after all."""
    found = []
    for step in steps:
        for action in TABLE[step].does:
            found.append(f"{step}.{action}")
            if action in _MOVES:
                found.append(f"{step}{UNDER_WAY}")
        if TABLE[step].does:
            found.append(f"{step}.through")
    return found


def strike(commands: Commands, verb: str, fault: Fault, point: str, old: str) -> Result:
    """Run a command to which something happens."""
    arguments = [str(commands.state_dir), commands.project, verb, fault, point, old]
    return finish(
        subprocess.Popen(
            [sys.executable, "-m", "tests.fleet.controller", *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )


class Saboteur:
    """Does one thing, once, at one point.

    Args:
        directory: the fleet's.
        fault: what it does.
        point: where.
        old: the color that served before the promote.
    """

    def __init__(self, directory: FleetDir, fault: Fault, point: str, old: Color) -> None:
        self.directory, self.fault, self.point = directory, fault, point
        self.old, self.new = f"{old}-", f"{other_color(old)}-"
        self.to_take: str | None = None
        self.done = False

    def observe(self, point: str) -> None:
        """Hear what is about to be done."""
        step, _, action = point.partition(".")
        takers = {Action.MOVE_TO_NEW: self.new, Action.MOVE_TO_OLD: self.old}
        self.to_take = takers.get(action) if self.point == step + UNDER_WAY else None
        if point == self.point:
            self._strike(self._victims())

    def say(self, text: str) -> None:
        """Hear what the command tells its user: once it says how many are left, the orders to move are given."""
        print(text, file=sys.stderr, flush=True)
        if text.startswith("draining:") and self.to_take:
            victims = self._victims()
            print(f"# amid: {self._some_taken(self._pids(self.to_take))}", file=sys.stderr)
            self._strike(victims)

    def _victims(self) -> list[psutil.Process]:
        """Find whom to kill: that takes longer than a few hundred sockets take to move."""
        prefix = {
            "kill the controller": "",
            "kill the new color": self.new,
            "kill the old color": self.old,
            "restart the control Redis": "redis_shared",
        }[self.fault]
        if not prefix:
            return [psutil.Process()]
        return [process for name, found in self._parts() if name.startswith(prefix) for process in found]

    def _pids(self, prefix: str) -> list[int]:
        return [process.pid for name, found in self._parts() if name.startswith(prefix) for process in found]

    def _parts(self) -> Iterable[tuple[str, list[psutil.Process]]]:
        return processes.of_fleet(self.directory.path).items()

    def _some_taken(self, takers: list[int]) -> int:
        """Wait until some sockets have moved to these processes for certain; give how many have, at the least."""
        before, end = _files(takers), time.monotonic() + _UNDER_WAY_S
        while (taken := _files(takers) - before - NO_SOCKETS) < _SOME:
            assert time.monotonic() < end, f"no socket has moved in {_UNDER_WAY_S:.0f} s"
        return taken

    def _strike(self, victims: list[psutil.Process]) -> None:
        if not self.done:
            self.done = True
            print(f"# {self.fault} at {self.point}", file=sys.stderr, flush=True)
            kill(victims)


def _files(pids: list[int]) -> int:
    return sum(1 for pid in pids for _ in Path(f"/proc/{pid}/fd").iterdir())


def kill(found: list[psutil.Process]) -> None:
    """Kill -9."""
    for process in found:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


async def main(state_dir: str, project: str, verb: Verb, fault: Fault, point: str, old: Color) -> int:
    """Run the command; gives its exit code."""
    directory = FleetDir(Path(state_dir), project)
    saboteur = Saboteur(directory, fault, point, old)
    fleet = Fleet(directory, LocalOptions(ROOT), saboteur.say, ready_s=60.0)
    wish = rollout.Wish(verb, Options(DRAIN_S, CANARY), canary=20.0 if verb == "promote" else 0.0)
    try:
        await rollout.roll(fleet, wish, saboteur.observe)
    except ShardsError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("struck" if saboteur.done else "not struck")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))  # type: ignore[arg-type]
