"""The dashboard in Chromium: it lives, it is usable by keyboard and on a phone, and says when it is stale."""

from __future__ import annotations

import asyncio
import re

from playwright.async_api import Browser, expect

from tests.browser.stage import Stage, view
from tests.browser.test_pages import focused
from tests.proxy import Proxy
from tests.replica import Replica


async def test_it_shows_the_fleet_and_what_becomes_of_it(service: list[Replica], browser: Browser) -> None:
    async with Proxy(*(replica.port for replica in service)) as proxy:
        page = await browser.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None)
        await page.goto(f"http://127.0.0.1:{proxy.port}/fleet/")
        await expect(page.locator("#state")).to_have_text("blue serves")
        await expect(page.locator("#replicas tr")).to_have_count(2)
        await expect(page.locator("#ring rect")).to_have_count(1024)
        await expect(page.locator("#ring-text")).to_have_text("1024 slots on 2 shards, version 1")
        await expect(page.locator("#figures")).to_contain_text(re.compile("Delivered.*[0-9]+/s"))
        await asyncio.to_thread(service[1].stop, True)
        await expect(page.locator("#replicas tr")).to_have_count(1, timeout=30_000)
        await expect(page.locator("#state")).to_have_text("blue serves; blue-1 is missing")
        await expect(page.locator("#events")).to_contain_text("blue-1")
        await asyncio.to_thread(service[1].start)
        await expect(page.locator("#replicas tr")).to_have_count(2, timeout=30_000)
        await expect(page.locator("#state")).to_have_text("blue serves")
        assert complaints == []


async def test_it_comes_back_and_says_meanwhile_that_it_is_old(service: list[Replica], browser: Browser) -> None:
    async with Proxy(*(replica.port for replica in service)) as proxy:
        page = await browser.new_page()
        await page.goto(f"http://127.0.0.1:{proxy.port}/fleet/")
        await expect(page.locator("#state")).to_have_text("blue serves")
        await asyncio.to_thread(service[0].stop, True)
        await expect(page.locator("#state")).to_contain_text("is old")
        await asyncio.to_thread(service[0].start)
        await expect(page.locator("#state")).to_have_text("blue serves", timeout=30_000)


async def test_on_a_phone_nothing_is_wider_than_the_screen(service: list[Replica], browser: Browser) -> None:
    context = await browser.new_context(viewport={"width": 360, "height": 740})
    page = await context.new_page()
    await page.goto(f"http://127.0.0.1:{service[0].port}/fleet/")
    await expect(page.locator("#replicas tr")).to_have_count(2)
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    await context.close()


async def test_its_parts_are_reached_by_keyboard_and_those_that_scroll_do(browser: Browser) -> None:
    async with Stage() as stage:
        context = await browser.new_context(viewport={"width": 360, "height": 740})
        page = await context.new_page()
        await page.goto(stage.url)
        many = [{"at_ms": 1_700_000_000_000 + n, "kind": "worker", "text": f"blue-0/{n} came"} for n in range(60)]
        await stage.show(view(1, events=many))
        await expect(page.locator("#events li")).to_have_count(60)
        await page.keyboard.press("Tab")
        assert await focused(page) == "Replicas"
        await page.keyboard.press("ArrowRight")
        await page.wait_for_function("document.activeElement.scrollLeft > 0")
        await page.keyboard.press("Tab")
        assert await focused(page) == "Events"
        await page.keyboard.press("End")
        await page.wait_for_function("document.activeElement.scrollTop > 0")
        await context.close()


async def test_who_reads_a_line_is_not_thrown_out_of_it_by_the_next_view(browser: Browser) -> None:
    """Of what has not changed nothing is made anew: a selection stays, and so does where a screen reader reads."""
    async with Stage() as stage:
        page = await browser.new_page()
        await page.goto(stage.url)
        await stage.show(view(1))
        await expect(page.locator("#ring rect")).to_have_count(1024)
        await page.evaluate(
            """() => {
              window.changes = 0;
              const told = (found) => changes += found.filter(({ type }) => type === "childList").length;
              const watch = new MutationObserver(told);
              for (const id of ["replicas", "ring", "shards", "trouble", "reports", "events", "state"])
                watch.observe(document.getElementById(id), { childList: true, subtree: true, characterData: true });
              getSelection().selectAllChildren(document.querySelector("#replicas th"));
            }"""
        )
        await stage.show(view(1, connections=6667))
        await expect(page.locator("#figures")).to_contain_text("6,667")
        assert await page.evaluate("changes") == 0
        assert await page.evaluate("String(getSelection())") == "blue-0"
        replicas = [one | {"connections": 4000} for one in view(1)["replicas"]]
        await stage.show(view(2, replicas=replicas[:1]))
        await expect(page.locator("#replicas tr")).to_have_count(1)
        await expect(page.locator("#replicas")).to_contain_text("4,000")
        await expect(page.locator("rect.moved")).to_have_count(16)
        assert await page.evaluate("String(getSelection())") == "blue-0"
        await page.close()


async def test_a_page_that_hears_nothing_says_so_and_knows_better_when_it_does(browser: Browser) -> None:
    async with Stage() as stage:
        page = await browser.new_page()
        await page.goto(stage.url)
        await stage.show(view(1, cutover=None, resharding=False, down=[], missing=[]))
        await expect(page.locator("#state")).to_have_text("blue serves")
        await expect(page.locator("body.stale #state")).to_contain_text("is old", timeout=15_000)
        await stage.show(view(1, cutover=None, resharding=False, down=[], missing=[]))
        await expect(page.locator("body:not(.stale) #state")).to_have_text("blue serves")
        await page.close()
