"""The command that sets a host's settings: tune."""

from __future__ import annotations

import json as jsonlib
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from shards.descriptors import descriptor_limit
from shards.errors import ShardsError, UsageError
from shards.fleet.spec import FleetSpec
from shards.host import tune as host
from shards.host.tune import Outcome, Places
from shards.host.tuning import Difference, Verdict, warnings
from shards.tasks.console import run, setting

_UNCHANGED = "as it should be"


@task(
    auto_shortflags=False,
    help={
        "apply": "set what differs, now and for when the host starts again (root)",
        "revert": "bring back what was before the first --apply (root)",
        "yes": "do not ask",
        "json": "print one JSON object",
        "debug": "show tracebacks of errors",
    },
)
def tune(
    context: Context,
    apply: bool = False,
    revert: bool = False,
    yes: bool = False,
    json: bool = False,
    debug: bool = False,
) -> None:
    """Show which kernel settings and limits of this host should differ, and why; set them, or take that back."""

    async def work() -> bool:
        if apply and revert:
            raise UsageError("--apply and --revert undo each other: choose one of them")
        places = Places()
        if revert:
            return _tell("revert", [], _revert(places), json)
        wanted = Path(setting(context, "fleet", "root")) / "docker" / "sysctl.conf"
        found = host.differences(places, wanted, [_port(context)])
        if not apply:
            return _tell("show", found, [], json)
        confirm(found, yes)
        return _tell("apply", found, host.apply(places, found), json)

    if not run(work(), debug=debug):
        raise Exit(code=1)


def _port(context: Context) -> int:
    """Give the port that a fleet would have, which is not listened on while none runs."""
    return FleetSpec.read({"port": setting(context, "fleet", "port")}, descriptor_limit()).port


def _revert(places: Places) -> list[Outcome]:
    _require_root("--revert")
    return host.revert(places)


def _require_root(flag: str) -> None:
    if os.geteuid() != 0:
        raise ShardsError(f"only root may do that: `sudo {sys.executable} -m invoke tune {flag}`")


def confirm(found: Sequence[Difference], yes: bool) -> None:
    """Ask once, with what it is about in view.

    Raises:
        ShardsError: this is not root, or the answer is no.
        UsageError: there is nobody to ask.
    """
    changes = [one for one in found if one.verdict is Verdict.CHANGE]
    if not changes:
        return
    _require_root("--apply")
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{len(changes)} settings would change, and nobody is here to be asked: add --yes")
    for one in changes:
        print(f"{one.key}: {one.current} → {one.wanted}", file=sys.stderr)
    for warning in warnings(changes):
        print(f"warning: {warning}", file=sys.stderr)
    print(f"change these {len(changes)} settings of this host? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise ShardsError("nothing was changed")


def _tell(action: str, found: Sequence[Difference], outcomes: Sequence[Outcome], json: bool) -> bool:
    if json:
        print(jsonlib.dumps(_object(action, found, outcomes)), flush=True)
    else:
        print("\n".join(_lines(action, found, outcomes)), flush=True)
    return not host.failed(outcomes)


def _object(action: str, found: Sequence[Difference], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "action": action,
        "settings": [asdict(one) for one in found],
        "differ": sum(one.verdict is Verdict.CHANGE for one in found),
        "outcomes": [asdict(one) for one in outcomes],
        "failed": [one.name for one in host.failed(outcomes)],
        "warnings": warnings(found),
        "applied": Places().record.exists(),
    }


def _lines(action: str, found: Sequence[Difference], outcomes: Sequence[Outcome]) -> list[str]:
    warned = [f"warning: {warning}" for warning in warnings(found)]
    if action == "show":
        return [*map(_difference, found), *warned, "", _summary(found)]
    refused = [_difference(one) for one in found if one.verdict in {Verdict.FORBIDDEN, Verdict.ABSENT}]
    lines = [*map(_outcome, outcomes), *refused, *warned]
    if action == "revert":
        return lines or ["nothing to take back: `inv tune --apply` was not run here"]
    done = f"{len(outcomes)} settings changed; `inv tune --revert` brings back what was" if outcomes else ""
    return [*lines, done or "nothing to change: what can be set here is as it should be"]


def _difference(one: Difference) -> str:
    current = {None: "-", "": "none"}.get(one.current, one.current)
    values = f"{current} → {one.wanted}" if one.verdict in {Verdict.CHANGE, Verdict.FORBIDDEN} else current
    why = one.note or one.reason
    return f"{one.verdict.value:<9} {one.key:<34} {values}  ({one.scope}) {why}"


def _outcome(one: Outcome) -> str:
    values = one.after if one.before is None else f"{one.before or 'none'} → {one.after or 'none'}"
    said = one.error or one.note
    return f"{'FAILED' if one.error else 'done':<9} {one.name:<34} {values or '-'}  {said}".rstrip()


def _summary(found: Sequence[Difference]) -> str:
    count = sum(one.verdict is Verdict.CHANGE for one in found)
    applied = "; `inv tune --revert` brings back what was before" if Places().record.exists() else ""
    if not count:
        return f"nothing to change: what can be set here is {_UNCHANGED}{applied}"
    return f"{count} settings to change: `inv tune --apply` does it, as root{applied}"
