"""The pages by the rules of axe-core: contrast, labels, names, headings, keyboard. None is broken seriously."""

from __future__ import annotations

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, expect

from tests.replica import Replica

READY = {"/": "#replica:has-text('blue')", "/fleet/": "#replicas tr"}
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
    found = await Axe().run(page)
    assert found.response["passes"], "it has looked"
    serious = [one for one in found.response["violations"] if one["impact"] in ("serious", "critical")]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in serious] == []
    await context.close()
