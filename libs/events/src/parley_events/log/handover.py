"""Who gets which partition of a group, and who should let go of which: partitions move only when their owner gives
them.

Kafka's own sticky assignors take a partition from a living member as soon as another one joins, in the middle of its
work. Here the leader leaves every partition with the member that holds it, hands out those that nobody holds, and tells
members that have too many which ones they should let go of. They finish what is under way, give the partitions, and the
next rebalance hands those out. Pure; `kafka` carries the answers, as the user data of Kafka's consumer protocol.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson


@dataclass(frozen=True, slots=True)
class Held:
    """What a member says when it joins: the partitions that it holds, and the round in which it was given them. A
    member that was away says what it held in an older round: the newest counts."""

    round: int = -1
    partitions: frozenset[int] = frozenset()

    def encode(self) -> bytes:
        return orjson.dumps([self.round, sorted(self.partitions)])

    @classmethod
    def decode(cls, data: bytes) -> Held:
        """What a member said; nothing, if that cannot be read."""
        try:
            number, partitions = orjson.loads(data)
            return cls(int(number), frozenset(int(partition) for partition in partitions))
        except (ValueError, TypeError):
            return cls()


@dataclass(frozen=True, slots=True)
class Share:
    """What a member is told: its partitions, and those among them that it should let go of."""

    round: int
    partitions: frozenset[int]
    wanted: frozenset[int] = frozenset()

    def encode(self) -> bytes:
        """Without the partitions, which Kafka's protocol has in a place of their own."""
        return Held(self.round, self.wanted).encode()

    @classmethod
    def decode(cls, partitions: Iterable[int], data: bytes) -> Share:
        told = Held.decode(data)
        return cls(told.round, frozenset(partitions), told.partitions)


def shares(partitions: Iterable[int], members: Mapping[str, Held]) -> dict[str, Share]:
    """The share of each member: as even as it can be without taking anything, and what is wanted to make it even."""
    everything = sorted(partitions)
    holders: dict[int, str] = {}
    for name in sorted(members, key=lambda name: (members[name].round, name)):
        holders.update(dict.fromkeys(members[name].partitions & set(everything), name))
    held: dict[str, list[int]] = {name: [] for name in sorted(members)}
    for partition, name in sorted(holders.items()):
        held[name].append(partition)
    # Those that hold most have the larger shares, so that as little as possible moves.
    least, larger = divmod(len(everything), len(held))
    ranked = sorted(held, key=lambda name: (-len(held[name]), name))
    due = {name: least + (place < larger) for place, name in enumerate(ranked)}
    for partition in everything:
        if partition not in holders:
            name = min(held, key=lambda name: (len(held[name]) - due[name], name))
            held[name].append(partition)
    number = max((member.round for member in members.values()), default=-1) + 1
    return {name: Share(number, frozenset(mine), frozenset(sorted(mine)[due[name] :])) for name, mine in held.items()}
