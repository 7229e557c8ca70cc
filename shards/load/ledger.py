"""What was published, acked and seen, message by message, so that "nothing was lost" is a count and not a hope.

A group's members all live in one process, which therefore knows everything about the group: which message lies at
which offset (from acks and from what any member saw) and where each member stands. What comes in order costs next to
nothing; only what is out of order costs more.

Exact, and small: 14 bytes a published message and about 570 a member, measured. 10,000 members in groups of 10 at
10,000 messages delivered a second make 1,000 publishes a second, so ten minutes fit in 14 MB.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import chain, islice

import msgspec

_UNKNOWN = -1
_SLACK = 1000
ACCOUNTS = 50
"""How many clients' books a report has, of those with whom most went wrong."""
EXAMPLES = 5
"""How many of the things that went wrong with a client its books have."""
_EPOCHS = 100
"""Of a group's log in one run, at most: each is a log that was lost."""

_STAYS = 100
"""Of how many epochs and gaps a member remembers what it was given before: a broken server may tell of any number."""


class Tally(msgspec.Struct):
    """The sums of a ledger.

    Attributes:
        published: messages sent, each counted once however often it was sent again.
        acked: of these, acked.
        ackless: of these, sent by clients whose protocol has no acks.
        expected: deliveries that the guarantee asks for: each subscriber, each message in the log after its place.
        delivered: of these, done (a duplicate is not counted again).
        lost: of these, never seen by the subscriber, and no `gap` frame said so.
        skipped: of these, never seen, and a `gap` frame said so.
        duplicated: deliveries beyond the first.
        reordered: deliveries out of turn: after a later one, or with another message at the same offset.
        overtaken: messages that lie in the log after a later one of the same publisher.
        gaps: times a subscriber was told that messages are gone: by a `gap` frame, or by a `subscribed` that did not
            bring it back to its place.
        jumps: offsets that grew by more than one and nothing said so.
        late: deliveries that came later than `Shared.late_ns` after they were due.
    """

    published: int = 0
    acked: int = 0
    ackless: int = 0
    expected: int = 0
    delivered: int = 0
    lost: int = 0
    skipped: int = 0
    duplicated: int = 0
    reordered: int = 0
    overtaken: int = 0
    gaps: int = 0
    jumps: int = 0
    late: int = 0

    @property
    def faults(self) -> int:
        """How often something went otherwise than promised; lateness aside."""
        amiss = self.lost + self.skipped + self.duplicated + self.reordered
        return amiss + self.overtaken + self.gaps + self.jumps

    def __add__(self, other: Tally) -> Tally:
        mine, others = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return Tally(*(a + b for a, b in zip(mine, others, strict=True)))


class Account(msgspec.Struct):
    """The books of one client.

    Attributes:
        client: its number, from 0; in its group, until the generator gives it the one in the whole load.
        group: the group's name; empty until the generator fills it in.
        tally: its sums; `published`, `acked`, `ackless` and `overtaken` are of what it published.
        examples: the first few things that went wrong, each with the message's offset and id.
    """

    client: int
    tally: Tally
    examples: list[str]
    group: str = ""

    @property
    def amiss(self) -> bool:
        """Whether there is something to tell of it."""
        return bool(self.examples or self.tally.faults or self.tally.late)


def worst(accounts: Iterable[Account], most: int) -> list[Account]:
    """Give those in which most went wrong, `most` of them at most."""
    return sorted(accounts, key=lambda a: (-a.tally.faults, -a.tally.late, a.client))[:most]


class Impossible(ValueError):
    """The server named a message or an offset that cannot be."""


class Log:
    """What lies at each offset of one epoch of a group, as far as anyone saw."""

    __slots__ = ("base", "group", "numbers")

    def __init__(self, group: GroupLedger, base: int) -> None:
        self.group = group
        self.base = base + 1
        self.numbers = array("q")

    @property
    def end(self) -> int:
        """The highest offset known."""
        return self.base + len(self.numbers) - 1

    def number_at(self, offset: int) -> str:
        """Give the id of what lies at `offset`, as far as it is known."""
        number = self.numbers[offset - self.base] if self.base <= offset <= self.end else _UNKNOWN
        return "unknown" if number == _UNKNOWN else str(number)

    def check(self, offset: int, number: int | None = None) -> None:
        """Refuse what cannot be: a broken server shall not make the ledger fill the memory.

        Raises:
            Impossible: the group has no such message, or cannot have reached that offset.
        """
        if number is not None and not 0 <= number < self.group.published:
            raise Impossible(f"message {number}, which was never published")
        if offset - self.base > 2 * self.group.published + _SLACK:
            raise Impossible(f"offset {offset} after {self.group.published} publishes from {self.base} on")

    def note(self, offset: int, number: int) -> bool:
        """Note that message `number` lies at `offset`; False where another one was there.

        Raises:
            Impossible: see `check`.
        """
        index = offset - self.base
        numbers = self.numbers
        if 0 <= index < len(numbers):
            if numbers[index] == _UNKNOWN:
                self.check(offset, number)
                numbers[index] = number
            return numbers[index] == number
        self.check(offset, number)
        if index >= 0:
            numbers.extend([_UNKNOWN] * (index - len(numbers)))
            numbers.append(number)
        return True


class GroupLedger:
    """One group: its messages, numbered from 0 in the order they were published, and its members."""

    __slots__ = ("_acked", "_misplaced", "_publishers", "logs", "members")

    def __init__(self) -> None:
        self._acked = array("b")
        self._publishers = array("i")
        self._misplaced = array("i")
        self.logs: dict[str, Log] = {}
        self.members: list[Member] = []

    @property
    def published(self) -> int:
        """How many messages were published."""
        return len(self._acked)

    def publish(self, publisher: int = 0) -> int:
        """Give the next message its number; `publisher` is the number of who publishes it."""
        self._acked.append(0)
        self._publishers.append(publisher)
        return len(self._acked) - 1

    def log_of(self, epoch: str, offset: int) -> Log:
        """Give an epoch's log, which begins after `offset` where nobody has heard of it yet.

        Raises:
            Impossible: there are too many.
        """
        if epoch not in self.logs and len(self.logs) >= _EPOCHS:
            raise Impossible(f"a log of a new epoch, {epoch}, after {_EPOCHS} others")
        return self.logs.setdefault(epoch, Log(self, offset))

    def acked(self, number: int, offset: int, log: Log) -> None:
        """Note that the server acked message `number` at `offset`.

        Raises:
            Impossible: there is no such message or offset.
        """
        log.check(offset, number)
        if not log.note(offset, number):
            self._misplaced.append(number)
        self._acked[number] = 1

    def unsettled(self) -> bool:
        """Tell whether an ack or a delivery is still to come."""
        return 0 in self._acked or any(member.behind() for member in self.members)

    def publishers(self) -> int:
        """Tell how many published something."""
        return len(set(self._publishers))

    def tally(self) -> Tally:
        """Sum up; meant for the end, since it looks at every message."""
        return sum((account.tally for account in self.accounts()), start=Tally())

    def accounts(self) -> list[Account]:
        """Give each member's books, in the order of their numbers; together they make the tally."""
        seen = {number for log in self.logs.values() for number in log.numbers}
        vanished = [number for number, acked in enumerate(self._acked) if acked and number not in seen]
        books = [member.account(vanished) for member in self.members]
        for number, publisher in enumerate(self._publishers):
            books[publisher].tally.published += 1
            if self._acked[number]:
                books[publisher].tally.acked += 1
            else:
                _add_example(books[publisher], f"not acked: id {number}")
        for number in self._misplaced:
            books[self._publishers[number]].tally.reordered += 1
            _add_example(books[self._publishers[number]], f"acked where another message is: id {number}")
        self._book_twice(books)
        for log in self.logs.values():
            self._book_overtaken(log, books)
        return books

    def _book_twice(self, books: list[Account]) -> None:
        """Book deliveries of messages that lie at several places: in one epoch's log, or in those of several."""
        for number, places in self._twice().items():
            for member in self.members:
                seen = [offset for log, offset in places if member.has_seen(log, offset)]
                for offset in seen[1:]:
                    books[member.number].tally.duplicated += 1
                    _add_example(books[member.number], f"logged twice: offset {offset}, id {number}")

    def _twice(self) -> dict[int, list[tuple[Log, int]]]:
        """Find the messages that lie at several places, and these."""
        once: set[int] = set()
        twice: set[int] = set()
        for number in chain.from_iterable(log.numbers for log in self.logs.values()):
            (twice if number in once else once).add(number)
        twice.discard(_UNKNOWN)
        places: dict[int, list[tuple[Log, int]]] = {number: [] for number in sorted(twice)}
        for log in self.logs.values() if twice else ():
            for offset, number in enumerate(log.numbers, start=log.base):
                if number in twice:
                    places[number].append((log, offset))
        return places

    def _book_overtaken(self, log: Log, books: list[Account]) -> None:
        """Book messages whose first copy lies after a later one of the same publisher."""
        latest: dict[int, int] = {}
        for number in dict.fromkeys(log.numbers):
            if number != _UNKNOWN:
                publisher = self._publishers[number]
                if number < latest.get(publisher, number):
                    books[publisher].tally.overtaken += 1
                    _add_example(books[publisher], f"overtaken by a later one: id {number}")
                latest[publisher] = max(number, latest.get(publisher, number))


def _add_example(account: Account, text: str) -> None:
    if len(account.examples) < EXAMPLES:
        account.examples.append(text)


class Noting:
    """A member that notes what goes wrong with it. Most have nothing to note, and no list until then."""

    __slots__ = ("_examples",)

    def __init__(self) -> None:
        self._examples: list[str] | None = None

    def _note(self, text: str) -> None:
        """Keep an example, if it is one of the first."""
        if self._examples is None:
            self._examples = []
        if len(self._examples) < EXAMPLES:
            self._examples.append(text)

    def _noted(self) -> list[str]:
        """Give the examples, for others to add to."""
        return list(self._examples or ())


class Member(Noting):
    """One subscriber's place in its group: its `number` there, and the offset of the last message it was given."""

    __slots__ = (
        *("_counts", "_entered", "_missing", "_start", "_stays", "_told"),
        *("epoch", "group", "log", "number", "position"),
    )

    def __init__(self, group: GroupLedger) -> None:
        super().__init__()
        self.group = group
        self.number = len(group.members)
        self.epoch: str | None = None
        self.log = Log(group, 0)
        self.position = self._start = self._entered = 0
        self._missing: set[int] = set()
        # None until it leaves its first place, as most members never do. Then of each: its log, what was given to it
        # there, and the holes in that.
        self._stays: list[tuple[Log, range, set[int]]] | None = None
        self._told: tuple[str, int] | None = None
        self._counts = Tally()
        group.members.append(self)

    def subscribed(self, epoch: str, offset: int, recovered: bool) -> None:
        """Note the server's answer to a subscription, the first or a resumed one.

        Raises:
            Impossible: the offset makes no sense.
        """
        if self.epoch is None:
            self._enter(epoch, self.group.log_of(epoch, offset), offset)
        elif epoch != self.epoch or not recovered:
            self.gap(epoch, offset)
        elif offset > self.position:
            self.log.check(offset)
            self._hole(offset)

    def gap(self, epoch: str, offset: int) -> None:
        """Note that the server said: what lies between your place and `offset` is gone; told twice, it is one gap.

        Raises:
            Impossible: see `GroupLedger.log_of`.
        """
        if self._told != (epoch, offset):
            self._counts.gaps += 1
            self._note(f"told of a gap: up to offset {offset} of {epoch}")
        self._told = epoch, offset
        self.skip_to(epoch, offset)

    def message(self, offset: int, number: int) -> bool:
        """Note a delivery.

        Returns:
            Whether it was the first of this message to this member.

        Raises:
            Impossible: there is no such message or offset.
        """
        same = self.log.note(offset, number)
        if offset > self.position:
            if offset != self.position + 1:
                self._hole(offset - 1)
            self.position = offset
            if not same:
                self._counts.reordered += 1
                self._note(f"another message than others were given: offset {offset}, id {number}")
            return True
        if offset in self._missing:
            self._missing.remove(offset)
            self._counts.reordered += 1
            self._note(f"reordered: offset {offset}, id {number}, after offset {self.position}")
            return True
        self._counts.duplicated += 1
        self._note(f"duplicated: offset {offset}, id {number}")
        return False

    def late(self) -> None:
        """Note that the delivery before was late."""
        self._counts.late += 1

    def _hole(self, end: int) -> None:
        """Go on after `end`, though what lies up to there was not seen (yet)."""
        self._counts.jumps += 1
        self._missing.update(range(self.position + 1, end + 1))
        self.position = end

    def skip_to(self, epoch: str, offset: int) -> None:
        """Go on from `offset`; what lies before was announced as gone."""
        if epoch != self.epoch:
            log = self.group.log_of(epoch, offset)
            self._leave(self.log.end)
            self._enter(epoch, log, offset)
        elif offset > self.position:
            self._end_stay()
            self._entered = offset
            self._counts.skipped += offset - self.position
            self._counts.expected += offset - self.position
            self._start += offset - self.position
            self.position = offset

    def _enter(self, epoch: str, log: Log, offset: int) -> None:
        self.epoch, self.log = epoch, log
        self._start = self._entered = self.position = offset

    def _end_stay(self) -> None:
        if self._stays is None:
            self._stays = []
        if self.position > self._entered and len(self._stays) < _STAYS:
            self._stays.append(self._stay())

    def _stay(self) -> tuple[Log, range, set[int]]:
        """Give what it saw since it entered the log, or was told of a gap in it."""
        return self.log, range(self._entered + 1, self.position + 1), self._missing

    def _leave(self, end: int) -> None:
        """Close the books of an epoch: what it did not see up to `end` was announced as gone."""
        self._end_stay()
        here = self._here(self.position)
        here.skipped += max(0, end - self.position)
        here.expected += max(0, end - self.position)
        self._counts += here
        self._missing = set()

    def _here(self, end: int) -> Tally:
        """Sum up the epoch the member is in, were `end` its last offset."""
        given = self.position - self._start
        behind = max(0, end - self.position)
        missing = len(self._missing)
        return Tally(expected=given + behind, delivered=given - missing, lost=missing + behind)

    def behind(self) -> bool:
        """Tell whether the log holds more than the member was given."""
        return self.epoch is not None and self.position < self.log.end

    def has_seen(self, log: Log, offset: int) -> bool:
        """Tell whether the member was given what lies at `offset` of `log`, in its epoch or an earlier one."""
        stays = (*(self._stays or ()), self._stay())
        return any(own is log and offset in seen and offset not in missing for own, seen, missing in stays)

    def account(self, vanished: Sequence[int] = ()) -> Account:
        """Give this member's books.

        Args:
            vanished: messages that were acked, and that no member was ever given.
        """
        if self.epoch is None:
            return Account(self.number, self._counts + Tally(), self._noted())
        owed = Tally(expected=len(vanished), lost=len(vanished))
        account = Account(self.number, self._counts + self._here(self.log.end) + owed, self._noted())
        for offset in islice(chain(sorted(self._missing), range(self.position + 1, self.log.end + 1)), EXAMPLES):
            _add_example(account, f"lost: offset {offset}, id {self.log.number_at(offset)}")
        for number in vanished:
            _add_example(account, f"lost: id {number}, which was acked and nobody was given")
        return account
