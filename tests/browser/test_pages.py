"""The demo page and the JavaScript client in Chromium, against real replicas that are cut off and killed."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import Any

from playwright.async_api import Browser, Locator, Page, expect

from shards.client import connect
from tests.proxy import Proxy
from tests.replica import Replica

WHO = ("Alice", "Bob")

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
    """Open the demo page of a group behind a proxy."""
    return await open_page_at(browser, proxy.port, group)


async def open_page_at(browser: Browser, port: int, group: str) -> Page:
    """Open the demo page of a group, both clients online; what goes wrong on it fails the test."""
    page = await browser.new_page()
    page.on("pageerror", lambda error: (_ for _ in ()).throw(AssertionError(error)))
    await page.goto(f"http://127.0.0.1:{port}/?group={group}")
    for pane in map(partial(pane_of, page), WHO):
        await expect(pane.locator(".state")).to_have_text("online")
        await expect(pane.locator(".offset")).to_have_text(re.compile("[0-9]+"))
    return page


def pane_of(page: Page, who: str) -> Locator:
    return page.locator(f".pane[data-who={who}]")


async def say(pane: Locator, text: str) -> None:
    await pane.get_by_label("Message").fill(text)
    await pane.get_by_role("button", name="Send").click()


async def texts(pane: Locator) -> list[str]:
    return await pane.locator(".messages li:not(.notice)").all_inner_texts()


async def seen(page: Page, index: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = await page.evaluate("(index) => all[index].seen", index)
    return found


async def until_heard(page: Page, count: int, index: int = 0) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while len((found := await seen(page, index))["heard"]) < count:
            await asyncio.sleep(0.05)
    return found


async def test_two_clients_talk_and_one_whose_plug_was_pulled_resumes(service: list[Replica], browser: Browser) -> None:
    async with Proxy(*(replica.port for replica in service)) as proxy:
        page = await open_page(browser, proxy, "panes")
        alice, bob = pane_of(page, "Alice"), pane_of(page, "Bob")
        await say(alice, "hello")
        await expect(bob.locator(".messages")).to_contain_text("Alice: hello")
        await bob.get_by_role("button", name="Pull the plug").click()
        await say(alice, "while you were away")
        await expect(bob.locator(".messages")).to_contain_text("while you were away")
        await expect(bob.locator(".messages")).to_contain_text("resumed: nothing missed")
        await say(bob, "back")
        await expect(alice.locator(".messages")).to_contain_text("Bob: back")
        assert await texts(alice) == await texts(bob) == ["Alice: hello", "Alice: while you were away", "Bob: back"]
        await expect(bob.locator(".reconnects")).to_have_text("1")
        await expect(alice.locator(".reconnects")).to_have_text("0")
        assert await alice.locator(".offset").inner_text() == await bob.locator(".offset").inner_text() == "3"


async def test_the_page_shows_how_a_killed_replicas_clients_go_on_elsewhere(
    service: list[Replica], browser: Browser
) -> None:
    """kill -9, and what is said by hand before, meanwhile and after is there, once."""
    async with Proxy(*(replica.port for replica in service)) as proxy:
        page = await open_page(browser, proxy, "hand")
        alice, bob = pane_of(page, "Alice"), pane_of(page, "Bob")
        await expect(alice.locator(".replica")).to_have_text("blue-0")
        await say(alice, "before")
        await expect(bob.locator(".messages")).to_contain_text("before")
        await asyncio.to_thread(service[0].stop, True)
        try:
            await say(alice, "meanwhile")
            for pane in (alice, bob):
                await expect(pane.locator(".replica")).to_have_text("blue-1")
                await expect(pane.locator(".messages")).to_contain_text("resumed: nothing missed")
                await expect(pane.locator(".messages")).to_contain_text("meanwhile")
            await say(bob, "after")
            await expect(alice.locator(".messages")).to_contain_text("after")
        finally:
            await asyncio.to_thread(service[0].start)
        assert await texts(alice) == await texts(bob) == ["Alice: before", "Alice: meanwhile", "Bob: after"]


async def test_all_of_it_can_be_done_by_keyboard(service: list[Replica], browser: Browser) -> None:
    async with Proxy(*(replica.port for replica in service)) as proxy:
        page = await open_page(browser, proxy, "keys")
        alice, bob = pane_of(page, "Alice"), pane_of(page, "Bob")
        for pane, name in ((alice, "Alice"), (bob, "Bob")):
            for what in (f"What {name} hears", "Message", "Send", "Pull the plug"):
                await page.keyboard.press("Tab")
                assert await focused(page) == what
                if what == "Message":
                    await page.keyboard.type(f"typed by {name}")
                    await page.keyboard.press("Enter")
                    await expect(bob.locator(".messages")).to_contain_text(f"{name}: typed by {name}")
                    assert await focused(page) == what, "one may type on"
            await page.keyboard.press("Space")
            await expect(pane.locator(".reconnects")).to_have_text("1")
            await expect(pane.locator(".state")).to_have_text("online")
        await page.keyboard.press("Shift+Tab")
        assert await focused(page) == "Send"


async def focused(page: Page) -> str:
    """Give the name of what has the focus, as a screen reader says it."""
    found: str = await page.evaluate(
        """() => {
          const one = document.activeElement;
          const heading = one.getAttribute("aria-labelledby");
          return one.ariaLabel ?? (heading && document.getElementById(heading).textContent)
            ?? one.labels?.[0]?.textContent ?? one.textContent;
        }"""
    )
    return found


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
        alice = pane_of(page, "Alice")
        await expect(alice.locator(".state")).to_have_text("online")
        await expect(alice.locator(".offset")).to_have_text(re.compile("[0-9]+"))
        proxy.freeze()
        async with connect(service[1].ws) as other:
            await other.publish("frozen", {"text": "meanwhile"})
        await page.clock.run_for(25_000)
        await expect(alice.locator(".messages")).to_contain_text("meanwhile")
        await context.close()
