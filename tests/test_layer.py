"""The channel-layer specification, statement by statement, over real Redis servers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest
from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull

from shards.layer import ShardedChannelLayer
from shards.log.log import body_of
from shards.metrics import METRICS
from tests.conftest import Redises

MakeLayer = Callable[..., ShardedChannelLayer]


@pytest.fixture
async def make_layer(redises: Redises) -> AsyncIterator[MakeLayer]:
    """Make layers, each as a process of its own would have it."""
    layers: list[ShardedChannelLayer] = []

    def make(**config: object) -> ShardedChannelLayer:
        layers.append(ShardedChannelLayer(settings=redises.settings(), **config))  # type: ignore[arg-type]
        return layers[-1]

    yield make
    for layer in layers:
        await layer.close()


async def receive(layer: ShardedChannelLayer, channel: str, seconds: float = 5) -> dict[str, object]:
    return await asyncio.wait_for(layer.receive(channel), seconds)


async def nothing(layer: ShardedChannelLayer, channel: str) -> None:
    with pytest.raises(TimeoutError):
        await receive(layer, channel, 0.1)


async def test_a_group_message_reaches_every_member_in_every_process(make_layer: MakeLayer) -> None:
    one, two = make_layer(), make_layer()
    channels = [(layer, await layer.new_channel()) for layer in (one, one, two)]
    for layer, channel in channels:
        await layer.group_add("chat", channel)
    for number in range(20):
        await two.group_send("chat", {"type": "chat.message", "number": number})
    for layer, channel in channels:
        assert [(await receive(layer, channel))["number"] for _ in range(20)] == list(range(20))


async def test_who_left_a_group_hears_no_more(make_layer: MakeLayer) -> None:
    layer = make_layer()
    channel = await layer.new_channel()
    await layer.group_add("chat", channel)
    await layer.group_discard("chat", channel)
    await layer.group_discard("chat", channel)
    await layer.group_send("chat", {"type": "chat.message"})
    await nothing(layer, channel)


async def test_a_process_may_add_another_processs_channel(make_layer: MakeLayer) -> None:
    one, two = make_layer(), make_layer()
    channel = await one.new_channel()
    await two.group_add("chat", channel)
    async with asyncio.timeout(10):
        while True:
            await two.group_send("chat", {"type": "x"})
            try:
                assert await receive(one, channel, 0.2) == {"type": "x"}
                break
            except TimeoutError:
                continue


async def test_messages_sent_by_name_arrive_from_any_process(make_layer: MakeLayer) -> None:
    one, two = make_layer(), make_layer()
    channel = await one.new_channel()
    message = {"type": "x", "bytes": b"\x00\xff", "list": [1, 2.5, None, True, {"a": "b"}]}
    for layer in (one, two):
        await layer.send(channel, message)
        assert await receive(one, channel) == message


async def test_a_named_channel_gives_each_message_to_one_receiver(make_layer: MakeLayer) -> None:
    one, two = make_layer(), make_layer()
    await one.send("thumbnails", {"type": "make", "id": 4})
    assert await receive(two, "thumbnails") == {"type": "make", "id": 4}
    await nothing(one, "thumbnails")


async def test_a_full_channel_says_so_to_the_sender(make_layer: MakeLayer) -> None:
    layer = make_layer(capacity=3)
    channel = await layer.new_channel()
    for _ in range(3):
        await layer.send(channel, {"type": "x"})
    with pytest.raises(ChannelFull):
        await layer.send(channel, {"type": "x"})


async def test_a_group_message_dropped_at_capacity_is_counted(make_layer: MakeLayer) -> None:
    layer = make_layer(capacity=2)
    channel, idle = await layer.new_channel(), await layer.new_channel()
    await layer.group_add("chat", channel)
    await layer.group_add("chat", idle)
    before = METRICS.layer_dropped._value.get()
    for number in range(5):
        await layer.group_send("chat", {"type": "x", "number": number})
        assert (await receive(layer, channel))["number"] == number
    assert METRICS.layer_dropped._value.get() - before == 3


async def test_messages_expire(make_layer: MakeLayer) -> None:
    layer = make_layer(expiry=1)
    channel = await layer.new_channel()
    await layer.send(channel, {"type": "old"})
    await asyncio.sleep(1.05)
    await layer.send(channel, {"type": "new"})
    assert await receive(layer, channel) == {"type": "new"}


async def test_a_cancelled_receive_takes_no_message(make_layer: MakeLayer) -> None:
    layer = make_layer()
    channel = await layer.new_channel()
    for number in range(50):
        waiting = asyncio.create_task(layer.receive(channel))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await layer.send(channel, {"type": "x", "number": number})
        assert (await receive(layer, channel))["number"] == number


async def test_what_a_client_publishes_names_no_handler(make_layer: MakeLayer) -> None:
    """A socket's publish to a group must not reach consumers as if server code had sent it."""
    layer = make_layer()
    channel = await layer.new_channel()
    await layer.group_add("chat", channel)
    home = layer._home()
    forged = b'{"type":"chat.admin","via":"backend"}'
    await home.run(home.publish("chat", "forged", body_of("forged", forged)))
    await nothing(layer, channel)


async def test_sync_code_in_any_thread_can_send_and_receive(make_layer: MakeLayer) -> None:
    layer = make_layer()
    channel = await layer.new_channel()
    await layer.group_add("chat", channel)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            async_to_sync(layer.group_send)("chat", {"type": "x", "number": number})
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    numbers = [(await receive(layer, channel))["number"] for _ in range(8)]
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert not errors
    assert sorted(numbers) == list(range(8))


async def test_flush_forgets_messages_and_groups(make_layer: MakeLayer) -> None:
    layer = make_layer()
    channel = await layer.new_channel()
    await layer.group_add("chat", channel)
    await layer.send(channel, {"type": "x"})
    await layer.send("work", {"type": "x"})
    await layer.flush()
    await layer.group_send("chat", {"type": "x"})
    await nothing(layer, channel)
    await nothing(layer, "work")


@pytest.mark.parametrize("name", ["¯\\_(ツ)_/¯", "x" * 100, "a b", ""])
async def test_invalid_names_are_type_errors(make_layer: MakeLayer, name: str) -> None:
    layer = make_layer()
    with pytest.raises(TypeError):
        await layer.send(name, {"type": "x"})
    with pytest.raises(TypeError):
        await layer.group_add(name, "channel")
    with pytest.raises(TypeError):
        await layer.group_send(name, {"type": "x"})


async def test_only_dicts_of_json_and_bytes_are_messages(make_layer: MakeLayer) -> None:
    layer = make_layer()
    channel = await layer.new_channel()
    for message in ("text", {"type": "x", "value": object()}):
        with pytest.raises(TypeError):
            await layer.send(channel, message)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await layer.group_send("chat", message)  # type: ignore[arg-type]
