"""What a client says and what it believes, without I/O.

The connection tells a `Protocol` what the app wants and what the network said; it asks `data_to_send` what is to be
said now, and takes from `events` what became of it all. Time is always brought along, so any history can be played.

Each group has at most one command under way (publishes apart): an answer, or an error that names the group, then
belongs to that command and to no other. Frames that come between an `unsubscribe` and the next `subscribed` are of the
earlier subscription, and are left alone: the log has them.

A URL may have the service subscribe a group by itself, from its head on. What it says of that looks like an answer to
our own `subscribe`, which it refuses (`already_subscribed`), before or after. They are told apart by the gap: one comes
right after ours where it does not go on from the place we said.

Whatever does not fit what we believe the service has, such as that refusal or one `subscribed` too many, has the group
made anew from our place: `unsubscribe`, then `subscribe`. That is right whatever was the matter, and waits for nothing
but the answer to a `subscribe`, which always comes; where there was nothing to end, the service only says so.
"""

from __future__ import annotations

import heapq
import json
import random as _random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from shards.errors import OutboxFull, Refused, ShardsError, Unconfirmed, UsageError
from shards.names import is_name

WINDOW = 32
"""Publishes under way at once, so that who comes back with a full outbox is not taken for a flood."""

OUTBOX = 1000
"""Publishes that wait for their acks at most."""

RESEND_SECONDS = 90.0
"""For how long a publish that was sent may be sent again: dedupe marks last 120 s (SHARDS_DEDUPE_SECONDS), 30 s of
which a server may take over it (SHARDS_PUBLISH_SECONDS)."""

FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS = 0.25, 10.0

_ID_LENGTH = 64
_HOLD_SECONDS = 0.5
_TRY_AGAIN = {"unavailable", "rate_limited"}
_TOO_BIG = 1009


def delay(attempt: int, random: Callable[[], float] = _random.random) -> float:
    """Give the seconds to wait before attempt `attempt`, from 0: full jitter, so that a crowd comes back spread out."""
    return random() * float(min(LAST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** min(attempt, 10)))


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a group's log: its epoch, and the offset of the last message that was heard."""

    epoch: str
    offset: int


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a group.

    Attributes:
        group: where it was published.
        offset: its number there.
        id: what its publisher called it.
        data: what was published: what JSON can say.
        epoch: of the group's log.
    """

    group: str
    offset: int
    id: str
    data: Any
    epoch: str

    @property
    def place(self) -> Place:
        """Where one who has this message resumes."""
        return Place(self.epoch, self.offset)


@dataclass(frozen=True, slots=True)
class Gap:
    """What came up to `place`, and was not heard, is gone; messages after it follow."""

    group: str
    place: Place


@dataclass(frozen=True, slots=True)
class History:
    """A group's past.

    Attributes:
        group: whose.
        place: that of the log's last message.
        messages: from the oldest on.
        gap: where the first of them do not follow on the place that was asked from; what lies before is gone.
    """

    group: str
    place: Place
    messages: list[Message]
    gap: Place | None = None


@dataclass(frozen=True, slots=True)
class Presence:
    """Who is in a group, two seconds old at most: how many, and their public ids."""

    group: str
    count: int
    members: list[str]


@dataclass(frozen=True, slots=True)
class Joined:
    """Another member came to a group that is subscribed with `events`."""

    group: str
    member: str


@dataclass(frozen=True, slots=True)
class Left:
    """Another member has gone from it."""

    group: str
    member: str


@dataclass(frozen=True, slots=True)
class Welcomed:
    """The service took us in."""

    session: str
    replica: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection is gone; the client comes back by itself."""

    reason: str


@dataclass(frozen=True, slots=True)
class Subscribed:
    """Messages after `place` follow; `recovered`: nothing was missed since the place we came back with."""

    group: str
    place: Place
    recovered: bool


@dataclass(frozen=True, slots=True)
class SubscribeFailed:
    """A subscription was refused, at first or when it was to be resumed."""

    group: str
    error: Refused


@dataclass(frozen=True, slots=True)
class Acked:
    """A publish is in the log."""

    id: str
    group: str
    offset: int


@dataclass(frozen=True, slots=True)
class PublishFailed:
    """A publish was refused, or nobody can tell any more."""

    id: str
    error: ShardsError


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A question about a group's history, or who is in it."""

    kind: Literal["history", "presence"]
    group: str
    since: Place | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Answered:
    """A request has its answer."""

    request: Request
    answer: History | Presence | Refused


@dataclass(frozen=True, slots=True)
class AskedToLeave:
    """The service asks us to reconnect, at a moment of our own choosing within these seconds."""

    within_seconds: float


@dataclass(frozen=True, slots=True)
class Complained:
    """Something is wrong that is nobody's answer: an error that names none, or a hole in the offsets."""

    error: Refused


Event = (
    Message
    | Gap
    | Welcomed
    | Lost
    | Subscribed
    | SubscribeFailed
    | Joined
    | Left
    | Presence
    | Acked
    | PublishFailed
    | Answered
    | AskedToLeave
    | Complained
)


@dataclass(slots=True, eq=False)
class _Publish:
    """A publish without its ack.

    Attributes:
        sent_at: when it was sent on this connection; None: it was not.
        unsure_since: when it was first sent with an outcome that nobody told; None: never.
    """

    number: int
    id: str
    text: str
    sent_at: float | None = None
    unsure_since: float | None = None


@dataclass(slots=True, eq=False)
class _Group:
    """A group as we want it, and as the service has it after all we said.

    Attributes:
        wanted: the app follows it.
        paused: the app has enough for now.
        subscribed: the service sends us its messages.
        stale: what it sends is not what we want next; it shall start anew, from our place.
        events: the app wants to hear who comes and goes.
        place: that of the last message taken.
        asked: the place that the last `subscribe` said, and whether it asked for events.
        healed: the place of the last hole, to see whether it is still there.
        due: the command whose answer is awaited.
        found: where a `subscribed` goes on, other than from the place asked for: ours, if its gap comes next.
        vain: our last `subscribe` was refused as the service has the group subscribed already.
        doubt: a command that was refused for lack of time, unless that was the refusal of one before.
        requests: those unanswered.
    """

    name: str
    wanted: bool = False
    paused: bool = False
    subscribed: bool = False
    stale: bool = False
    events: bool = False
    place: Place | None = None
    asked: tuple[Place | None, bool] = (None, False)
    healed: Place | None = None
    due: Request | Literal["subscribe"] | None = None
    found: Place | None = None
    vain: bool = False
    doubt: Request | Literal["subscribe"] | None = None
    requests: deque[Request] = field(default_factory=deque)

    @property
    def follows(self) -> bool:
        """Whether what comes is what comes next."""
        return self.subscribed and self.wanted and not self.paused and not self.stale


class Protocol:
    """A client's session, over all its connections.

    Args:
        window: publishes under way at once.
        outbox: publishes that wait for their acks at most.
        random: gives numbers in [0, 1).

    Attributes:
        session: the secret by which the service knows us again; None before the first welcome.
        online: the service took us in, on the connection there is.
        duplicates: messages that came again, and were dropped.
        holes: offsets skipped without a gap, each of which was asked for again.
    """

    def __init__(
        self, *, window: int = WINDOW, outbox: int = OUTBOX, random: Callable[[], float] = _random.random
    ) -> None:
        self.session: str | None = None
        self.online = False
        self.duplicates = self.holes = 0
        self._window = window
        self._limit = outbox
        self._random = random
        self._groups: dict[str, _Group] = {}
        self._stirred: dict[str, None] = {}
        self._unasked: str | None = None
        """The group of the URL, where the service has it subscribed on this connection and nobody here follows it."""
        self._outbox: dict[str, _Publish] = {}
        self._unsent: list[tuple[int, _Publish]] = []
        self._under_way = 0
        self._numbers = 0
        self._held_until = 0.0
        self._gap_of_history: Gap | None = None
        self._events: list[Event] = []

    # What the app wants

    def subscribe(self, group: str, since: Place | None = None, events: bool = False) -> None:
        """Follow `group`.

        Args:
            group: which.
            since: the place after which; None: from now on.
            events: also hear who comes and goes.

        Raises:
            UsageError: it is no name, or followed already.
        """
        lane = self._lane(group)
        if lane.wanted:
            raise UsageError(f"{group} is subscribed already: one subscription a group and client")
        lane.wanted, lane.paused, lane.place, lane.healed, lane.events = True, False, since, None, events
        if group == self._unasked:
            lane.subscribed, self._unasked = True, None
        lane.stale = lane.subscribed

    def unsubscribe(self, group: str) -> None:
        """Follow `group` no more; nothing happens where it was not."""
        if group in self._groups:
            lane = self._lane(group)
            lane.wanted, lane.place = False, None

    def pause(self, group: str) -> None:
        """Take no messages of `group` for now: its log keeps them for us."""
        lane = self._lane(group)
        lane.paused, lane.stale = True, lane.subscribed

    def resume(self, group: str) -> None:
        """Go on where `pause` left off."""
        self._lane(group).paused = False

    def publish(self, group: str, data: object, id: str) -> None:
        """Keep a message in the outbox until it is acked or refused.

        Args:
            group: where to.
            data: what JSON can say.
            id: 1-64 characters, new.

        Raises:
            UsageError: `group` or `id` can't be such, or JSON can't say `data`.
            OutboxFull: too many wait already.
        """
        _check_name(group)
        if not isinstance(id, str) or not 1 <= len(id) <= _ID_LENGTH:
            raise UsageError(f"an id is a text of 1-{_ID_LENGTH} characters, not {id!r:.80}")
        if id in self._outbox:
            raise UsageError(f"{id} is under way already: one id a message")
        if len(self._outbox) >= self._limit:
            raise OutboxFull(self._limit)
        text = _encode({"type": "publish", "group": group, "id": id, "data": data})
        self._numbers += 1
        self._outbox[id] = publish = _Publish(self._numbers, id, text)
        heapq.heappush(self._unsent, (publish.number, publish))

    def withdraw(self, id: str) -> None:
        """Keep a publish no longer; if it was sent, it may be published all the same."""
        if publish := self._outbox.pop(id, None):
            self._under_way -= publish.sent_at is not None

    def ask(self, request: Request) -> None:
        """Ask for a group's history or presence.

        Raises:
            UsageError: it is no name.
        """
        self._lane(request.group).requests.append(request)

    def forget(self, request: Request) -> None:
        """Want no answer any more."""
        lane = self._lane(request.group)
        if request in lane.requests:
            lane.requests.remove(request)

    # What is to be done

    def data_to_send(self, now: float) -> list[str]:
        """Give the frames that are to be sent now, in order."""
        if not self.online or now < self._held_until:
            return []
        stirred, self._stirred = self._stirred, {}
        frames = [frame for group in stirred if group in self._groups for frame in self._commands(self._groups[group])]
        return frames + list(self._publishes(now))

    def wakes_at(self, now: float) -> float | None:
        """Give the moment at which there is something to send without anything else happening; None: there is none."""
        waits = self.online and now < self._held_until and (self._stirred or self._unsent)
        return self._held_until if waits else None

    def events(self) -> list[Event]:
        """Give what happened since the last call."""
        events, self._events = self._events, []
        return events

    def _commands(self, lane: _Group) -> Iterator[str]:
        wants = lane.wanted and not lane.paused
        if lane.due is not None:
            return
        if lane.doubt is not None and not (wants if lane.doubt == "subscribe" else lane.doubt in lane.requests):
            # The answer to it, said again, does not tell, or nobody wants it any more.
            lane.subscribed, lane.stale, lane.doubt = True, True, None
        if lane.subscribed and (lane.stale or not wants):
            lane.subscribed = lane.stale = False
            yield _encode({"type": "unsubscribe", "group": lane.name})
        if wants and not lane.subscribed:
            lane.due, lane.asked, lane.found = "subscribe", (lane.place, lane.events), None
            events = {"events": True} if lane.events else {}
            yield _encode({"type": "subscribe", "group": lane.name, **_since(lane.place), **events})
        elif lane.requests:
            lane.due = lane.requests[0]
            yield _request(lane.requests[0])
        elif not lane.wanted:
            del self._groups[lane.name]

    def _publishes(self, now: float) -> Iterator[str]:
        while self._unsent and self._under_way < self._window:
            _, publish = heapq.heappop(self._unsent)
            if self._outbox.get(publish.id) is not publish:
                continue
            if publish.unsure_since is not None and now - publish.unsure_since > RESEND_SECONDS:
                self._fail(publish, Unconfirmed(publish.id, RESEND_SECONDS))
                continue
            publish.sent_at = now
            self._under_way += 1
            yield publish.text

    # What the network says

    def lost(self, reason: str, code: int | None = None) -> None:
        """Hear that the connection, or an attempt at one, is gone.

        Args:
            reason: for people.
            code: the WebSocket's close code; None: there was no close.
        """
        if self.online and code == _TOO_BIG:
            self._refuse_largest()
        self.online, self._held_until, self._under_way, self._unasked = False, 0.0, 0, None
        for lane in self._groups.values():
            lane.subscribed = lane.stale = lane.vain = False
            lane.due = lane.found = lane.doubt = None
        for publish in self._outbox.values():
            _unsend(publish, unsure=True)
        # In the order they were published: a sorted list is a heap.
        self._unsent = [(publish.number, publish) for publish in self._outbox.values()]
        self._events.append(Lost(reason))

    def receive(self, text: str | bytes, now: float) -> None:
        """Hear a frame.

        Raises:
            ValueError: it is none of the protocol's.
        """
        try:
            self._receive(json.loads(text), now)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no frame of the protocol: {error!r}") from error

    def _receive(self, frame: dict[str, Any], now: float) -> None:
        gap_of_history, self._gap_of_history = self._gap_of_history, None
        match frame["type"]:
            case "message":
                self._message(frame)
            case "ack":
                self._acked(frame["id"], frame["group"], frame["offset"])
            case "welcome":
                self._welcomed(frame["session"], frame["replica"])
            case "subscribed":
                self._subscribed(frame["group"], _place(frame))
            case "gap":
                self._gap(Gap(frame["group"], _place(frame)), gap_of_history)
            case "join" | "leave":
                self._came_or_went(frame)
            case "history" | "presence":
                self._answered(frame)
            case "reconnect":
                self._events.append(AskedToLeave(frame["within_ms"] / 1000))
            case "error":
                self._refused(Refused(frame["code"], frame["message"]), frame.get("id"), frame.get("group"), now)

    def _welcomed(self, session: str, replica: str) -> None:
        self.session, self.online = session, True
        self._stirred = dict.fromkeys(self._groups)
        self._events.append(Welcomed(session, replica))

    # Groups

    def _lane(self, group: str) -> _Group:
        """Give the group, about which there will be something to say."""
        _check_name(group)
        self._stirred[group] = None
        return self._groups.setdefault(group, _Group(group))

    def _subscribed(self, group: str, found: Place) -> None:
        lane = self._groups.get(group)
        if lane is None or not (lane.wanted or lane.due == "subscribe"):
            self._unasked = group
            return
        self._stirred[group] = None
        lane.vain = False
        if lane.doubt == "subscribe":
            lane.doubt = None
        if lane.due != "subscribe":
            self._start_anew(lane)
        elif lane.asked[0] in (None, found):
            self._begin(lane, found)
        else:
            lane.found = found

    def _begin(self, lane: _Group, found: Place) -> None:
        """Take what comes after `found` for what comes next."""
        lane.due, lane.subscribed = None, True
        if not lane.wanted:
            return
        if (lane.place, lane.events) != lane.asked:
            # The app changed its mind meanwhile: it is another place that we want to go on from, or other events.
            lane.stale = True
            return
        before, lane.place = lane.place, found
        self._events.append(Subscribed(lane.name, found, found == before))
        if before is not None and before != found:
            self._events.append(Gap(lane.name, found))

    def _came_or_went(self, frame: dict[str, Any]) -> None:
        lane = self._groups.get(frame["group"])
        if lane is None or not lane.follows or not lane.events:
            return
        match frame["type"]:
            case "join":
                self._events.append(Joined(lane.name, frame["member"]))
            case "leave":
                self._events.append(Left(lane.name, frame["member"]))
            case _:
                self._events.append(Presence(lane.name, frame["count"], []))

    def _message(self, frame: dict[str, Any]) -> None:
        lane = self._groups.get(frame["group"])
        if lane is None or not lane.follows or lane.place is None:
            return
        offset = frame["offset"]
        if offset <= lane.place.offset:
            self.duplicates += 1
        elif offset == lane.place.offset + 1 or self._over_hole(lane, lane.place, offset):
            epoch = lane.place.epoch
            lane.place = Place(epoch, offset)
            self._events.append(Message(lane.name, offset, frame["id"], frame["data"], epoch))

    def _over_hole(self, lane: _Group, place: Place, offset: int) -> bool:
        """Ask again for what was skipped; tell whether that has been tried already, and there is a gap instead."""
        if lane.healed == place:
            self._events.append(Gap(lane.name, Place(place.epoch, offset - 1)))
            return True
        self.holes += 1
        lane.healed, lane.stale = place, True
        self._stirred[lane.name] = None
        said = f"{lane.name}: {offset} came after {place.offset}; the rest is asked for again"
        self._events.append(Complained(Refused("hole", said)))
        return False

    def _gap(self, gap: Gap, of_history: Gap | None) -> None:
        lane = self._groups.get(gap.group)
        if lane is not None and lane.due == "subscribe" and gap.place == lane.found:
            self._stirred[lane.name] = None
            self._begin(lane, gap.place)
        elif lane is not None and lane.follows and gap.place != lane.place and gap != of_history:
            lane.place = gap.place
            self._events.append(gap)

    def _answered(self, frame: dict[str, Any]) -> None:
        lane = self._groups.get(frame["group"])
        if lane is not None and lane.follows and lane.events and _counts_only(frame):
            self._came_or_went(frame)
            return
        if lane is None or not isinstance(lane.due, Request) or lane.due.kind != frame["type"]:
            return
        answer: History | Presence
        if lane.due.kind == "history":
            answer = _history(lane.due, frame)
            self._gap_of_history = Gap(lane.name, answer.gap) if answer.gap else None
        else:
            answer = Presence(lane.name, frame["count"], frame["members"])
        self._settle(lane, lane.due, answer)

    def _settle(self, lane: _Group, request: Request, answer: History | Presence | Refused) -> None:
        lane.due = None
        self._stirred[lane.name] = None
        if request in lane.requests:
            lane.requests.remove(request)
            self._events.append(Answered(request, answer))

    # Publishes

    def _acked(self, id: str, group: str, offset: int) -> None:
        if id in self._outbox:
            self.withdraw(id)
            self._events.append(Acked(id, group, offset))

    def _fail(self, publish: _Publish, error: ShardsError) -> None:
        self.withdraw(publish.id)
        self._events.append(PublishFailed(publish.id, error))

    def _refuse_largest(self) -> None:
        """Send no more what was too big for a frame: without it the connection will last."""
        sent = [publish for publish in self._outbox.values() if publish.sent_at is not None]
        if sent:
            largest = max(sent, key=lambda publish: len(publish.text))
            self._fail(largest, Refused("too_large", "the message is too big for the service"))

    # Errors

    def _refused(self, error: Refused, id: str | None, group: str | None, now: float) -> None:
        if id is not None:
            self._publish_refused(error, id, now)
            return
        if error.code == "not_subscribed":
            return
        due = [lane for lane in self._groups.values() if lane.due is not None and group in (None, lane.name)]
        if error.code == "already_subscribed" and (group is not None or len(due) == 1):
            self._already_subscribed(self._lane(group or due[0].name), now)
        elif len(due) == 1:
            self._command_refused(error, due[0], now)
        else:
            self._unexpected(error, group, now)

    def _unexpected(self, error: Refused, group: str | None, now: float) -> None:
        """Hear an error that answers no command we know of."""
        lane = self._groups.get(group) if group is not None else None
        if group is not None and error.code == "rate_limited":
            # An `unsubscribe` has no answer but this one.
            self._start_anew(self._lane(group))
            self._hold(now)
        elif lane is not None and lane.wanted and lane.subscribed:
            # It is that to our `subscribe`: the `subscribed` taken for that was of another one, and may have ended.
            self._start_anew(lane)
            if error.code in _TRY_AGAIN:
                self._hold(now)
        else:
            self._events.append(Complained(error))

    def _publish_refused(self, error: Refused, id: str, now: float) -> None:
        publish = self._outbox.get(id)
        if publish is None:
            return
        if error.code in _TRY_AGAIN:
            self._hold(now)
            self._under_way -= publish.sent_at is not None
            _unsend(publish, unsure=error.code == "unavailable")
            heapq.heappush(self._unsent, (publish.number, publish))
        else:
            self._fail(publish, error)

    def _command_refused(self, error: Refused, lane: _Group, now: float) -> None:
        due = lane.due
        if due == "subscribe" and lane.found is not None:
            # What we heard was of the URL's, which is still there.
            self._start_anew(lane)
        elif error.code in _TRY_AGAIN:
            # The service may have refused the `unsubscribe` before, or a `subscribe` whose answer seemed to be there.
            lane.doubt = due
        lane.due = None
        self._stirred[lane.name] = None
        if error.code in _TRY_AGAIN:
            self._hold(now)
        elif isinstance(due, Request):
            self._settle(lane, due, error)
        elif lane.wanted:
            lane.wanted, lane.place = False, None
            self._events.append(SubscribeFailed(lane.name, error))

    def _already_subscribed(self, lane: _Group, now: float) -> None:
        """Hear that a `subscribe` was in vain: the URL has the group subscribed, or an `unsubscribe` was refused."""
        if lane.due != "subscribe" and lane.wanted and lane.subscribed and not lane.events:
            # The URL's was taken for ours, and does as well where we need nothing that a URL does not ask for.
            return
        if lane.vain:
            # To end what it has was in vain as well.
            self._hold(now)
        lane.vain = True
        self._start_anew(lane)

    def _start_anew(self, lane: _Group) -> None:
        """End what the service has of a group, before anything else is said about it."""
        if lane.due == "subscribe":
            lane.due = None
        lane.subscribed = lane.stale = True
        self._stirred[lane.name] = None

    def _hold(self, now: float) -> None:
        """Say nothing for a while: the service has no time for us. What waits keeps its order."""
        self._held_until = now + _HOLD_SECONDS * (1 + self._random())


def _check_name(group: str) -> None:
    if not is_name(group):
        raise UsageError(f"{group!r} is no name of a group: 1-100 characters of A-Z a-z 0-9 _ . : -")


def _encode(frame: dict[str, object]) -> str:
    try:
        text = json.dumps(frame, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"JSON cannot say this: {error}") from error
    return text


def _place(frame: dict[str, Any]) -> Place:
    return Place(frame["epoch"], frame["offset"])


def _counts_only(frame: dict[str, Any]) -> bool:
    """Tell whether too many came and went to be named. An answer has names: at least ours, as we follow the group."""
    return bool(frame["type"] == "presence" and frame["count"] and not frame["members"])


def _since(place: Place | None) -> dict[str, object]:
    return {"since": {"epoch": place.epoch, "offset": place.offset}} if place else {}


def _request(request: Request) -> str:
    limit = {"limit": request.limit} if request.kind == "history" else {}
    return _encode({"type": request.kind, "group": request.group, **_since(request.since), **limit})


def _history(request: Request, frame: dict[str, Any]) -> History:
    """Read a history, and whether it follows on the place it was asked from; where not, a gap comes right after it."""
    place = _place(frame)
    messages = [Message(request.group, m["offset"], m["id"], m["data"], place.epoch) for m in frame["messages"]]
    since = request.since
    if since is None:
        return History(request.group, place, messages)
    before = Place(place.epoch, messages[0].offset - 1) if messages else place
    return History(request.group, place, messages, None if before == since else before)


def _unsend(publish: _Publish, unsure: bool) -> None:
    if unsure and publish.unsure_since is None:
        publish.unsure_since = publish.sent_at
    publish.sent_at = None
