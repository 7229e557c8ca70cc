"""Take the docs' pictures of the pages anew, of a real fleet under load: ``python -m tests.browser.screenshots``.

Each scene is taken light and dark, and where it says so at a phone's width: the demo page after a pulled plug, and the
dashboard in peace, in a promote to another release that waits for a word, when slots have moved, and with a shard and a
replica that are stopped. A scene is waited for in all pages before any of it is taken, and what it leaves behind is
over before the next. They go to ``docs/images/<scene>-<light|dark>[-phone].png``. Exit status: 0 all were taken, 1 not.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from PIL import Image
from playwright.async_api import Browser, Page, async_playwright, expect

from shards.ports import free_port
from tests.browser.checkout import Checkout
from tests.browser.chromium import ARGUMENTS, EXECUTABLE, MISSING
from tests.browser.test_pages import pane_of, say
from tests.fleet.runner import ROOT, Commands, part, steady

WIDTHS = {"": (1280, 900), "-phone": (360, 740)}
SCHEMES = ("light", "dark")
COLORS = 128
CHARTS_S = 125.0
"""How long it takes until the small charts are full."""

BACK_S = 20.0
"""How long it takes until a page that the stopped replica served has found another one, and draws again."""
WAIT_MS = 60_000

expect.set_options(timeout=WAIT_MS)


class Camera:
    """Takes pictures of a page that is open in both schemes and in some widths at once.

    Args:
        browser: the browser.
        url: of the page; ``{number}`` in it is another one for each, so that none hears what is said on another.
        folder: where the pictures go.
    """

    def __init__(self, browser: Browser, url: str, folder: Path) -> None:
        self._browser, self._url, self._folder = browser, url, folder
        self.pages: dict[str, Page] = {}

    async def open(self) -> None:
        """Open the page."""
        for scheme in SCHEMES:
            for suffix, (width, height) in WIDTHS.items():
                context = await self._browser.new_context(
                    viewport={"width": width, "height": height},
                    color_scheme=scheme,  # type: ignore[arg-type]
                )
                page = self.pages[f"{scheme}{suffix}"] = await context.new_page()
                await page.goto(self._url.format(number=len(self.pages)))

    async def each(self, do: Callable[[Page], Awaitable[None]]) -> None:
        """Do something on each of them, one after the other."""
        for page in self.pages.values():
            await do(page)

    async def take(self, scene: str, phone: bool = False) -> None:
        """Take the pictures of a scene, one right after the other: they shall show the same."""
        wanted = {name: page for name, page in self.pages.items() if phone or not name.endswith("-phone")}
        paths = {name: self._folder / f"{scene}-{name}.png" for name in wanted}
        for name, page in wanted.items():
            await page.screenshot(path=paths[name], full_page=True)
        for path in paths.values():
            _make_small(path)
            print(path)


def _make_small(path: Path) -> None:
    """Keep the few colors that there are: a third of the bytes, and nobody sees a difference."""
    with Image.open(path) as image:
        image.convert("RGB").quantize(COLORS).save(path, optimize=True)


@asynccontextmanager
async def camera(browser: Browser, url: str, folder: Path) -> AsyncIterator[Camera]:
    taking = Camera(browser, url, folder)
    await taking.open()
    yield taking
    for page in taking.pages.values():
        await page.context.close()


@dataclass
class Studio:
    """What pictures are taken of.

    Attributes:
        commands: for the fleet.
        checkout: what it runs.
    """

    commands: Commands
    checkout: Checkout


@contextmanager
def studio(clients: int) -> Iterator[Studio]:
    """A fleet of its own, with a load on it, and the report of one that was before."""
    with tempfile.TemporaryDirectory() as directory:
        checkout = Checkout(Path(directory) / "checkout")
        commands = Commands(Path(directory), free_port(()), "pictures", environment=checkout.environment)
        try:
            commands.ok("up", "--replicas", "3", "--shards", "2", "--edges", "2")
            _load(commands, checkout, clients, 10).wait(120)
            loading = _load(commands, checkout, clients, 900)
            try:
                commands.until(lambda status: status["connections"] >= clients)
                yield Studio(commands, checkout)
            finally:
                loading.send_signal(signal.SIGINT)
                loading.wait(120)
        finally:
            commands("down", "--purge")


def _load(commands: Commands, checkout: Checkout, clients: int, seconds: int) -> subprocess.Popen[bytes]:
    """Begin a load, whose report the dashboard will tell of."""
    report = checkout.directory / "reports" / "run.json"
    load = ["run", "--url", f"{commands.url}/ws/", "--connections", str(clients), "--duration", str(seconds)]
    command = [sys.executable, "-m", "shards.load", *load, "--rate", "1000", "--report", str(report)]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=commands.state_dir, stdout=quiet, stderr=quiet, start_new_session=True)


async def demo(browser: Browser, of: Studio, folder: Path) -> None:
    """Two clients talk, and one resumes."""

    async def talk(page: Page) -> None:
        alice, bob = pane_of(page, "Alice"), pane_of(page, "Bob")
        for pane in (alice, bob):
            await expect(pane.locator(".state")).to_have_text("online")
        await say(alice, "hello")
        await expect(bob.locator(".messages")).to_contain_text("hello")
        await bob.get_by_role("button", name="Pull the plug").click()
        await say(alice, "while you were away")
        await expect(bob.locator(".messages")).to_contain_text("resumed: nothing missed")
        await say(bob, "there it is")
        await expect(alice.locator(".messages")).to_contain_text("there it is")

    async with camera(browser, f"http://127.0.0.1:{of.commands.port}/?group=lobby-{{number}}", folder) as taking:
        await taking.each(talk)
        await taking.take("demo", phone=True)


async def dashboard(browser: Browser, of: Studio, folder: Path) -> None:
    """In peace and not."""
    async with camera(browser, f"http://127.0.0.1:{of.commands.port}/fleet/", folder) as taking:
        await calm(taking)
        await asyncio.sleep(CHARTS_S)
        await taking.take("dashboard", phone=True)
        for scene in (promote, reshard, amiss):
            await scene(taking, of)
            await calm(taking)


async def calm(taking: Camera) -> None:
    """Wait until nothing of the scene before is left."""
    await taking.each(lambda page: expect(page.locator("#state")).to_have_text("blue serves"))
    await taking.each(lambda page: expect(page.locator("#replicas tr.blue:not(.down)")).to_have_count(3))
    await taking.each(lambda page: expect(page.locator("rect.moved")).to_have_count(0))


async def promote(taking: Camera, of: Studio) -> None:
    """Both releases run, the promote waits for a word."""
    of.checkout.release("2")
    await asyncio.to_thread(of.commands, "promote", "--hold")
    await taking.each(lambda page: expect(page.locator("#state")).to_have_text("promote from blue to green: hold"))
    await taking.each(lambda page: expect(page.locator("#replicas tr.green")).to_have_count(3))
    await taking.take("dashboard-promote", phone=True)
    await asyncio.to_thread(of.commands.ok, "rollback")


async def reshard(taking: Camera, of: Studio) -> None:
    """A third shard has just got its slots."""
    resharding = asyncio.create_task(asyncio.to_thread(of.commands.ok, "reshard", "--shards", "3"))
    await taking.each(lambda page: expect(page.locator("#shards")).to_contain_text("shared-2: 341 slots"))
    await taking.each(lambda page: expect(page.locator("#state")).to_have_text("blue serves"))
    await taking.each(lambda page: expect(page.locator("rect.moved").first).to_be_visible())
    await taking.take("dashboard-reshard")
    await resharding


async def amiss(taking: Camera, of: Studio) -> None:
    """A shard and a replica are stopped, and answer no more."""
    status = await asyncio.to_thread(of.commands.until, steady)
    stopped = [psutil.Process(part(status, name)["pid"]) for name in ("shared-1", "blue-2")]
    for process in stopped:
        process.suspend()
    try:
        for words in ("shared-1 does not answer", "blue-2 is missing"):
            await taking.each(lambda page, words=words: expect(page.locator("#state")).to_contain_text(words))  # type: ignore[misc]
        await asyncio.sleep(BACK_S)
        await taking.take("dashboard-amiss", phone=True)
    finally:
        for process in stopped:
            process.resume()


async def take_all(of: Studio, folder: Path, only: list[str]) -> None:
    """Take the pictures."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=EXECUTABLE, args=ARGUMENTS)
        for name, scenes in {"demo": demo, "dashboard": dashboard}.items():
            if name in only:
                await scenes(browser, of, folder)
        await browser.close()


def main() -> int:
    """Take what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.screenshots", description=__doc__)
    parser.add_argument("--into", type=Path, default=ROOT / "docs" / "images", help="where the pictures go")
    parser.add_argument("--only", choices=("demo", "dashboard"), help="one page only")
    parser.add_argument("--clients", type=int, default=100, help="sockets of the load on the fleet")
    asked = parser.parse_args()
    if not EXECUTABLE:
        print(MISSING, file=sys.stderr)
        return 1
    asked.into.mkdir(parents=True, exist_ok=True)
    with studio(asked.clients) as of:
        asyncio.run(take_all(of, asked.into, [asked.only] if asked.only else ["demo", "dashboard"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
