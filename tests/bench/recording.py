"""Record a real `inv promote` under live clients, as people see it on a terminal: docs/images/promote.gif.

``python -m tests.bench.recording``: starts a fleet of its own and two shells on pseudo-terminals. In the upper one a
load counts its sockets, in the lower one commands are typed. What both show is drawn as it comes, in real time, and
nothing else is. The recording is kept only where the load's verdict is a pass and no client reconnected.
Exit status: 0 it was written, 1 it was not.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import json
import os
import pty
import re
import selectors
import signal
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import pyte
from PIL import Image, ImageColor, ImageDraw, ImageFont

from shards.ports import free_port
from tests.fleet.runner import ROOT, Commands

COLUMNS = 100
UPPER, LOWER = 18, 12
EVERY_S = 0.1
"""How often both screens are looked at: ten frames a second show a spinner turn."""

KEYS_A_SECOND = 22
PROMPT = "$ "
FONT, BOLD, SIZE = "DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf", 14

BACKGROUND, TEXT, RULE, CURSOR = "#0d1117", "#c9d1d9", "#30363d", "#8b949e"
SHADES = 12
COLORS = {
    "black": "#484f58", "red": "#ff7b72", "green": "#3fb950", "brown": "#d29922",
    "blue": "#58a6ff", "magenta": "#bc8cff", "cyan": "#39c5cf", "white": "#b1bac4",
}  # fmt: skip

Cell: TypeAlias = tuple[str, str, bool]
"""A character, its color, and whether it is bold."""


class Failed(Exception):
    """The recording did not show what it should."""


def _cell(char: pyte.screens.Char) -> Cell:
    return char.data, COLORS.get(char.fg.removeprefix("bright"), TEXT), char.bold


@dataclass
class Shell:
    """A shell on a terminal of its own."""

    rows: int
    environment: dict[str, str]
    screen: pyte.Screen = field(init=False)

    def __post_init__(self) -> None:
        self.screen = pyte.Screen(COLUMNS, self.rows)
        self._stream = pyte.ByteStream(self.screen)
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.execvpe("bash", ["bash", "--norc", "--noprofile"], self.environment)
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", self.rows, COLUMNS, 0, 0))

    def read(self) -> None:
        """Take what was written to the terminal."""
        with contextlib.suppress(OSError):
            self._stream.feed(os.read(self.terminal, 65536))

    def press(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    @property
    def ready(self) -> bool:
        """It waits for a command."""
        return self.text.endswith(PROMPT.rstrip()) and self.screen.cursor.x == len(PROMPT)

    def cells(self) -> list[list[Cell]]:
        """Give what it shows now."""
        buffer, cursor = self.screen.buffer, self.screen.cursor
        rows = [[_cell(buffer[row][column]) for column in range(COLUMNS)] for row in range(self.rows)]
        if not cursor.hidden and rows[cursor.y][min(cursor.x, COLUMNS - 1)][0] == " ":
            rows[cursor.y][min(cursor.x, COLUMNS - 1)] = ("█", CURSOR, False)
        return rows

    def close(self) -> None:
        os.close(self.terminal)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGHUP)
        os.waitpid(self.pid, 0)


Frame: TypeAlias = list[list[list[Cell]]]


@dataclass
class Recorder:
    """Both shells, and what they have shown since `recording` began."""

    shells: tuple[Shell, Shell]
    recording: bool = False
    frames: list[tuple[Frame, float]] = field(default_factory=list)

    def wait(self, seconds: float) -> None:
        """Let time pass, and record it."""
        self.until(lambda: False, seconds, must=False)

    def until(self, question: Callable[[], bool], seconds: float, *, must: bool = True) -> None:
        """Record until something is so.

        Raises:
            Failed: it is not so in time.
        """
        end = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            for shell in self.shells:
                selector.register(shell.terminal, selectors.EVENT_READ, shell)
            while not question():
                if time.monotonic() >= end:
                    if must:
                        raise Failed("\n\n".join(shell.text for shell in self.shells))
                    return
                self._look(selector)

    def _look(self, selector: selectors.BaseSelector) -> None:
        began = time.monotonic()
        while (left := began + EVERY_S - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                key.data.read()
        if self.recording:
            frame, took = [shell.cells() for shell in self.shells], time.monotonic() - began
            if self.frames and self.frames[-1][0] == frame:
                self.frames[-1] = (frame, self.frames[-1][1] + took)
            else:
                self.frames.append((frame, took))

    def type(self, shell: Shell, command: str) -> None:
        """Type a command, at a pace that can be followed."""
        for key in command:
            shell.press(key)
            if self.recording:
                self.wait(1 / KEYS_A_SECOND)
        self.wait(0.3)
        shell.press("\n")

    def run(self, shell: Shell, command: str, seconds: float) -> None:
        """Type a command and wait for its end."""
        self.until(lambda: shell.ready, 10)
        self.type(shell, command)
        self.until(lambda: shell.text.rstrip().endswith(command) or not shell.ready, 5)
        self.until(lambda: shell.ready, seconds)


def record(commands: Commands, options: argparse.Namespace) -> list[tuple[Frame, float]]:
    """Play the scene on a fleet that runs.

    Raises:
        Failed: something went otherwise than it should.
    """
    environment = {
        **os.environ,
        "INVOKE_FLEET_STATE_DIR": str(commands.state_dir), "INVOKE_FLEET_PROJECT": commands.project,
        "INVOKE_FLEET_PORT": str(commands.port), "TERM": "xterm-256color", "PS1": PROMPT,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    shells = Shell(UPPER, environment), Shell(LOWER, environment)
    upper, lower = shells
    recorder = Recorder(shells)
    try:
        recorder.until(lambda: upper.ready and lower.ready, 10)
        recorder.type(
            upper, f"python -m shards.load run --url {commands.url}/ws/ --rate 2000 --duration {options.duration}"
        )
        recorder.until(lambda: re.search(r"load, \d+ s", upper.text) is not None, 60)
        recorder.recording = True
        recorder.wait(1)
        recorder.run(lower, "inv status | head -n 1", 20)
        recorder.wait(0.5)
        recorder.run(lower, "inv promote", 90)
        recorder.run(lower, "inv status | head -n 1", 20)
        recorder.until(lambda: upper.ready, options.duration + 60)
        recorder.wait(0.5)
    finally:
        for shell in shells:
            shell.close()
    return recorder.frames


def check(report: Path) -> str:
    """Ask the clients' own books; give the figures in a line.

    Raises:
        Failed: a client had to reconnect, or missed something.
    """
    document = json.loads(report.read_text())
    connections, messages = document["connections"], document["messages"]
    told = (
        f"{connections['opened']:,} sockets, {connections['reconnects']} reconnects, "
        f"{messages['delivered']:,} delivered, {messages['lost']} lost, {messages['duplicated']} doubled, "
        f"{messages['reordered']} out of order"
    )
    if document["verdict"] != "pass" or connections["reconnects"] or connections["closed_by_server"]:
        raise Failed(f"verdict {document['verdict']}: {told}")
    return told


def draw(frame: Frame) -> Image.Image:
    """Draw both screens, one above the other."""
    fonts = {bold: ImageFont.truetype(name, SIZE) for bold, name in ((False, FONT), (True, BOLD))}
    width, height = round(fonts[False].getlength("█")), sum(fonts[False].getmetrics())
    margin = width
    rows = [*frame[0], None, *frame[1]]
    size = (COLUMNS * width + 2 * margin, len(rows) * height + 2 * margin)
    image = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(image)
    for number, row in enumerate(rows):
        top = margin + number * height
        if row is None:
            pen.line((0, top + height // 2, size[0], top + height // 2), RULE, 2)
            continue
        for column, (character, color, bold) in enumerate(row):
            place = (margin + column * width, top)
            if "\u2800" <= character <= "\u28ff":
                _dots(pen, place, character, color, (width, height))
            elif character.strip():
                pen.text(place, character, color, fonts[bold])
    return image


def _dots(pen: ImageDraw.ImageDraw, place: tuple[int, int], character: str, color: str, size: tuple[int, int]) -> None:
    """Draw a Braille pattern, as spinners are made of, which the font lacks."""
    bits = ord(character) - 0x2800
    for bit, (column, row) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3)]):
        if bits & 1 << bit:
            left, top = place[0] + 1 + column * (size[0] // 2), place[1] + 2 + row * (size[1] // 4)
            pen.rectangle((left, top, left + 1, top + 1), color)


@functools.cache
def palette() -> Image.Image:
    """Give an image with every color of the recording: each one, and its shades towards the background."""
    ground, shades = ImageColor.getrgb(BACKGROUND), []
    for color in map(ImageColor.getrgb, (TEXT, RULE, CURSOR, *COLORS.values())):
        for step in range(1, SHADES + 1):
            shades += [round(g + (c - g) * step / SHADES) for c, g in zip(color, ground, strict=True)]
    image = Image.new("P", (1, 1))
    image.putpalette([*ground, *shades])
    return image


def write(frames: list[tuple[Frame, float]], path: Path, still_s: float) -> None:
    """Write the recording; the last frame is shown for `still_s`."""
    images = [draw(frame).quantize(palette=palette(), dither=Image.Dither.NONE) for frame, _ in frames]
    lasting = [round(took * 100) * 10 for _, took in frames[:-1]]
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=[*lasting, round(still_s * 1000)], loop=0, optimize=True
    )


@contextlib.contextmanager
def fleet() -> Iterator[Commands]:
    """Start a fleet of three replicas, and take it down afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        commands = Commands(Path(directory), free_port(()), "demo")
        try:
            commands.ok("up", "--replicas", "3")
            yield commands
        finally:
            commands("down", "--purge")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.recording")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "promote.gif")
    parser.add_argument("--duration", type=int, default=24, help="seconds of load")
    parser.add_argument("--stills", type=Path, help="a directory for some frames as PNG")
    options = parser.parse_args()
    try:
        with fleet() as commands:
            frames = record(commands, options)
        told = check(ROOT / "reports" / "run.json")
    except Failed as failed:
        print(failed, file=sys.stderr)
        return 1
    write(frames, options.output, still_s=4)
    if options.stills:
        options.stills.mkdir(parents=True, exist_ok=True)
        for number in range(0, len(frames), max(1, len(frames) // 12)):
            draw(frames[number][0]).save(options.stills / f"{number:03}.png")
        draw(frames[-1][0]).save(options.stills / "last.png")
    seconds = sum(took for _, took in frames)
    print(f"{options.output}: {seconds:.0f} s, {options.output.stat().st_size / 1000:.0f} kB; {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
