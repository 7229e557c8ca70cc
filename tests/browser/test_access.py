"""The pages by the rules of axe-core: contrast, labels, names, headings, keyboard. None is broken seriously."""

from __future__ import annotations

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from tests.browser.stage import Stage, view
from tests.replica import Replica

READY = {"/": ".replica:has-text('blue')", "/fleet/": "#replicas tr"}
"""What a page has once it shows what it shall."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("path", READY)
async def test_nothing_keeps_anybody_out(
    service: list[Replica], browser: Browser, path: str, width: int, scheme: str
) -> None:
    context = await browser.new_context(viewport={"width": width, "height": 740}, color_scheme=scheme)  # type: ignore[arg-type]
    page = await context.new_page()
    await page.goto(f"http://127.0.0.1:{service[0].port}{path}")
    await expect(page.locator(READY[path]).first).to_be_visible()
    assert await broken(page) == []
    await context.close()


async def broken(page: Page) -> list[tuple[str, list[str]]]:
    """Give the rules that are seriously broken, and by what."""
    found = await Axe().run(page)
    assert found.response["passes"], "it has looked"
    serious = [one for one in found.response["violations"] if one["impact"] in ("serious", "critical")]
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in serious]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("alarm", ["amiss", "stale"])
async def test_nor_does_anything_when_it_matters(browser: Browser, alarm: str, width: int, scheme: str) -> None:
    """A cutover, slots that move, what was counted, failed reports, parts that are down; and then silence."""
    async with Stage() as stage:
        context = await browser.new_context(viewport={"width": width, "height": 740}, color_scheme=scheme)  # type: ignore[arg-type]
        page = await context.new_page()
        await page.goto(stage.url)
        for version in (1, 2):
            await stage.show(view(version))
            await expect(page.locator("#ring-text")).to_contain_text(f"version {version}")
        await expect(page.locator("body.amiss #state")).to_contain_text("shared-1 does not answer; blue-2 is missing; ")
        await expect(page.locator("#trouble .some").first).to_be_visible()
        await expect(page.locator("#reports .fail")).to_be_visible()
        await expect(page.locator("rect.moved").first).to_be_visible()
        if alarm == "stale":
            await expect(page.locator("body.stale #state")).to_contain_text("is old")
        assert await broken(page) == []
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        await context.close()
