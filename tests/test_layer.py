"""The channel-layer specification, statement by statement, over 1 to 16 real shards.

https://channels.readthedocs.io/en/latest/channel_layer_spec.html
"""

from __future__ import annotations

import asyncio
import random
import re
import signal
from collections.abc import Callable
from contextlib import suppress

import pytest
from channels.exceptions import ChannelFull, MessageTooLarge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shards.layer import ShardedChannelLayer
from shards.log.log import body_of
from shards.metrics import METRICS
from shards.router.control import Control
from shards.router.table import Shard, SlotTable
from shards.settings import Settings
from tests.layers import MOST_SHARDS, MakeLayer, Pool, make_layer, nothing, pool, receive
from tests.redis_server import RedisServer

__all__ = ["make_layer", "pool"]


def dropped() -> float:
    return METRICS.layer_dropped._value.get()


async def numbers(layer: ShardedChannelLayer, channel: str, count: int) -> list[object]:
    return [(await receive(layer, channel))["number"] for _ in range(count)]


# Messages


@pytest.mark.parametrize(
    "value",
    [
        b"\x00\xff",
        "é\u2028\U0001f600",
        2**63 - 1,
        -(2**63),
        1.7976931348623157e308,
        [1, [2]],
        {"a": {"b": None}},
        True,
        None,
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_message_may_hold_what_the_specification_lists(make_layer: MakeLayer, value: object) -> None:
    one, two = make_layer(), make_layer()
    channel, message = await one.new_channel(), {"type": "x", "value": value}
    await one.group_add("chat", channel)
    await one.send(channel, message)
    await two.send(channel, message)
    await two.send("work", message)
    await two.group_send("chat", message)
    assert [await receive(one, channel) for _ in range(3)] == [message] * 3
    assert await receive(one, "work") == message


async def test_tuples_become_lists(make_layer: MakeLayer) -> None:
    layer = make_layer()
    await layer.send("work", {"type": "x", "value": (1, (b"2",))})
    assert await receive(layer, "work") == {"type": "x", "value": [1, [b"2"]]}


async def test_a_message_of_a_megabyte_is_taken(make_layer: MakeLayer) -> None:
    layer, message = make_layer(), {"type": "x", "text": "x" * 1_000_000}
    channel = await layer.new_channel()
    await layer.group_add("chat", channel)
    await layer.group_send("chat", message)
    await layer.send("work", message)
    assert await receive(layer, channel) == message
    assert await receive(layer, "work") == message


async def test_anything_else_is_a_type_error(make_layer: MakeLayer) -> None:
    layer = make_layer()
    channel = await layer.new_channel()
    for message in ("text", None, {"type": "x", "value": object()}):
        for name in (channel, "work"):
            with pytest.raises(TypeError):
                await layer.send(name, message)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await layer.group_send("chat", message)  # type: ignore[arg-type]


async def test_what_no_socket_could_be_sent_no_group_is(make_layer: MakeLayer) -> None:
    """Each socket in the group would be closed for it as too slow, whenever it comes back; or fail to read it."""
    layer = make_layer()
    with pytest.raises(MessageTooLarge, match="1047552 bytes"):
        await layer.group_send("chat", {"type": "x", "text": "x" * (1 << 20)})
    nested: list[object] = []
    for _ in range(600):
        nested = [nested]
    with pytest.raises(TypeError, match="in one another"):
        await layer.group_send("chat", {"type": "x", "value": nested})


async def test_what_is_sent_is_a_copy(make_layer: MakeLayer) -> None:
    layer, message = make_layer(), {"type": "x", "list": [1]}
    channel = await layer.new_channel()
    await layer.send(channel, message)
    message["list"].append(2)  # type: ignore[union-attr]
    assert await receive(layer, channel) == {"type": "x", "list": [1]}


# Names


@pytest.mark.parametrize("name", ["¯\\_(ツ)_/¯", "x" * 100, "a b", "", "a!b!c"])
async def test_invalid_names_are_type_errors(make_layer: MakeLayer, name: str) -> None:
    layer = make_layer()
    for call in (layer.send(name, {"type": "x"}), layer.group_add("chat", name), layer.group_discard("chat", name)):
        with pytest.raises(TypeError):
            await call
    for call in (layer.group_send(name, {"type": "x"}), layer.group_add(name, "work"), layer.receive(name)):
        with pytest.raises(TypeError):
            await call


async def test_names_may_have_99_characters(make_layer: MakeLayer) -> None:
    layer, name = make_layer(), "Az09-_." * 14 + "x"
    assert len(name) == 99
    channel = await layer.new_channel()
    await layer.group_add(name, channel)
    await layer.group_send(name, {"type": "x"})
    await layer.send(name, {"type": "y"})
    assert await receive(layer, channel) == {"type": "x"}
    assert await receive(layer, name) == {"type": "y"}


async def test_new_channels_are_unlike_any_other_and_begin_with_their_prefix(make_layer: MakeLayer) -> None:
    one, two = make_layer(), make_layer()
    names = [
        await layer.new_channel(prefix) for layer in (one, two) for prefix in ("specific", "http.request", "a.b.c")
    ]
    assert len(set(names)) == 6
    for name, prefix in zip(names, ("specific", "http.request", "a.b.c") * 2, strict=True):
        assert re.fullmatch(re.escape(prefix) + r"\.[^!]+![^!]+", name)
        assert one.require_valid_channel_name(name)
    for prefix in ("p" * 90, "a b", "a!b"):
        with pytest.raises(TypeError):
            await one.new_channel(prefix)


async def test_another_processs_channel_cannot_be_received_from(make_layer: MakeLayer) -> None:
    one, two = make_layer(), make_layer()
    with pytest.raises(TypeError):
        await two.receive(await one.new_channel())


# Channels


async def test_messages_sent_by_name_arrive_from_any_process(make_layer: MakeLayer) -> None:
    one, two = make_layer(), make_layer()
    channel = await one.new_channel()
    for layer in (one, two):
        await layer.send(channel, {"type": "x"})
        assert await receive(one, channel) == {"type": "x"}


async def test_a_channel_is_first_in_first_out(make_layer: MakeLayer) -> None:
    one, two = make_layer(), make_layer()
    channel = await one.new_channel()
    for name in (channel, "work"):
        for number in range(50):
            await two.send(name, {"type": "x", "number": number})
        assert await numbers(one, name, 50) == list(range(50))


async def test_each_message_goes_to_one_reader_in_any_process(make_layer: MakeLayer) -> None:
    layers = [make_layer(), make_layer()]
    readers = [asyncio.create_task(numbers(layer, "work", 20)) for layer in layers for _ in range(2)]
    for number in range(80):
        await layers[0].send("work", {"type": "x", "number": number})
    got = await asyncio.wait_for(asyncio.gather(*readers), 60)
    assert sorted(number for some in got for number in some) == list(range(80))
    await nothing(layers[0], "work")


async def test_several_receives_on_one_channel_get_a_message_each(make_layer: MakeLayer) -> None:
    layer = make_layer()
    channel = await layer.new_channel()
    waiting = [asyncio.create_task(receive(layer, channel)) for _ in range(10)]
    await asyncio.sleep(0)
    for number in range(10):
        await layer.send(channel, {"type": "x", "number": number})
    assert sorted([(await task)["number"] for task in waiting]) == list(range(10))  # type: ignore[type-var]
    await nothing(layer, channel)


@pytest.mark.parametrize("name", ["specific", "work"], ids=["own channel", "named channel"])
async def test_a_cancelled_receive_takes_no_message_and_forgets_nobody(make_layer: MakeLayer, name: str) -> None:
    """Whenever the cancel comes: before the message, with it, or when the receive has been woken for it."""
    layer, chance = make_layer(), random.Random(7)
    channel = await layer.new_channel() if name == "specific" else name
    for number in range(60):
        cancelled, patient = (asyncio.create_task(layer.receive(channel)) for _ in range(2))
        await asyncio.sleep(chance.choice([0, 0, 0.001]))
        await layer.send(channel, {"type": "x", "number": number})
        for _ in range(chance.choice([0, 0, 1, 2, 5])):
            await asyncio.sleep(0)
        if cancelled.cancel():
            await asyncio.gather(cancelled, return_exceptions=True)
        got = cancelled if not cancelled.cancelled() else patient
        assert (await asyncio.wait_for(got, 60))["number"] == number
        patient.cancel()
        await asyncio.gather(patient, return_exceptions=True)
    await nothing(layer, channel)


async def test_a_receive_cancelled_here_leaves_the_message_to_another_process(make_layer: MakeLayer) -> None:
    one, two = make_layer(), make_layer()
    for number in range(20):
        await nothing(one, "work") if number == 0 else None
        waiting = asyncio.create_task(one.receive("work"))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await two.send("work", {"type": "x", "number": number})
        assert (await receive(two, "work"))["number"] == number


async def test_messages_expire(make_layer: MakeLayer) -> None:
    layer = make_layer(expiry=1)
    channel = await layer.new_channel()
    for name in (channel, "work"):
        await layer.send(name, {"type": "old"})
    await asyncio.sleep(1.1)
    for name in (channel, "work"):
        assert await received_once_sent(layer, name, {"type": "new"}) == {"type": "new"}


async def received_once_sent(layer: ShardedChannelLayer, name: str, message: dict[str, object]) -> dict[str, object]:
    """Send until something comes: on a machine that stands still, a message may expire before it is received."""
    async with asyncio.timeout(60):
        while True:
            await layer.send(name, message)
            with suppress(TimeoutError):
                return await receive(layer, name, 1)


async def test_a_message_to_a_channel_that_is_gone_is_counted(make_layer: MakeLayer) -> None:
    layer, before = make_layer(), dropped()
    mine = await layer.new_channel()
    await layer.send(mine.partition("!")[0] + "!gone", {"type": "x"})
    assert dropped() - before == 1


async def test_named_channels_that_are_received_from_are_limited(
    make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each holds a connection; whoever sends to this process's own channels goes on."""
    monkeypatch.setattr("shards.mailbox.MOST_LISTENED", 3)
    one, two = make_layer(), make_layer()
    own = await one.new_channel()
    await two.send(own, {"type": "x"})
    assert await receive(one, own) == {"type": "x"}
    waiting = [asyncio.create_task(receive(one, f"work-{number}")) for number in range(2)]
    async with asyncio.timeout(60):
        while len(one._home().mailboxes._tasks) < 3:
            await asyncio.sleep(0.02)
    with pytest.raises(RedisError, match="receives from 3 named channels already"):
        await receive(one, "work-2")
    await two.send("work-0", {"type": "y"})
    assert await waiting[0] == {"type": "y"}
    await two.send("work-2", {"type": "z"})
    assert await receive(one, "work-2") == {"type": "z"}
    waiting[1].cancel()
    await asyncio.gather(waiting[1], return_exceptions=True)


# Capacity


async def test_a_full_channel_says_so_to_the_sender_and_is_counted(make_layer: MakeLayer) -> None:
    layer = make_layer(capacity=3)
    channel, before = await layer.new_channel(), dropped()
    for name in (channel, "work"):
        for _ in range(3):
            await layer.send(name, {"type": "x"})
        with pytest.raises(ChannelFull):
            await layer.send(name, {"type": "x"})
        await receive(layer, name)
        await layer.send(name, {"type": "x"})
    assert dropped() - before == 2


async def test_capacity_may_be_set_by_pattern(make_layer: MakeLayer) -> None:
    layer = make_layer(capacity=2, channel_capacity={"work.*": 1, re.compile(r"bulk\d"): 4})
    for name, capacity in (("work.a", 1), ("bulk7", 4), ("other", 2)):
        for _ in range(capacity):
            await layer.send(name, {"type": "x"})
        with pytest.raises(ChannelFull):
            await layer.send(name, {"type": "x"})


async def test_what_has_expired_makes_room_and_is_counted(make_layer: MakeLayer) -> None:
    layer = make_layer(capacity=1, expiry=2)
    channel, before = await layer.new_channel(), dropped()
    await layer.send(channel, {"type": "old"})
    await asyncio.sleep(2.1)
    await layer.send(channel, {"type": "new"})
    assert await receive(layer, channel) == {"type": "new"}
    assert dropped() - before == 1


async def test_what_has_expired_in_a_mailbox_makes_room_and_is_counted(make_layer: MakeLayer) -> None:
    layer = make_layer(capacity=2, expiry=2)
    before = dropped()
    await layer.send("work", {"type": "old"})
    await asyncio.sleep(1.2)
    await layer.send("work", {"type": "young"})
    await asyncio.sleep(1)
    await layer.send("work", {"type": "new"})
    assert dropped() - before == 1


async def test_what_may_not_have_reached_named_channels_is_counted(
    make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(**_: object) -> None:
        raise RedisError("OOM command not allowed")

    layer = make_layer()
    for name in ("work", "more"):
        await layer.group_add("chat", name)
    before = dropped()
    monkeypatch.setattr(layer._home().mailboxes, "_put", fail)
    await layer.group_send("chat", {"type": "x"})
    assert dropped() - before == 2


@pytest.mark.parametrize("before", [False, True], ids=["later", "from the start"])
async def test_a_color_redis_that_hangs_does_not_hold_up_groups(
    start_redis: Callable[[], RedisServer], before: bool
) -> None:
    """Who is in a group by name can't be told then; but its log is elsewhere."""
    control, color, shard = start_redis(), start_redis(), start_redis()
    async with Redis.from_url(control.url) as redis:
        await Control(redis).swap_table(SlotTable.first([Shard("shared-0", shard.url)]), 0)
    assert color.process is not None
    if before:
        color.process.send_signal(signal.SIGSTOP)
    layer = ShardedChannelLayer(settings=Settings(control.url, color.url))
    try:
        channel = await layer.new_channel()
        await layer.group_add("chat", channel)
        await layer.group_send("chat", {"type": "x", "number": 0})
        color.process.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(30):
            while layer._home().mailboxes._asking.up:
                await asyncio.sleep(0.1)
        await layer.group_send("chat", {"type": "x", "number": 1})
        async with asyncio.timeout(1.5):  # what the first one waits for an answer
            for number in range(2, 20):
                await layer.group_send("chat", {"type": "x", "number": number})
        assert await numbers(layer, channel, 20) == list(range(20))
    finally:
        color.process.send_signal(signal.SIGCONT)
        await layer.close()


async def test_sending_to_a_group_never_raises_channelfull_but_drops_and_counts(make_layer: MakeLayer) -> None:
    layer = make_layer(capacity=2)
    channel, idle = await layer.new_channel(), await layer.new_channel()
    for member in (channel, idle, "work"):
        await layer.group_add("chat", member)
    before = dropped()
    for number in range(5):
        await layer.group_send("chat", {"type": "x", "number": number})
        assert await numbers(layer, channel, 1) == [number]
    assert dropped() - before == 6, "three of each of the two that nobody reads"


# Groups


async def test_a_group_message_reaches_every_member_in_every_process_in_order(make_layer: MakeLayer) -> None:
    one, two = make_layer(), make_layer()
    channels = [(layer, await layer.new_channel()) for layer in (one, one, two)]
    for layer, channel in channels:
        await layer.group_add("chat", channel)
    for number in range(20):
        await two.group_send("chat", {"type": "chat.message", "number": number})
    for layer, channel in channels:
        assert await numbers(layer, channel, 20) == list(range(20))


async def test_a_named_channel_in_a_group_gets_each_message_once(make_layer: MakeLayer) -> None:
    """Whichever process added it, sends and receives."""
    one, two = make_layer(), make_layer()
    own = await one.new_channel()
    await one.group_add("chat", own)
    await one.group_add("chat", "work")
    await two.group_add("chat", "work")
    for number in range(20):
        await two.group_send("chat", {"type": "x", "number": number})
    assert await numbers(one, "work", 20) == list(range(20))
    assert await numbers(one, own, 20) == list(range(20))
    await nothing(two, "work")


async def test_a_channel_that_is_in_a_group_already_may_be_added_again(make_layer: MakeLayer) -> None:
    layer = make_layer()
    channel = await layer.new_channel()
    for member in (channel, "work"):
        await layer.group_add("chat", member)
        await layer.group_add("chat", member)
    await layer.group_send("chat", {"type": "x"})
    for member in (channel, "work"):
        assert await receive(layer, member) == {"type": "x"}
        await nothing(layer, member)


async def test_who_left_a_group_hears_no_more(make_layer: MakeLayer) -> None:
    layer = make_layer()
    channel = await layer.new_channel()
    for member in (channel, "work"):
        await layer.group_discard("chat", member)
        await layer.group_add("chat", member)
        await layer.group_discard("chat", member)
        await layer.group_discard("chat", member)
    await layer.group_send("chat", {"type": "chat.message"})
    await nothing(layer, channel)
    await nothing(layer, "work")


async def test_a_process_may_add_another_processs_channel(make_layer: MakeLayer) -> None:
    one, two = make_layer(), make_layer()
    channel = await one.new_channel()
    await two.group_add("chat", channel)
    async with asyncio.timeout(60):
        while True:
            await two.group_send("chat", {"type": "x"})
            try:
                assert await receive(one, channel, 0.2) == {"type": "x"}
                break
            except TimeoutError:
                continue


async def test_membership_lapses_after_group_expiry(make_layer: MakeLayer) -> None:
    layer = make_layer(group_expiry=1)
    assert layer.group_expiry == 1
    channel = await layer.new_channel()
    for member in (channel, "work"):
        await layer.group_add("chat", member)
    home = layer._home()
    async with asyncio.timeout(60):
        while home.channels:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)  # a channel with a name lapses by Redis's clock
    await layer.group_send("chat", {"type": "x"})
    await nothing(layer, channel)
    await nothing(layer, "work")


async def test_membership_is_renewed_by_adding_and_receiving(make_layer: MakeLayer) -> None:
    """The specification counts from the last group_add; who still receives is not cut off here."""
    layer = make_layer(group_expiry=3)
    added, receiving = await layer.new_channel(), await layer.new_channel()
    for member in (added, receiving, "work"):
        await layer.group_add("chat", member)
    waiting = asyncio.create_task(receive(layer, receiving))
    for _ in range(5):
        await asyncio.sleep(0.8)
        for member in (added, "work"):
            await layer.group_add("chat", member)
    await layer.group_send("chat", {"type": "x"})
    assert [await waiting, await receive(layer, added), await receive(layer, "work")] == [{"type": "x"}] * 3


async def test_a_channel_that_is_received_from_no_more_is_forgotten(
    make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its connection ends, whether the app has taken it out of its groups or not; what waited is counted."""
    monkeypatch.setattr("shards.layer._GIVEN_UP_SECONDS", 1.0)
    layer, before = make_layer(), dropped()
    home = layer._home()
    kept, gone = await layer.new_channel(), [await layer.new_channel() for _ in range(50)]
    for channel in gone:
        await layer.group_add("chat", channel)
    receives = [asyncio.create_task(layer.receive(channel)) for channel in (kept, *gone)]
    await asyncio.sleep(0)
    for receiving in receives[1:]:
        receiving.cancel()
    await asyncio.gather(*receives[1:], return_exceptions=True)
    await layer.group_send("chat", {"type": "x"})
    async with asyncio.timeout(60):
        while len(home.channels) > 1:
            await asyncio.sleep(0.05)
    assert dropped() - before == 50
    assert not home._plane.hub._topics
    await layer.send(kept, {"type": "y"})
    assert await receives[0] == {"type": "y"}


async def test_a_channel_whose_connection_ended_just_when_it_got_a_message_is_forgotten(
    make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last receive was not cancelled; but the task that served it is over. Others' channels stay."""
    monkeypatch.setattr("shards.layer._GIVEN_UP_SECONDS", 1.0)
    layer = make_layer()
    home = layer._home()

    async def connection() -> None:
        channel = await layer.new_channel()
        await layer.group_add("chat", channel)
        assert (await receive(layer, channel))["type"] == "x"

    async def make() -> str:
        return await layer.new_channel()

    kept = await asyncio.create_task(make())
    await layer.group_add("chat", kept)
    connections = [asyncio.create_task(connection()) for _ in range(20)]
    async with asyncio.timeout(60):
        while (
            sum("chat" in channel.joined and channel.joined["chat"].is_set() for channel in home.channels.values()) < 21
        ):
            await asyncio.sleep(0.01)
    await layer.group_send("chat", {"type": "x"})
    await asyncio.gather(*connections)
    assert await receive(layer, kept) == {"type": "x"}
    async with asyncio.timeout(60):
        while len(home.channels) > 1:
            await asyncio.sleep(0.05)
    await layer.group_send("chat", {"type": "y"})
    assert await receive(layer, kept) == {"type": "y"}


async def test_who_cancels_and_receives_again_soon_misses_nothing(
    make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.layer._GIVEN_UP_SECONDS", 2.0)
    layer = make_layer()
    channel = await layer.new_channel()
    await layer.group_add("chat", channel)
    for number in range(6):
        await nothing(layer, channel)
        await asyncio.sleep(0.2)
        await layer.group_send("chat", {"type": "x", "number": number})
        assert await numbers(layer, channel, 1) == [number]
        await nothing(layer, channel)


async def test_who_takes_long_over_a_message_is_not_forgotten(
    make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was cancelled before: its last receive got a message."""
    monkeypatch.setattr("shards.layer._GIVEN_UP_SECONDS", 1.0)
    layer = make_layer()
    channel = await layer.new_channel()
    await layer.group_add("chat", channel)
    cancelled = asyncio.create_task(layer.receive(channel))
    await asyncio.sleep(0)
    cancelled.cancel()
    await layer.group_send("chat", {"type": "x"})
    assert await receive(layer, channel) == {"type": "x"}
    await asyncio.sleep(2.5)
    await layer.group_send("chat", {"type": "y"})
    assert await receive(layer, channel) == {"type": "y"}


async def test_what_a_client_publishes_names_no_handler(make_layer: MakeLayer) -> None:
    """A socket's publish to a group must not reach consumers as if server code had sent it."""
    layer = make_layer()
    channel = await layer.new_channel()
    await layer.group_add("chat", channel)
    home = layer._home()

    async def forge() -> None:
        forged = b'{"type":"chat.admin","via":"backend"}'
        await home._plane.log.publish("chat", "s", "forged", body_of("forged", forged))

    await home.run(forge())
    await nothing(layer, channel)


@pytest.mark.parametrize("value", [{"__bytes__": "x"}, {"__bytes__": 1}, {"__bytes___": "x"}, {"__bytes__": b"x"}])
async def test_what_looks_like_boxed_bytes_harms_nobody(make_layer: MakeLayer, value: object) -> None:
    """Apps pass on what clients made: one message that can't be read must not cut the shard's connection."""
    layer, message = make_layer(), {"type": "x", "value": value}
    channel = await layer.new_channel()
    await layer.group_add("chat", channel)
    await layer.group_send("chat", message)
    assert await receive(layer, channel) == message


async def test_backend_messages_that_are_no_dicts_are_for_sockets_only(make_layer: MakeLayer) -> None:
    layer = make_layer()
    channel = await layer.new_channel()
    await layer.group_add("chat", channel)
    home = layer._home()

    async def publish() -> None:
        for id, data in (("1", b"[1]"), ("2", b'{"__bytes__":"x"}')):
            await home._plane.log.publish("chat", "s", id, body_of(id, data, backend=True))

    await home.run(publish())
    await layer.group_send("chat", {"type": "after"})
    assert await receive(layer, channel) == {"type": "after"}


# Flush, and several hosts


async def test_flush_leaves_no_message_and_no_group_in_any_process(make_layer: MakeLayer) -> None:
    one, two = make_layer(), make_layer()
    mine, others = await one.new_channel(), await two.new_channel()
    async with asyncio.timeout(60):
        while len(await one._home().run(one._home().mailboxes.nodes())) < 2:
            await asyncio.sleep(0.02)
    for layer, member in ((one, mine), (two, others), (one, "work")):
        await layer.group_add("chat", member)
        await layer.send(member, {"type": "x"})
    await one.flush()
    await one.group_send("chat", {"type": "x"})
    for layer, member in ((one, mine), (two, others), (one, "work")):
        await nothing(layer, member)
        await layer.send(member, {"type": "y"})
        assert await receive(layer, member) == {"type": "y"}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.from_regex(r"[a-zA-Z\d\-_.]{1,99}", fullmatch=True), shards=st.integers(1, MOST_SHARDS))
def test_sender_and_receiver_agree_on_where_a_name_is_on_any_number_of_shards(
    pool: Pool, name: str, shards: int
) -> None:
    async def check() -> None:
        pool.use(shards)
        one, two = (ShardedChannelLayer(settings=pool.settings()) for _ in range(2))
        try:
            own = await two.new_channel()
            await two.group_add(name, own)
            await one.send(own, {"type": "own"})
            assert await receive(two, own) == {"type": "own"}
            await one.send(name, {"type": "named"})
            assert await receive(two, name) == {"type": "named"}
            await one.group_send(name, {"type": "group"})
            assert await receive(two, own) == {"type": "group"}
        finally:
            await one.close()
            await two.close()

    asyncio.run(check())


@pytest.mark.parametrize("shards", [2, 7, MOST_SHARDS])
async def test_groups_spread_over_all_shards(pool: Pool, shards: int) -> None:
    pool.use(shards)
    layer = ShardedChannelLayer(settings=pool.settings(), capacity=1000)
    channel = await layer.new_channel()
    groups = [f"group-{number}" for number in range(8 * shards)]
    try:
        await asyncio.gather(*(layer.group_add(group, channel) for group in groups))
        await asyncio.gather(*(layer.group_send(group, {"type": "x", "number": group}) for group in groups))
        assert sorted(await numbers(layer, channel, len(groups))) == sorted(groups)  # type: ignore[type-var]
    finally:
        await layer.close()
    for shard in pool.shards[:shards]:
        async with Redis.from_url(shard.url) as redis:
            assert [key async for key in redis.scan_iter("log:*")], "every shard has some of the groups"
