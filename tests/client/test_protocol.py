"""What the client decides, played without a network: any order of drops, refusals, publishes, pauses."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from shards.client.protocol import (
    LAST_DELAY_SECONDS,
    RESEND_SECONDS,
    Acked,
    Answered,
    Complained,
    Gap,
    Joined,
    Left,
    Message,
    Place,
    Presence,
    Protocol,
    PublishFailed,
    Request,
    Subscribed,
    SubscribeFailed,
    delay,
)
from shards.errors import OutboxFull, Unconfirmed, UsageError

GROUPS = ["a", "b"]


@dataclass
class Service:
    """A service that keeps the guarantee: logs that dedupe, members that are told in order, answers that may be slow.

    Attributes:
        logs: group → (id, data), from offset 1 on.
        trimmed: group → offset up to which history is gone.
        members: group → offset of the last message told to our client; the socket's own.
        joining: subscriptions not answered yet: group, place, whether they asked for events.
        down: frames on their way to the client.
        refusals: commands, publishes apart, that are still to be refused for lack of time.
        url: the group that the URL has subscribed.
        eventful: groups whose subscription asked for events.
    """

    logs: dict[str, list[tuple[str, Any]]] = field(default_factory=lambda: {group: [] for group in GROUPS})
    trimmed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(GROUPS, 0))
    members: dict[str, int] = field(default_factory=dict)
    joining: list[tuple[str, dict[str, Any] | None, bool]] = field(default_factory=list)
    down: deque[dict[str, Any]] = field(default_factory=deque)
    busy: bool = False
    refusals: int = 0
    url: str | None = None
    eventful: set[str] = field(default_factory=set)

    def connect(self) -> None:
        self.members, self.joining, self.down = {}, [], deque()
        self.say(type="welcome", session="s", replica="r")
        if self.url is not None:
            self.joining.append((self.url, None, False))

    def say(self, **frame: Any) -> None:
        self.down.append(frame)

    def refuse(self, frame: dict[str, Any], code: str) -> None:
        about = {name: frame[name] for name in ("id", "group") if name in frame}
        self.say(type="error", code=code, message="no", **about)

    def hear(self, frame: dict[str, Any]) -> None:
        group = frame["group"]
        joined = group in self.members or any(g == group for g, _, _ in self.joining)
        refused = self.refusals > 0 and frame["type"] != "publish"
        self.refusals -= refused
        if self.busy or refused:
            self.refuse(frame, "rate_limited")
        elif frame["type"] == "publish":
            self.say(type="ack", id=frame["id"], group=group, offset=self.store(group, frame["id"], frame["data"]))
        elif frame["type"] == "subscribe" and joined:
            self.refuse(frame, "already_subscribed")
        elif frame["type"] == "subscribe":
            self.joining.append((group, frame.get("since"), "events" in frame))
        elif frame["type"] == "unsubscribe" and not joined:
            self.refuse(frame, "not_subscribed")
        elif frame["type"] == "unsubscribe":
            self.members.pop(group, None)
            self.joining = [joining for joining in self.joining if joining[0] != group]
        elif frame["type"] == "presence":
            self.say(type="presence", group=group, count=1, members=["me"])
        elif frame["type"] == "history":
            after = frame["since"]["offset"] if "since" in frame else 0
            found = [o for o in range(len(self.logs[group]) + 1) if o > max(after, self.trimmed[group])]
            messages = [self.entry(group, offset) for offset in found]
            self.say(type="history", group=group, epoch="e", offset=len(self.logs[group]), messages=messages)
            before = found[0] - 1 if found else len(self.logs[group])
            if "since" in frame and before > after:
                self.say(type="gap", group=group, epoch="e", offset=before)

    def store(self, group: str, id: str, data: Any) -> int:
        ids = [id for id, _ in self.logs[group]]
        if id in ids:
            return ids.index(id) + 1
        self.logs[group].append((id, data))
        self.deliver()
        return len(self.logs[group])

    def entry(self, group: str, offset: int) -> dict[str, Any]:
        id, data = self.logs[group][offset - 1]
        return {"offset": offset, "id": id, "data": data}

    def deliver(self) -> None:
        for group, told in self.members.items():
            for offset in range(told + 1, len(self.logs[group]) + 1):
                self.say(type="message", group=group, **self.entry(group, offset))
            self.members[group] = len(self.logs[group])

    def admit(self) -> None:
        """Answer the subscriptions that wait."""
        joining, self.joining = self.joining, []
        for group, since, events in joining:
            (self.eventful.add if events else self.eventful.discard)(group)
            head = len(self.logs[group])
            recovered = since is not None and since["offset"] >= self.trimmed[group]
            offset = since["offset"] if since is not None and recovered else head
            self.say(type="subscribed", group=group, epoch="e", offset=offset, recovered=recovered)
            if since is not None and not recovered:
                self.say(type="gap", group=group, epoch="e", offset=head)
            self.members[group] = offset
        self.deliver()

    def give_up(self) -> None:
        """Answer them so: their log is not there."""
        joining, self.joining = self.joining, []
        for group, _, _ in joining:
            self.say(type="error", code="unavailable", message="no", group=group)


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens: every publish is acked once, every message comes once and in order, or there is a gap."""

    @initialize(url=st.sampled_from([None, GROUPS[0]]))
    def begin(self, url: str | None) -> None:
        self.now = 0.0
        self.service = Service(url=url)
        self.client = Protocol(window=2, outbox=5, random=lambda: 0.5)
        self.up: deque[str] = deque()
        self.connected = False
        self.published: dict[str, int | None] = {}
        self.place: dict[str, int | None] = {}
        self.wanted: set[str] = set()
        self.eventful: set[str] = set()
        self.paused: set[str] = set()
        self.disturbed = 0
        self.asked: set[Request] = set()
        self.connect()

    def take_events(self) -> None:
        for event in self.client.events():
            match event:
                case Message():
                    place = self.place[event.group]
                    assert place is not None
                    assert event.offset == place + 1
                    assert self.service.logs[event.group][event.offset - 1] == (event.id, event.data)
                    self.place[event.group] = event.offset
                case Gap():
                    # Never more than what is really gone.
                    place = self.place[event.group]
                    assert place is not None and place < event.place.offset
                    assert place < self.service.trimmed[event.group] or self.disturbed
                    self.place[event.group] = event.place.offset
                case Subscribed():
                    if self.place.get(event.group) is None:
                        self.place[event.group] = event.place.offset
                    assert event.recovered in (True, False)
                case Acked():
                    assert self.published[event.id] is None, "acked twice"
                    self.published[event.id] = event.offset
                    assert self.service.logs[event.group][event.offset - 1][0] == event.id
                case Answered():
                    self.asked.remove(event.request)
                case PublishFailed() | SubscribeFailed():
                    raise AssertionError(event)
                case Complained():
                    # That the URL's group is not to be had is nobody's answer where nobody asked for it.
                    unasked = event.error.code == "unavailable" and self.service.url
                    assert unasked or (event.error.code == "hole" and self.disturbed), event

    def step(self) -> None:
        self.up.extend(self.client.data_to_send(self.now))

    @rule()
    def connect(self) -> None:
        if not self.connected:
            self.connected = True
            self.service.connect()

    @rule()
    def drop(self) -> None:
        """What is on its way, in either direction, is lost."""
        self.connected = False
        self.up.clear()
        self.service.members, self.service.joining = {}, []
        self.service.down.clear()
        self.client.lost("dropped")
        self.take_events()

    @rule(count=st.integers(1, 4))
    def hear_up(self, count: int) -> None:
        self.step()
        for _ in range(min(count, len(self.up))):
            self.service.hear(json.loads(self.up.popleft()))

    @rule(count=st.integers(1, 6))
    def hear_down(self, count: int) -> None:
        for _ in range(min(count, len(self.service.down)) if self.connected else 0):
            self.client.receive(json.dumps(self.service.down.popleft()), self.now)
            self.take_events()

    @rule(rounds=st.integers(1, 3))
    def flow(self, rounds: int) -> None:
        """Let everything get through that is on its way."""
        for _ in range(rounds):
            self.hear_up(100)
            self.admit()
            self.hear_down(100)

    @rule()
    def admit(self) -> None:
        if self.connected:
            self.service.admit()

    @rule()
    def give_up(self) -> None:
        if self.connected:
            self.service.give_up()

    @rule(busy=st.booleans())
    def be_busy(self, busy: bool) -> None:
        self.service.busy = busy

    @rule(count=st.integers(1, 2))
    def refuse_some(self, count: int) -> None:
        """As where the rate is just over its limit: an `unsubscribe` is refused, and what follows it is not."""
        self.service.refusals = count

    @rule(seconds=st.sampled_from([0.1, 1.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(group=st.sampled_from(GROUPS))
    def publish(self, group: str) -> None:
        id = f"m{len(self.published)}"
        try:
            self.client.publish(group, {"id": id}, id)
        except OutboxFull:
            assert sum(offset is None for offset in self.published.values()) == 5
        else:
            self.published[id] = None

    @rule(group=st.sampled_from(GROUPS))
    def others_publish(self, group: str) -> None:
        self.service.store(group, f"other{len(self.service.logs[group])}", 0)

    @rule(group=st.sampled_from(GROUPS), events=st.booleans(), since=st.booleans())
    def subscribe(self, group: str, events: bool, since: bool) -> None:
        if group not in self.wanted:
            # A place of an earlier client, which the log may have still.
            offset = len(self.service.logs[group]) // 2 if since else None
            self.client.subscribe(group, None if offset is None else Place("e", offset), events)
            self.wanted.add(group)
            (self.eventful.add if events else self.eventful.discard)(group)
            self.paused.discard(group)
            self.place[group] = offset

    @rule(group=st.sampled_from(GROUPS))
    def unsubscribe(self, group: str) -> None:
        self.client.unsubscribe(group)
        self.wanted.discard(group)

    @rule(group=st.sampled_from(GROUPS))
    def pause_or_resume(self, group: str) -> None:
        if group in self.paused:
            self.paused.discard(group)
            self.client.resume(group)
        elif group in self.wanted and self.place[group] is not None:
            self.paused.add(group)
            self.client.pause(group)

    @rule(group=st.sampled_from(GROUPS), kind=st.sampled_from(["history", "presence"]), since=st.booleans())
    def ask(self, group: str, kind: Literal["history", "presence"], since: bool) -> None:
        request = Request(kind, group, Place("e", 0) if since and kind == "history" else None)
        self.client.ask(request)
        self.asked.add(request)

    @rule(group=st.sampled_from(GROUPS))
    def trim(self, group: str) -> None:
        self.service.trimmed[group] = len(self.service.logs[group])

    @rule(again=st.booleans())
    def disturb(self, again: bool) -> None:
        """A server that breaks its promise: a message is left out, or comes twice."""
        for number, frame in enumerate(self.service.down):
            if frame["type"] == "message":
                self.disturbed += 1
                if again:
                    self.service.down.insert(number, frame)
                else:
                    del self.service.down[number]
                return

    @invariant()
    def bounds_are_kept(self) -> None:
        if hasattr(self, "client"):
            assert len(self.client._outbox) <= 5
            assert 0 <= self.client._under_way <= 2

    def teardown(self) -> None:
        """Let all be well for a while: then nothing is open any more."""
        if not hasattr(self, "client"):
            return
        self.service.busy, self.service.refusals = False, 0
        for group in list(self.paused):
            self.pause_or_resume(group)
        self.connect()
        # The last message of all may have been left out: only a later one tells.
        for group in GROUPS:
            self.others_publish(group)
        for _ in range(60):
            self.now += 1
            self.hear_up(100)
            self.service.admit()
            self.hear_down(100)
        assert None not in self.published.values()
        assert not self.asked
        for group in self.wanted:
            assert self.place[group] == len(self.service.logs[group])
        for group in GROUPS:
            ids = [id for id, _ in self.service.logs[group]]
            assert len(ids) == len(set(ids))
            assert group not in self.wanted or (group in self.service.eventful) >= (group in self.eventful)
        unwanted = set(self.service.members) - {self.service.url}
        assert unwanted <= self.wanted <= set(self.service.members), "the service sends what nobody wants"


AnyHistory.TestCase.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
test_any_history = AnyHistory.TestCase


def welcomed(**arguments: Any) -> Protocol:
    client = Protocol(random=lambda: 0.5, **arguments)
    hear(client, type="welcome", session="s", replica="r")
    return client


def hear(client: Protocol, now: float = 0.0, **frame: Any) -> list[Any]:
    client.receive(json.dumps(frame), now)
    return client.events()


def following(group: str, offset: int) -> Protocol:
    client = welcomed()
    client.subscribe(group)
    client.data_to_send(0)
    hear(client, type="subscribed", group=group, epoch="e", offset=offset, recovered=False)
    return client


def test_a_hole_is_said_and_asked_for_again() -> None:
    client = following("g", 5)
    (complaint,) = hear(client, type="message", group="g", offset=8, id="x", data=1)
    assert complaint.error.code == "hole"
    assert [json.loads(text) for text in client.data_to_send(0)] == [
        {"type": "unsubscribe", "group": "g"},
        {"type": "subscribe", "group": "g", "since": {"epoch": "e", "offset": 5}},
    ]
    assert hear(client, type="message", group="g", offset=9, id="y", data=1) == []
    hear(client, type="subscribed", group="g", epoch="e", offset=5, recovered=True)
    (message,) = hear(client, type="message", group="g", offset=6, id="z", data=1)
    assert message.offset == 6


def test_a_hole_that_is_still_there_is_a_gap() -> None:
    client = following("g", 5)
    hear(client, type="message", group="g", offset=8, id="x", data=1)
    client.data_to_send(0)
    hear(client, type="subscribed", group="g", epoch="e", offset=5, recovered=True)
    gap, message = hear(client, type="message", group="g", offset=8, id="x", data=1)
    assert gap == Gap("g", Place("e", 7))
    assert message.offset == 8


def test_a_duplicate_is_dropped_and_counted() -> None:
    client = following("g", 5)
    assert hear(client, type="message", group="g", offset=5, id="x", data=1) == []
    assert client.duplicates == 1


def test_a_gap_may_lead_back_where_a_log_lost_its_end() -> None:
    client = following("g", 5)
    assert hear(client, type="gap", group="g", epoch="e", offset=3) == [Gap("g", Place("e", 3))]
    (message,) = hear(client, type="message", group="g", offset=4, id="x", data=1)
    assert message.place == Place("e", 4)


def test_a_refused_subscription_is_told_by_its_group() -> None:
    client = welcomed()
    client.subscribe("one")
    client.subscribe("two")
    client.data_to_send(0)
    (failed,) = hear(client, type="error", code="forbidden", message="no", group="two")
    assert (failed.group, failed.error.code) == ("two", "forbidden")


def test_an_error_that_names_nothing_is_of_the_only_command_there_is() -> None:
    client = welcomed()
    client.subscribe("one")
    client.data_to_send(0)
    (failed,) = hear(client, type="error", code="forbidden", message="no")
    assert failed.group == "one"
    (complaint,) = hear(client, type="error", code="bad_json", message="no")
    assert isinstance(complaint, Complained)


def test_the_window_is_never_exceeded_and_opens_with_each_ack() -> None:
    client = welcomed(window=2)
    for n in range(4):
        client.publish("g", n, f"{n}")
    assert len(client.data_to_send(0)) == 2
    hear(client, type="ack", id="0", group="g", offset=1)
    assert len(client.data_to_send(0)) == 1


def test_a_refused_flood_waits_and_keeps_its_order() -> None:
    client = welcomed()
    for n in range(3):
        client.publish("g", n, f"{n}")
    client.data_to_send(0)
    for n in (1, 2):
        hear(client, type="error", code="rate_limited", message="no", id=f"{n}")
    at = client.wakes_at(0.1)
    assert at is not None and at > 0.1
    assert client.data_to_send(0.1) == []
    assert [json.loads(text)["id"] for text in client.data_to_send(at)] == ["1", "2"]


def test_what_was_sent_too_long_ago_is_not_sent_again() -> None:
    """Its dedupe mark may be gone: it could be doubled."""
    client = welcomed()
    client.publish("g", 1, "sent")
    client.data_to_send(0)
    client.lost("cable")
    client.publish("g", 1, "unsent")
    client.events()
    hear(client, type="welcome", session="s", replica="r")
    now = RESEND_SECONDS + 1
    assert [json.loads(text)["id"] for text in client.data_to_send(now)] == ["unsent"]
    (failed,) = client.events()
    assert (failed.id, type(failed.error)) == ("sent", Unconfirmed)


def test_what_was_never_taken_may_be_sent_at_any_time() -> None:
    client = welcomed()
    client.publish("g", 1, "refused")
    client.data_to_send(0)
    hear(client, type="error", code="rate_limited", message="no", id="refused")
    assert len(client.data_to_send(RESEND_SECONDS * 2)) == 1


def test_what_was_too_big_for_a_frame_is_refused_and_the_rest_sent_again() -> None:
    client = welcomed()
    client.publish("g", "x" * 9, "big")
    client.publish("g", "x", "small")
    client.data_to_send(0)
    client.lost("closed", 1009)
    assert client.events()[0].id == "big"
    hear(client, type="welcome", session="s", replica="r")
    assert [json.loads(text)["id"] for text in client.data_to_send(0)] == ["small"]


@pytest.mark.parametrize("text", ["", "[]", "1", '{"type":"message"}', '{"type":"gap","group":"g"}', '{"no":"type"}'])
def test_what_is_no_frame_is_an_error(text: str) -> None:
    client = following("g", 1)
    with pytest.raises(ValueError):
        client.receive(text, 0)


def test_frames_of_later_versions_are_left_alone() -> None:
    assert hear(welcomed(), type="unheard-of", group="g") == []


def test_an_id_under_way_is_not_taken_twice() -> None:
    client = welcomed()
    client.publish("g", 1, "x")
    with pytest.raises(UsageError, match="x is under way"):
        client.publish("g", 2, "x")


def test_delays_grow_to_a_bound_and_are_spread_from_zero_on() -> None:
    assert delay(0, lambda: 1.0) == 0.25
    assert delay(3, lambda: 1.0) == 2.0
    assert delay(1000, lambda: 1.0) == LAST_DELAY_SECONDS
    assert delay(1000, lambda: 0.0) == 0.0


def said(client: Protocol, now: float = 0.0) -> list[dict[str, Any]]:
    return [json.loads(text) for text in client.data_to_send(now)]


def test_a_pause_that_is_over_before_it_was_said_misses_nothing() -> None:
    client = following("g", 5)
    client.pause("g")
    assert hear(client, type="message", group="g", offset=6, id="x", data=1) == []
    client.resume("g")
    assert hear(client, type="message", group="g", offset=7, id="y", data=1) == []
    since = {"epoch": "e", "offset": 5}
    assert said(client)[-1] == {"type": "subscribe", "group": "g", "since": since}


def test_a_paused_group_is_left_until_it_is_resumed_also_over_a_reconnect() -> None:
    client = following("g", 5)
    client.pause("g")
    assert said(client) == [{"type": "unsubscribe", "group": "g"}]
    client.lost("cable")
    hear(client, type="welcome", session="s", replica="r")
    assert said(client) == []
    client.resume("g")
    assert [frame["type"] for frame in said(client)] == ["subscribe"]


def test_the_gap_after_a_history_is_the_historys() -> None:
    client = following("g", 5)
    request = Request("history", "g", Place("e", 1))
    client.ask(request)
    client.data_to_send(0)
    message = {"offset": 4, "id": "x", "data": 1}
    (answered,) = hear(client, type="history", group="g", epoch="e", offset=5, messages=[message])
    assert answered.answer.gap == Place("e", 3)
    assert hear(client, type="gap", group="g", epoch="e", offset=3) == []
    (next,) = hear(client, type="message", group="g", offset=6, id="y", data=1)
    assert next.offset == 6


def test_a_history_that_has_all_run_out_is_a_gap() -> None:
    client = following("g", 5)
    client.ask(Request("history", "g", Place("e", 2)))
    client.data_to_send(0)
    (answered,) = hear(client, type="history", group="g", epoch="e", offset=5, messages=[])
    assert answered.answer.gap == Place("e", 5)
    assert hear(client, type="gap", group="g", epoch="e", offset=5) == []


def test_an_unsubscribe_that_was_refused_is_said_again() -> None:
    client = following("g", 5)
    client.unsubscribe("g")
    assert said(client) == [{"type": "unsubscribe", "group": "g"}]
    hear(client, type="error", code="rate_limited", message="no", group="g")
    at = client.wakes_at(0)
    assert at is not None
    assert said(client, at) == [{"type": "unsubscribe", "group": "g"}]
    assert hear(client, type="error", code="not_subscribed", message="no") == []


def test_a_subscription_that_the_service_still_has_is_made_anew() -> None:
    """Its `unsubscribe` was refused, and the refusal was taken for that of the `subscribe` after it."""
    client = following("g", 5)
    client.pause("g")
    client.resume("g")
    assert [frame["type"] for frame in said(client)] == ["unsubscribe", "subscribe"]
    hear(client, **TOO_MANY)
    hear(client, **ALREADY)
    assert said(client) == []
    at = client.wakes_at(0)
    assert at is not None
    assert [frame["type"] for frame in said(client, at)] == ["unsubscribe", "subscribe"]


@pytest.mark.parametrize("kind", ["history", "presence"])
def test_an_unsubscribe_is_said_again_where_its_refusal_seemed_to_be_a_questions(
    kind: Literal["history", "presence"],
) -> None:
    client = following("g", 5)
    client.unsubscribe("g")
    client.ask(Request(kind, "g"))
    assert [frame["type"] for frame in said(client)] == ["unsubscribe", kind]
    hear(client, **TOO_MANY)
    assert [frame["type"] for frame in said(client, 5)] == [kind]
    answer = {"messages": [], "epoch": "e", "offset": 5} if kind == "history" else {"count": 1, "members": ["me"]}
    hear(client, type=kind, group="g", **answer)
    assert [frame["type"] for frame in said(client, 5)] == ["unsubscribe"]


def test_a_subscription_that_the_service_still_has_unknown_to_us_is_made_anew_at_once() -> None:
    """A wait for what the URL's group might bring would last for ever."""
    client = welcomed()
    client.subscribe("g")
    said(client)
    hear(client, **ALREADY)
    assert [frame["type"] for frame in said(client)] == ["unsubscribe", "subscribe"]
    hear(client, **ALREADY)
    assert said(client) == [], "a service that goes on saying so is not asked in a tight loop"
    assert [frame["type"] for frame in said(client, 5)] == ["unsubscribe", "subscribe"]


def test_what_was_taken_for_the_answer_of_a_subscribe_that_is_refused_then_is_made_anew() -> None:
    client = following("g", 5)
    assert hear(client, type="error", code="unavailable", message="no", group="g") == []
    assert said(client) == []
    assert said(client, 5) == ANEW


def resuming(group: str, offset: int, **arguments: Any) -> Protocol:
    """A client that has come back with its place, and waits for the answer."""
    client = welcomed()
    client.subscribe(group, Place("e", offset), **arguments)
    client.data_to_send(0)
    return client


ANEW = [
    {"type": "unsubscribe", "group": "g"},
    {"type": "subscribe", "group": "g", "since": {"epoch": "e", "offset": 5}},
]
FROM_THE_HEAD = {"type": "subscribed", "group": "g", "epoch": "e", "offset": 9, "recovered": False}
ALREADY = {"type": "error", "code": "already_subscribed", "message": "no", "group": "g"}
TOO_MANY = {"type": "error", "code": "rate_limited", "message": "no", "group": "g"}


@pytest.mark.parametrize("answers", [[FROM_THE_HEAD, ALREADY], [ALREADY, FROM_THE_HEAD]])
def test_what_the_url_subscribed_is_not_taken_for_the_answer_to_a_resume(answers: list[dict[str, Any]]) -> None:
    """Before, or after, our own was refused for it: what was missed is in the log, and is asked for."""
    client = resuming("g", 5)
    for answer in answers:
        assert hear(client, **answer) == []
        assert hear(client, type="message", group="g", offset=10, id="x", data=1) == []
    assert said(client) == ANEW
    recovered = hear(client, type="subscribed", group="g", epoch="e", offset=5, recovered=True)
    assert recovered == [Subscribed("g", Place("e", 5), True)]
    (message,) = hear(client, type="message", group="g", offset=6, id="x", data=1)
    assert message.offset == 6


def test_a_resume_that_failed_is_told_by_its_gap() -> None:
    client = resuming("g", 5)
    assert hear(client, **FROM_THE_HEAD) == []
    told = hear(client, type="gap", group="g", epoch="e", offset=9)
    assert told == [Subscribed("g", Place("e", 9), False), Gap("g", Place("e", 9))]
    (message,) = hear(client, type="message", group="g", offset=10, id="x", data=1)
    assert message.offset == 10


def test_what_the_url_subscribed_does_as_well_where_it_goes_on_from_our_place() -> None:
    client = resuming("g", 9)
    assert hear(client, **FROM_THE_HEAD) == [Subscribed("g", Place("e", 9), True)]
    assert hear(client, **ALREADY) == []
    assert said(client) == []


def test_the_urls_group_is_subscribed_anew_for_events() -> None:
    client = resuming("g", 9, events=True)
    hear(client, **FROM_THE_HEAD)
    assert hear(client, **ALREADY) == []
    assert [(frame["type"], frame.get("events")) for frame in said(client)] == [
        ("unsubscribe", None),
        ("subscribe", True),
    ]


def test_what_the_url_subscribed_is_left_alone_until_somebody_follows_it() -> None:
    client = welcomed()
    assert hear(client, **FROM_THE_HEAD) == []
    assert said(client) == []
    client.subscribe("g", Place("e", 5))
    assert said(client) == ANEW


def test_a_resume_that_is_refused_for_a_while_ends_what_the_url_subscribed() -> None:
    client = resuming("g", 5)
    hear(client, **FROM_THE_HEAD)
    hear(client, type="error", code="rate_limited", message="no", group="g")
    at = client.wakes_at(0)
    assert at is not None
    assert said(client, at) == ANEW


def test_an_id_is_text() -> None:
    with pytest.raises(UsageError, match="1-64 characters"):
        welcomed().publish("g", 1, 7)  # type: ignore[arg-type]


def test_an_unsubscribe_that_came_too_late_is_no_ones_error() -> None:
    client = following("g", 5)
    client.subscribe("other")
    client.data_to_send(0)
    assert hear(client, type="error", code="not_subscribed", message="no") == []


def test_who_subscribes_from_elsewhere_meanwhile_gets_that() -> None:
    client = welcomed()
    client.subscribe("g")
    client.data_to_send(0)
    client.unsubscribe("g")
    client.subscribe("g", Place("e", 2))
    assert said(client) == []
    assert hear(client, type="subscribed", group="g", epoch="e", offset=9, recovered=False) == []
    since = {"epoch": "e", "offset": 2}
    unsubscribe = {"type": "unsubscribe", "group": "g"}
    assert said(client) == [unsubscribe, {"type": "subscribe", "group": "g", "since": since}]
    subscribed = hear(client, type="subscribed", group="g", epoch="e", offset=2, recovered=True)
    assert subscribed == [Subscribed("g", Place("e", 2), True)]


def following_events(group: str) -> Protocol:
    client = welcomed()
    client.subscribe(group, events=True)
    (said,) = client.data_to_send(0.0)
    assert json.loads(said)["events"] is True
    hear(client, type="subscribed", group=group, epoch="e", offset=0, recovered=False)
    return client


def test_who_comes_and_goes_is_told_where_it_was_asked_for() -> None:
    client = following_events("a")
    assert hear(client, type="join", group="a", member="m") == [Joined("a", "m")]
    assert hear(client, type="leave", group="a", member="m") == [Left("a", "m")]
    assert hear(client, type="presence", group="a", count=40, members=[]) == [Presence("a", 40, [])]
    client.unsubscribe("a")
    assert hear(client, type="join", group="a", member="m") == []


def test_a_count_that_is_told_is_not_taken_for_an_answer() -> None:
    """The answer, which has the names, comes after it."""
    client = following_events("a")
    client.ask(request := Request("presence", "a"))
    client.data_to_send(0.0)
    assert hear(client, type="presence", group="a", count=40, members=[]) == [Presence("a", 40, [])]
    answer = Presence("a", 41, ["m"])
    assert hear(client, type="presence", group="a", count=41, members=["m"]) == [Answered(request, answer)]


def test_events_are_asked_for_again_after_a_reconnect() -> None:
    client = following_events("a")
    client.lost("cut")
    hear(client, type="welcome", session="s", replica="r")
    assert [json.loads(said)["events"] for said in client.data_to_send(0.0)] == [True]


def test_who_wants_events_after_all_subscribes_anew() -> None:
    """Also where the first subscription, without them, has no answer yet."""
    client = welcomed()
    client.subscribe("a")
    client.data_to_send(0.0)
    client.unsubscribe("a")
    client.subscribe("a", events=True)
    hear(client, type="subscribed", group="a", epoch="e", offset=0, recovered=False)
    said = [json.loads(said) for said in client.data_to_send(0.0)]
    assert [(frame["type"], frame.get("events")) for frame in said] == [("unsubscribe", None), ("subscribe", True)]
