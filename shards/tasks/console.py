"""What the tasks share: settings of flags, progress on a terminal, and errors as one line with their exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from invoke.context import Context
from invoke.exceptions import Exit
from rich.console import Console

from shards.errors import ShardsError

_INTERRUPTED = 130
_REPEAT_S = 2.0
_COUNTDOWNS = {"waiting", "draining:", "moving"}

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


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Give a function that tells of progress on stderr: one line that moves on a terminal, plain lines otherwise."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("…") as status:
            yield lambda text: status.update(_escaped(text))
        return
    kind, last = "", 0.0

    def say(text: str) -> None:
        nonlocal kind, last
        # What differs only in what is left is said again only so often.
        if text.split()[0] != kind or kind not in _COUNTDOWNS or time.monotonic() - last >= _REPEAT_S:
            print(text, file=sys.stderr, flush=True)
            kind, last = text.split()[0], time.monotonic()

    yield say


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


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
    return flag is not None or f"INVOKE_{section}_{name}".upper() in os.environ
