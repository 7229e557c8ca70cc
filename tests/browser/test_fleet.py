"""The pages open on a whole fleet, edges and all, while it is promoted and its replicas are killed."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from playwright.async_api import Browser, Locator, Page, expect

from tests.browser.checkout import Checkout
from tests.browser.test_pages import WHO, open_page_at, pane_of, say, texts
from tests.fleet.conftest import fleet_in
from tests.fleet.runner import Commands, finish, part, steady

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]

STEPS = ["deploy", "check", "switch", "move", "retire", "done"]

REMEMBER = """() => {
  const state = document.getElementById("state");
  window.told = [state.textContent];
  const watch = new MutationObserver(() => told.push(state.textContent));
  watch.observe(state, { childList: true, characterData: true, subtree: true });
}"""
"""Has the dashboard keep all that its first line said: what is there for a second only is not missed."""


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "checkout")


@pytest.fixture
def fleet(tmp_path: Path, checkout: Checkout) -> Iterator[Commands]:
    for commands in fleet_in(tmp_path, "pages"):
        commands.environment = checkout.environment
        commands.ok("up", "--replicas", "2", "--shards", "2", "--edges", "2")
        yield commands


class Talk:
    """What is said on the demo page by hand, in turn, every now and then."""

    def __init__(self, panes: list[Locator]) -> None:
        self._panes = panes
        self.said: list[str] = []

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Talk meanwhile."""
        talking = asyncio.create_task(self._on_and_on())
        try:
            yield
        finally:
            talking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await talking

    async def _on_and_on(self) -> None:
        while True:
            # A line that was begun is said to its end: half a one would be in the box, and said with the next.
            await asyncio.shield(asyncio.ensure_future(self.say()))
            await asyncio.sleep(1.0)

    async def say(self) -> None:
        """Say the next."""
        number = len(self.said)
        self.said.append(f"{WHO[number % 2]}: {number}")
        await say(self._panes[number % 2], str(number))

    async def heard(self) -> None:
        """Wait until both have heard all, and see that they did once and in one order."""
        await self.say()
        for pane in self._panes:
            await expect(pane.locator(".messages li:not(.notice)")).to_have_count(len(self.said))
        first, second = [await texts(pane) for pane in self._panes]
        assert first == second
        assert sorted(first) == sorted(self.said)


async def test_a_promote_and_kill_9_under_open_pages(fleet: Commands, checkout: Checkout, browser: Browser) -> None:
    dashboard = await browser.new_page()
    await dashboard.goto(f"http://127.0.0.1:{fleet.port}/fleet/")
    await expect(dashboard.locator("#state")).to_have_text("blue serves")
    await dashboard.evaluate(REMEMBER)
    demo = await open_page_at(browser, fleet.port, "lobby")
    panes = list(map(partial(pane_of, demo), WHO))
    talk = Talk(panes)

    new = checkout.release("2")
    async with talk.going_on():
        promoted = await asyncio.to_thread(finish, fleet.start("promote"))
        assert promoted.code == 0, promoted.stderr
        await expect(dashboard.locator("#state")).to_have_text("green serves")
    await expect(dashboard.locator("#replicas tr.green")).to_have_count(2)
    await expect(dashboard.locator("#replicas tr.green td:last-child")).to_have_text([new, new])
    await talk.heard()
    assert await steps_in(dashboard) == [f"promote from blue to green: {step}" for step in STEPS]
    assert "promote from blue to green: deploy" in await dashboard.evaluate("told"), "it is said while it is so"
    assert not [told for told in await dashboard.evaluate("told") if "missing" in told], "they went as they should"

    for name in ("green-0", "green-1"):
        await kill_9_while(talk, fleet, name)
        await expect(dashboard.locator("#events")).to_contain_text(re.compile(rf"{name}/\S+ is gone without a word"))
        await expect(dashboard.locator("#state")).to_have_text("green serves")
        await talk.heard()
    for pane in panes:
        await expect(pane.locator(".notice").last).to_have_text("resumed: nothing missed")
        assert "some history is gone" not in await pane.locator(".messages").inner_text()


async def kill_9_while(talk: Talk, fleet: Commands, name: str) -> None:
    """Kill a replica amid a talk, which goes on until the fleet is whole again."""
    async with talk.going_on():
        pid = part(await asyncio.to_thread(fleet.until, steady), name)["pid"]
        psutil.Process(pid).kill()

        def is_back(status: dict[str, object]) -> bool:
            return steady(status) and part(status, name)["pid"] != pid

        await asyncio.to_thread(fleet.until, is_back)


async def steps_in(dashboard: Page) -> list[str]:
    """Give the steps of a promote that the list of events tells of, the oldest first."""
    lines = await dashboard.locator("#events li").filter(has_text="promote from").all_inner_texts()
    return ["promote" + line.partition("promote")[2] for line in reversed(lines)]
