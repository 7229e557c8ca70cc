"""Take the docs' pictures of the pages anew, of a real fleet under load: ``python -m tests.browser.screenshots``.

Each scene is taken light and dark, and where it says so at a phone's width: the demo page after a pulled plug, and the
dashboard in peace, in a promote that waits for a word, while slots move, and with a shard that is stopped. They go to
``docs/images/<scene>-<light|dark>[-phone].png``. Exit status: 0 all were taken, 1 not.
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
from pathlib import Path

import psutil
from PIL import Image
from playwright.async_api import Browser, Page, async_playwright, expect

from shards.ports import free_port
from tests.browser.chromium import ARGUMENTS, EXECUTABLE, MISSING
from tests.browser.test_pages import pane_of, say
from tests.fleet.runner import ROOT, Commands, part, steady

WIDTHS = {"": (1280, 900), "-phone": (360, 740)}
SCHEMES = ("light", "dark")
COLORS = 128
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
        """Take the pictures of a scene."""
        for name, page in self.pages.items():
            if phone or not name.endswith("-phone"):
                path = self._folder / f"{scene}-{name}.png"
                await page.screenshot(path=path, full_page=True)
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


@contextmanager
def fleet(clients: int) -> Iterator[Commands]:
    """A fleet of its own, with a load on it."""
    with tempfile.TemporaryDirectory() as directory:
        commands = Commands(Path(directory), free_port(()), "pictures")
        try:
            commands.ok("up", "--replicas", "3", "--shards", "2")
            load = ["run", "--url", f"{commands.url}/ws/", "--connections", str(clients), "--duration", "600"]
            command = [sys.executable, "-m", "shards.load", *load, "--rate", "1000"]
            quiet = subprocess.DEVNULL
            loading = subprocess.Popen(command, cwd=directory, stdout=quiet, stderr=quiet, start_new_session=True)
            try:
                commands.until(lambda status: status["connections"] >= clients)
                yield commands
            finally:
                loading.send_signal(signal.SIGINT)
                loading.wait(120)
        finally:
            commands("down", "--purge")


async def demo(browser: Browser, commands: Commands, folder: Path) -> None:
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

    async with camera(browser, f"http://127.0.0.1:{commands.port}/?group=lobby-{{number}}", folder) as taking:
        await taking.each(talk)
        await taking.take("demo", phone=True)


async def dashboard(browser: Browser, commands: Commands, folder: Path) -> None:
    """In peace and not."""
    async with camera(browser, f"http://127.0.0.1:{commands.port}/fleet/", folder) as taking:
        await taking.each(lambda page: expect(page.locator("#state")).to_have_text("blue serves"))
        await asyncio.sleep(30)  # for the small charts to have something to show
        await taking.take("dashboard", phone=True)

        await asyncio.to_thread(_start_promote, commands)
        await taking.each(lambda page: expect(page.locator("#state")).to_contain_text("promote from blue to green"))
        await taking.each(lambda page: expect(page.locator("#replicas tr.green")).to_have_count(3))
        await taking.take("dashboard-promote")
        await asyncio.to_thread(commands.ok, "rollback")

        await taking.each(lambda page: expect(page.locator("#state")).to_have_text("blue serves"))
        resharding = asyncio.create_task(asyncio.to_thread(commands.ok, "reshard", "--shards", "3"))
        await taking.each(lambda page: expect(page.locator("rect.moved").first).to_be_visible())
        await taking.take("dashboard-reshard")
        await resharding

        shard = psutil.Process(part(await asyncio.to_thread(commands.status), "shared-1")["pid"])
        shard.suspend()
        try:
            await taking.each(lambda page: expect(page.locator("#state")).to_contain_text("shared-1 does not answer"))
            await taking.take("dashboard-amiss")
        finally:
            shard.resume()
        await asyncio.to_thread(commands.until, steady)


def _start_promote(commands: Commands) -> None:
    """Begin a promote that waits for a word; the command ends and the promote stays."""
    commands("promote", "--hold")


async def take_all(commands: Commands, folder: Path, only: list[str]) -> None:
    """Take the pictures."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=EXECUTABLE, args=ARGUMENTS)
        for name, scenes in {"demo": demo, "dashboard": dashboard}.items():
            if name in only:
                await scenes(browser, commands, folder)
        await browser.close()


def main() -> int:
    """Take what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.screenshots", description=__doc__)
    parser.add_argument("--into", type=Path, default=ROOT / "docs" / "images", help="where the pictures go")
    parser.add_argument("--only", choices=("demo", "dashboard"), help="one page only")
    parser.add_argument("--clients", type=int, default=500, help="sockets of the load on the fleet")
    asked = parser.parse_args()
    if not EXECUTABLE:
        print(MISSING, file=sys.stderr)
        return 1
    asked.into.mkdir(parents=True, exist_ok=True)
    with fleet(asked.clients) as commands:
        asyncio.run(take_all(commands, asked.into, [asked.only] if asked.only else ["demo", "dashboard"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
