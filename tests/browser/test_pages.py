"""The demo page and the JavaScript client in Chromium, against real replicas that are cut off and killed."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from playwright.async_api import Browser, Page, expect

from shards.client import connect
from tests.proxy import Proxy
from tests.replica import Replica

FOLLOW = """([url, group, token]) => import("/static/shards.js").then(({ connect }) => new Promise((ready) => {
  const seen = { heard: [], gaps: 0, welcomes: [], errors: [] };
  const online = (welcome) => seen.welcomes.push(welcome.replica), error = (e) => seen.errors.push(e.code);
  const client = connect(url, { token, online, error });
  client.subscribe(group, {
    subscribed: () => ready(), message: (frame) => seen.heard.push([frame.offset, frame.data]), gap: () => seen.gaps++,
  });
  (window.all ??= []).push({ client, seen });
}))"""


async def open_page(browser: Browser, proxy: Proxy, group: str) -> Page:
    """Open the demo page of a group, online; what goes wrong on it fails the test."""
    page = await browser.new_page()
    page.on("pageerror", lambda error: (_ for _ in ()).throw(AssertionError(error)))
    await page.goto(f"http://127.0.0.1:{proxy.port}/?group={group}")
    await expect(page.locator("#state")).to_have_text("online")
    await expect(page.locator("#offset")).to_have_text(re.compile("[0-9]+"))
    return page


async def say(page: Page, text: str) -> None:
    await page.fill("#text", text)
    await page.click("text=Send")


async def texts(page: Page) -> list[str]:
    return await page.locator("#messages li:not(.notice)").all_inner_texts()


async def seen(page: Page, index: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = await page.evaluate("(index) => all[index].seen", index)
    return found


async def until_heard(page: Page, count: int, index: int = 0) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while len((found := await seen(page, index))["heard"]) < count:
            await asyncio.sleep(0.05)
    return found


async def test_two_tabs_talk_and_a_dropped_one_resumes(service: list[Replica], browser: Browser) -> None:
    async with Proxy(*(replica.port for replica in service)) as proxy:
        one, other = await open_page(browser, proxy, "tabs"), await open_page(browser, proxy, "tabs")
        await say(one, "hello")
        await expect(other.locator("#messages")).to_contain_text("hello")
        await other.click("#drop")
        await say(one, "while you were away")
        await expect(other.locator("#messages")).to_contain_text("while you were away")
        await expect(other.locator("#messages")).to_contain_text("resumed: nothing missed")
        await say(other, "back")
        await expect(one.locator("#messages")).to_contain_text("back")
        assert await texts(one) == await texts(other) == ["hello", "while you were away", "back"]
        await expect(other.locator("#reconnects")).to_have_text("1")


async def test_a_killed_replica_loses_nothing(service: list[Replica], browser: Browser) -> None:
    """kill -9 while a page and a Python client publish to each other; then everyone is on the other replica."""
    async with (
        Proxy(*(replica.port for replica in service)) as proxy,
        connect(proxy.ws) as python,
        python.subscribe("killed") as messages,
    ):
        page = await open_page(browser, proxy, "somewhere")
        await page.evaluate(FOLLOW, ["/ws/", "killed", None])
        publishing = page.evaluate(
            """async () => {
              const acks = [];
              for (let n = 0; n < 100; n++) acks.push(await all[0].client.publish("killed", `js ${n}`));
              return acks;
            }"""
        )
        talking = [asyncio.ensure_future(publishing), asyncio.create_task(self_talk(python, 100))]
        await asyncio.sleep(0.2)
        await asyncio.to_thread(service[0].stop, True)
        await asyncio.gather(*talking)
        await asyncio.to_thread(service[0].start)
        found = await until_heard(page, 200)
        heard = [(item.offset, item.data) async for item in _first(messages, 200)]
        assert [tuple(pair) for pair in found["heard"]] == heard
        assert [data for _, data in heard if data.startswith("js")] == [f"js {n}" for n in range(100)]
        assert [data for _, data in heard if data.startswith("py")] == [f"py {n}" for n in range(100)]
        assert (found["gaps"], found["errors"]) == (0, [])
        assert found["welcomes"] == ["blue-0", "blue-1"]


async def self_talk(client: Any, count: int) -> None:
    for n in range(count):
        await client.publish("killed", f"py {n}")


async def _first(messages: Any, count: int) -> Any:
    async with asyncio.timeout(60):
        for _ in range(count):
            yield await anext(messages)


async def test_two_clients_on_one_page_are_two_sessions(service: list[Replica], browser: Browser) -> None:
    async with Proxy(*(replica.port for replica in service)) as proxy:
        page = await open_page(browser, proxy, "somewhere")
        token = service[0].token("pair")
        for _ in range(2):
            await page.evaluate(FOLLOW, ["/ws/", "pair", token])
        await page.evaluate("() => all[0].client.close()")
        await page.evaluate("() => all[1].client.publish('pair', 1)")
        found = await until_heard(page, 1, 1)
        assert found["errors"] == []
        assert (await seen(page, 0))["heard"] == []
        assert sum(f"token={token}".encode() in request for request in proxy.requests) == 2


async def test_a_frozen_connection_is_left(service: list[Replica], browser: Browser) -> None:
    """Nothing comes any more, and no close either; Chromium's clock is turned on, so that the test is not."""
    async with Proxy(*(replica.port for replica in service)) as proxy:
        context = await browser.new_context()
        page = await context.new_page()
        await page.clock.install()
        await page.goto(f"http://127.0.0.1:{proxy.port}/?group=frozen")
        await expect(page.locator("#state")).to_have_text("online")
        await expect(page.locator("#offset")).to_have_text(re.compile("[0-9]+"))
        proxy.freeze()
        async with connect(service[1].ws) as other:
            await other.publish("frozen", {"text": "meanwhile"})
        await page.clock.run_for(25_000)
        await expect(page.locator("#messages")).to_contain_text("meanwhile")
        await context.close()
