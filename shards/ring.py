"""The ring: which slot a group falls into, and which member owns each slot.

Pure and deterministic: the same arguments give the same answer in every process and Python version, so that
whoever computes a placement computes the same one.

Plain consistent hashing leaves the most loaded of a few members 30-100 % above average, and its bounded-load
variant (Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016) trades balance for
movement. With the current owners at hand neither trade is needed: quotas differ by at most one slot, and only
what must move, moves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from math import floor

SLOTS = 1024


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def slot_of(group: str, slots: int = SLOTS) -> int:
    """Give the slot, from 0 to `slots` - 1, into which the group falls."""
    return _hash(group) % slots


def score(slot: int, member: str) -> int:
    """Give how strongly `slot` is drawn to `member` (rendezvous hashing, Thaler and Ravishankar, 1998)."""
    return _hash(f"{member}\0{slot}")


def home(slot: int, members: Sequence[str]) -> str | None:
    """Give the member that `slot` is drawn to most; None where there is no member."""
    return max(members, key=lambda member: score(slot, member), default=None)


def quotas(weights: Mapping[str, float], held: Mapping[str, int], slots: int = SLOTS) -> dict[str, int]:
    """Share `slots` out by weight: each member gets its share rounded down, some one more.

    The ones left over go to members whose share is not whole, first to those that already hold more than their
    rounded share, since that saves a move.

    Args:
        weights: member → weight, all > 0.
        held: member → slots it holds now.
        slots: how many there are to share.
    """
    total = sum(weights.values())
    ideal = {member: slots * weight / total for member, weight in weights.items()}
    quota = {member: floor(share) for member, share in ideal.items()}
    over = sorted(
        weights,
        key=lambda member: (
            quota[member] == ideal[member],
            held.get(member, 0) <= quota[member],
            quota[member] - ideal[member],
            member,
        ),
    )
    for member in over[: slots - sum(quota.values())]:
        quota[member] += 1
    return quota


def assign(
    weights: Mapping[str, float], owners: Sequence[str | None] | None = None, slots: int = SLOTS
) -> tuple[str, ...]:
    """Give every slot an owner, moving as few as possible.

    Args:
        weights: the members that shall own slots, each with its weight (> 0).
        owners: today's owner of each slot; None, or a member that is not in `weights`, is no owner.
        slots: how many slots there are, where `owners` is not given.

    Returns:
        The owner of each slot. With equal weights no two members differ by more than one slot.

    Raises:
        ValueError: there is no member, a weight is not positive, or there are more members than slots.
    """
    today = list(owners) if owners is not None else [None] * slots
    if not weights or min(weights.values()) <= 0:
        raise ValueError("a ring needs at least one member, and positive weights")
    if len(weights) > len(today):
        raise ValueError(f"{len(weights)} members cannot share {len(today)} slots")
    kept = [owner if owner in weights else None for owner in today]
    room = quotas(weights, Counter(owner for owner in kept if owner), len(today))
    result = _keep(kept, room)
    for slot, owner in enumerate(result):
        if owner is None:
            member = max((m for m in room if room[m] > 0), key=lambda m: score(slot, m))
            result[slot] = member
            room[member] -= 1
    return tuple(owner for owner in result if owner is not None)


def _keep(owners: Sequence[str | None], room: dict[str, int]) -> list[str | None]:
    """Leave each member the slots drawn to it most, up to its quota; takes what is kept from `room`."""
    held: dict[str, list[int]] = {}
    for slot, owner in enumerate(owners):
        if owner is not None:
            held.setdefault(owner, []).append(slot)
    kept: list[str | None] = [None] * len(owners)
    for member, slots in held.items():
        slots.sort(key=lambda slot: score(slot, member), reverse=True)
        for slot in slots[: room[member]]:
            kept[slot] = member
        room[member] -= min(room[member], len(slots))
    return kept


def moves(before: Sequence[str], after: Sequence[str]) -> dict[int, tuple[str, str]]:
    """Give the slots whose owner differs: slot → (old owner, new owner)."""
    return {slot: (old, new) for slot, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}


def least_moves(weights: Mapping[str, float], before: Sequence[str]) -> int:
    """Give how many slots must move at least, whatever the method, so that each member has its share, rounded.

    Args:
        weights: the members that shall own slots, each with its weight.
        before: the owner of each slot.
    """
    held, total = Counter(before), sum(weights.values())
    shares = {member: len(before) * weight / total for member, weight in weights.items()}
    stay = sum(min(held[member], floor(share)) for member, share in shares.items())
    # What rounding leaves over stays where there is more already, as far as it goes.
    over = len(before) - sum(map(floor, shares.values()))
    return len(before) - stay - min(over, sum(held[member] > floor(share) < share for member, share in shares.items()))
