"""What the tasks share: settings of flags, progress on a terminal, and errors as one line with their exit code."""

from __future__ import annotations

import asyncio
import difflib
import os
import signal
import sys
import time
import traceback
from collections.abc import Collection, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from invoke.config import DataProxy
from invoke.context import Context
from invoke.exceptions import Exit
from rich.console import Console
from rich.status import Status
from rich.text import Text

from shards.errors import ShardsError

_INTERRUPTED = 130
_PREFIX = "INVOKE_"
_REPEAT_S = 2.0
_COUNTDOWNS = {"waiting", "draining:", "moving", "watching"}

T = TypeVar("T")


def errors_as_lines(debug: bool) -> bool:
    """Tell whether errors shall be one line; tracebacks are for those who debug."""
    return not (debug or os.environ.get("SHARDS_DEBUG", "") not in ("", "0"))


def run(work: Coroutine[Any, Any, T], *, debug: bool = False) -> T:
    """Run a command's work to its end.

    Args:
        work: what to do. Ctrl-C and SIGTERM cancel it, so that it can put things back.
        debug: let errors through with their traceback.

    Raises:
        Exit: it failed; the message is for stderr and the code for the caller.
    """
    try:
        return asyncio.run(_cancellable(work))
    except ShardsError as error:
        if not errors_as_lines(debug):
            traceback.print_exc()
        raise Exit(f"error: {one_line(error)}", error.exit_code) from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise Exit("interrupted", _INTERRUPTED) from None
    except BrokenPipeError:
        # Whoever read our output, `head` for instance, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Exit(code=1) from None


async def _cancellable(work: Coroutine[Any, Any, T]) -> T:
    task = asyncio.current_task()
    assert task is not None
    with suppress(NotImplementedError, ValueError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work


def one_line(error: object) -> str:
    """Give a message without line ends."""
    return " ".join(str(error).split())


async def until_enter() -> bool:
    """Wait for Enter on the terminal; False: that was closed."""
    loop, entered = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin, entered.set)
    try:
        await entered.wait()
        return bool(sys.stdin.readline())
    finally:
        loop.remove_reader(sys.stdin)


class Progress(Protocol):
    """Tells of progress on stderr."""

    def say(self, text: str) -> None:
        """Tell what is being done, or waited for."""

    def keep(self, text: str) -> None:
        """Tell what was done, or must not be missed, and so stays; its first word says what it is about."""


@contextmanager
def progress() -> Iterator[Progress]:
    """Tell of progress: on a terminal in a line that moves, below what stays; in plain lines otherwise."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("…") as status:
            yield _MovingLine(console, status)
    else:
        yield Lines()


@dataclass(frozen=True)
class _MovingLine:
    console: Console
    status: Status

    def say(self, text: str) -> None:
        self.status.update(Text(text))

    def keep(self, text: str) -> None:
        line = Text(text)
        line.stylize("bold", 0, len(text.split()[0]))
        self.console.print(line, soft_wrap=True)


@dataclass
class Lines:
    """Tells of progress in plain lines."""

    kind: str = ""
    last: float = 0.0

    def say(self, text: str) -> None:
        # What differs only in what is left is said again only so often.
        kind = text.split()[0]
        if kind != self.kind or kind not in _COUNTDOWNS or time.monotonic() - self.last >= _REPEAT_S:
            self.keep(text)
            self.last = time.monotonic()

    def keep(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
        self.kind = text.split()[0]


@dataclass
class Kept:
    """Keeps what must not be missed for whoever draws it himself: lines on stderr would run across a whole screen."""

    lines: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Nothing: who watches sees what is done."""

    def keep(self, text: str) -> None:
        self.lines.append(text)

    def taken(self) -> list[str]:
        """Give what was kept since this was asked last."""
        taken, self.lines = self.lines, []
        return taken


def setting(context: Context, section: str, name: str, flag: object = None) -> Any:
    """Give a setting: the flag where it was given, else what Invoke's configuration says.

    Args:
        context: the task's.
        section: key of the configuration.
        name: of the setting.
        flag: what was given on the command line; None: nothing.
    """
    return flag if flag is not None else context.config[section][name]


def given(section: str, name: str, flag: object) -> bool:
    """Tell whether a setting was asked for now, by flag or environment, rather than by default."""
    return flag is not None or variable(section, name) is not None


def variable(section: str, name: str) -> str | None:
    """Name the variable of the environment that gives a setting; None: none does."""
    named = f"{_PREFIX}{section}_{name}".upper()
    return named if named in os.environ else None


def unknown_variables(environ: Iterable[str], config: Mapping[str, Mapping[str, object]]) -> list[str]:
    """Tell of variables of the environment that look like settings and are none: Invoke says nothing of them.

    Args:
        environ: the names of all variables.
        config: the settings, by section; only variables that begin as a section's do are looked at.

    Returns:
        A line each, with the setting that is meant, as far as that can be guessed.
    """
    known = {f"{_PREFIX}{section}_".upper(): set(_leaves(values)) for section, values in config.items()}
    found = []
    for name in sorted(environ):
        prefix = next((one for one in known if name.startswith(one)), None)
        if prefix is None or name.removeprefix(prefix) in known[prefix]:
            continue
        meant = _meant(prefix, name.removeprefix(prefix), known)
        advice = f"did you mean {meant}?" if meant else "docs/settings.md has all"
        found.append(f"{name} is no setting, and does nothing: {advice}")
    return found


def _leaves(values: Mapping[str, object], before: str = "") -> Iterator[str]:
    """Name the settings of a section as their variables end."""
    for name, value in values.items():
        if isinstance(value, Mapping | DataProxy):
            yield from _leaves(dict(value), f"{before}{name}_")
        else:
            yield f"{before}{name}".upper()


def _meant(prefix: str, rest: str, known: Mapping[str, Collection[str]]) -> str | None:
    """Guess which setting a variable is to give: of another section, else one of its own that reads alike."""
    elsewhere = next((one for one, names in known.items() if rest in names), None)
    if elsewhere:
        return elsewhere + rest
    alike = difflib.get_close_matches(rest, known[prefix])
    # Of those as near, one of the same letters: two that changed places are a slip of the hand.
    alike.sort(key=lambda name: sorted(name) != sorted(rest))
    return prefix + alike[0] if alike else None
