"""Commands that replace what a fleet runs, under its clients: promote, rollback, restart."""

from __future__ import annotations

import sys
from dataclasses import fields, replace

from invoke.context import Context
from invoke.tasks import task

from shards.errors import UsageError
from shards.fleet import layout, rollout
from shards.fleet import restart as restarting
from shards.fleet.actions import Options
from shards.fleet.canary import Limits
from shards.fleet.cutover import Cutover, Step
from shards.tasks.console import progress, run, setting, until_enter
from shards.tasks.fleet import DEBUG, DRAIN, PROJECT, SECTION, drain_window, fleet_of, names_a_part

_LEAST_SHARE = 0.01
"""A canary's share is counted in hundredths of a percent."""


@task(
    auto_shortflags=False,
    help={
        "canary": "percentage of new requests that the new color gets first, while both are compared",
        "hold": "wait for a word before the switch: `inv promote` goes on, `inv rollback` goes back",
        "drain_seconds": DRAIN,
        "project": PROJECT,
        "debug": DEBUG,
    },
)
def promote(
    context: Context,
    canary: str | None = None,
    hold: bool = False,
    drain_seconds: str | None = None,
    project: str | None = None,
    debug: bool = False,
) -> None:
    """Deploy the app's code to the idle color, check it, switch to it, move the sockets, retire the old one.

    Killed at any moment, run it again: it goes on where it was.
    """

    async def work() -> None:
        share = _percent(canary)
        wish = rollout.Wish("promote", _options(context, drain_seconds), share, hold)
        await _roll(context, wish, project)

    run(work(), debug=debug)


@task(auto_shortflags=False, help={"drain_seconds": DRAIN, "project": PROJECT, "debug": DEBUG})
def rollback(
    context: Context, drain_seconds: str | None = None, project: str | None = None, debug: bool = False
) -> None:
    """Go back: to the release before the last promote, which the app's directory holds again, or out of a promote."""

    async def work() -> None:
        await _roll(context, rollout.Wish("rollback", _options(context, drain_seconds)), project)

    run(work(), debug=debug)


@task(
    auto_shortflags=False,
    positional=["name"] if names_a_part(sys.argv, "restart") else [],
    help={
        "name": "the part, for instance blue-0 or edge-0 (may be given without the flag)",
        "drain_seconds": DRAIN,
        "project": PROJECT,
        "debug": DEBUG,
    },
)
def restart(
    context: Context,
    name: str | None = None,
    drain_seconds: str | None = None,
    project: str | None = None,
    debug: bool = False,
) -> None:
    """Replace one replica, its sockets kept, or one edge; another one stands in for it meanwhile."""

    async def work() -> None:
        if name is None:
            raise UsageError("say which part to restart, for instance `inv restart blue-0`")
        seconds = drain_window(context, drain_seconds)
        with progress() as told, fleet_of(context, project, told) as fleet:
            path = str(setting(context, SECTION, "probe_path"))
            await restarting.restart(fleet, name, seconds, path)
        print(f"{name} runs anew")

    run(work(), debug=debug)


async def _roll(context: Context, wish: rollout.Wish, project: str | None) -> None:
    with progress() as told, fleet_of(context, project, told) as fleet:
        outcome = await rollout.roll(fleet, wish)
    if outcome.cutover.step is Step.HOLD:
        await _hold(context, wish, project, outcome.cutover)
        return
    state = outcome.state
    print(f"{state.active} is active: release {state.deployed[state.active].release} at {layout.url(state)}")


async def _hold(context: Context, wish: rollout.Wish, project: str | None, cutover: Cutover) -> None:
    """Wait for Enter on a terminal; elsewhere, and from elsewhere, a command is the word."""
    held = f"{cutover.new} is ready, {cutover.old} serves"
    if not sys.stdin.isatty():
        print(f"{held}: `inv promote` switches, `inv rollback` takes {cutover.new} away")
        return
    print(f"{held}: Enter switches; Ctrl-C leaves it so, for `inv promote` or `inv rollback`", flush=True)
    if await until_enter():
        await _roll(context, replace(wish, held=cutover.id), project)


def _options(context: Context, drain_seconds: str | None) -> Options:
    """Read how a cutover shall be done.

    Raises:
        UsageError: a number makes no sense.
    """
    numbers = {}
    for name in (field.name for field in fields(Limits)):
        text = str(setting(context, SECTION, "canary", None)[name])
        try:
            numbers[name] = float(text)
        except ValueError:
            raise UsageError(f"fleet.canary.{name} must be a number, not {text!r}") from None
        if not 0 <= numbers[name] < float("inf"):
            raise UsageError(f"fleet.canary.{name} must be 0 or more, not {text}")
    path = str(setting(context, SECTION, "probe_path"))
    return Options(drain_window(context, drain_seconds), Limits(**numbers), path)


def _percent(flag: str | None) -> float:
    if flag is None:
        return 0.0
    try:
        percent = float(flag)
    except ValueError:
        raise UsageError(f"--canary must be a percentage, not {flag!r}") from None
    if not _LEAST_SHARE <= percent <= 100 - _LEAST_SHARE:
        raise UsageError(f"--canary must be between {_LEAST_SHARE:g} and {100 - _LEAST_SHARE:g} percent, not {flag}")
    return percent
