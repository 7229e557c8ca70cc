"""The dashboard in Chromium: it lives, it is usable by keyboard and on a phone, and says when it is stale."""

from __future__ import annotations

import asyncio
import io
import re

import pytest
from PIL import Image
from playwright.async_api import Browser, Page, expect

from tests.browser.stage import Stage, view
from tests.browser.test_pages import focused
from tests.proxy import Proxy
from tests.replica import Replica

_CUT_OFF = """() => [...document.querySelectorAll("body :not(thead, thead *)")]
  .filter((one) => one.clientWidth && one.scrollWidth > one.clientWidth + 1).map((one) => one.outerHTML)"""
"""Gives what is wider than the place that it has; headings of columns, which cards show beside each value, aside."""


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
        await expect(page.locator("#replicas tr.down")).to_have_text(re.compile("blue-1 *missing"), timeout=30_000)
        await expect(page.locator("#state")).to_have_text("blue-1 is missing; blue serves")
        await expect(page).to_have_title(re.compile("blue-1 is missing"))
        await expect(page.locator("#events")).to_contain_text("blue-1")
        await asyncio.to_thread(service[1].start)
        await expect(page.locator("#replicas tr:not(.down)")).to_have_count(2, timeout=30_000)
        await expect(page.locator("#state")).to_have_text("blue serves")
        await expect(page).to_have_title("fleet")
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


@pytest.mark.parametrize("width", [360, 700, 1000, 1280, 1920])
async def test_all_of_a_replica_is_on_the_screen_however_wide_it_is(browser: Browser, width: int) -> None:
    """A long release too: in a promote it is what one looks for."""
    replicas = [one | {"release": "registry.example/shop:2026.11.29-24eaf4c+dirty"} for one in view(1)["replicas"]]
    async with Stage() as stage:
        context = await browser.new_context(viewport={"width": width, "height": 740})
        page = await context.new_page()
        await page.goto(stage.url)
        await stage.show(view(1, replicas=replicas))
        row = page.locator("#replicas tr").first
        for text in ("blue-0", "active", "3,333", "41.5 %", "180 MB", "24eaf4c+dirty"):
            await expect(row.get_by_text(text)).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        assert await page.evaluate(_CUT_OFF) == []
        await context.close()


async def test_charts_tell_figures_and_leave_room_above_a_steady_line(browser: Browser) -> None:
    async with Stage() as stage:
        page = await browser.new_page()
        await page.goto(stage.url)
        for p99 in (400.0, 4.0):
            await stage.show(view(1, latency_ms={"p50": 1.0, "p99": p99}))
            await expect(page.locator("#p99-text")).to_contain_text(f"now {p99:.0f} ms")
        await expect(page.locator("#p99-text")).to_have_text("now 4 ms, at most 400 ms")
        await expect(page.locator("#p99-top")).to_have_text("500 ms")
        await expect(page.locator("#rate-text")).to_have_text("now 10,000/s, at most 10,000/s")
        await expect(page.locator("#rate-top")).to_have_text("20,000/s")
        await expect(page.locator("#rate path:not(.dots)")).to_have_attribute(
            "d", re.compile(r"^M[\d.]+,24.0L[\d.]+,24.0$")
        )
        await page.close()


async def test_a_lone_point_of_a_chart_is_seen(browser: Browser) -> None:
    """At once, at the very edge of the chart; with the next one there is a line instead."""
    async with Stage() as stage:
        page = await browser.new_page()
        await page.goto(stage.url)
        await stage.show(view(1))
        await expect(page.locator("#rate-text")).to_contain_text("now")
        assert await blue_pixels(page, "#rate") >= 20
        await stage.show(view(1))
        dots = page.locator("#rate .dots")
        await expect(dots).to_have_attribute("d", "")
        await page.close()


async def blue_pixels(page: Page, selector: str) -> int:
    """Count the pixels of the chart's color in the plot around it."""
    shot = await page.locator(".plot", has=page.locator(selector)).screenshot()
    with Image.open(io.BytesIO(shot)) as image:
        colors = image.convert("RGB").getcolors(1 << 20) or []
    return sum(count for count, (red, _, blue) in colors if blue > red + 100)  # type: ignore[misc]


async def test_what_is_down_is_marked_where_it_stands_and_in_words(browser: Browser) -> None:
    async with Stage() as stage:
        page = await browser.new_page()
        await page.goto(stage.url)
        await stage.show(view(1))
        await expect(page.locator("#shards .down")).to_have_text("shared-1: 496 slots, does not answer")
        await expect(page.locator("#ring rect.down")).to_have_count(496)
        await expect(page.locator("#replicas tr.down")).to_have_text(re.compile("blue-2 *missing"))
        await stage.show(view(1, down=[], missing=[]))
        await expect(page.locator(".down")).to_have_count(0)
        await stage.show(view(1, down=[], missing=[], replicas=[], cutover=None, resharding=False))
        await expect(page.locator("body.amiss #state")).to_have_text("nobody serves")
        await page.close()


async def test_the_list_of_events_ends_with_a_whole_line(browser: Browser) -> None:
    async with Stage() as stage:
        page = await browser.new_page()
        await page.goto(stage.url)
        many = [{"at_ms": 1_700_000_000_000 + n, "kind": "worker", "text": f"blue-0/{n} came"} for n in range(60)]
        await stage.show(view(1, events=many))
        await expect(page.locator("#events li")).to_have_count(60)
        lines = await page.evaluate(
            """() => {
              const list = document.getElementById("events");
              return list.clientHeight / list.firstChild.getBoundingClientRect().height;
            }"""
        )
        assert lines == round(lines)
        await page.close()


async def test_what_scrolls_is_reached_by_keyboard(browser: Browser) -> None:
    async with Stage() as stage:
        context = await browser.new_context(viewport={"width": 360, "height": 740})
        page = await context.new_page()
        await page.goto(stage.url)
        many = [{"at_ms": 1_700_000_000_000 + n, "kind": "worker", "text": f"blue-0/{n} came"} for n in range(60)]
        await stage.show(view(1, events=many))
        await expect(page.locator("#events li")).to_have_count(60)
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
        await expect(page.locator("#replicas tr:not(.down)")).to_have_count(1)
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
