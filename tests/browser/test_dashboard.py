"""The dashboard in Chromium: it lives, it is usable by keyboard and on a phone, and says when it is stale."""

from __future__ import annotations

import asyncio
import re

from playwright.async_api import Browser, expect

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
        await expect(page.locator("#events")).to_contain_text("blue-1")
        await asyncio.to_thread(service[1].start)
        await expect(page.locator("#replicas tr")).to_have_count(2, timeout=30_000)
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
