"""The log port: everything Parley asks of a log, and nothing else.

Above it stand the three services; below it two adapters, `kafka` (aiokafka, the only importer) and
`embedded` (SQLite or memory, one process). One suite (`tests/contract/log`) holds both to what is
written here. Nothing else in the project knows which adapter it is on.

The words are Kafka's: a topic has `partitions` partitions (the same number on every topic), a record
in a partition has an offset, offsets of one partition rise by one per record.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to be written. `partition` is always named by the writer; a log never picks one."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(slots=True, unsafe_hash=True)
class Incoming:
    """A record as it was read. `time_ms` is the log's time of the record, in ms since 1970. Nobody changes one, but
    it is not frozen: that would make it three times as slow to make, and one is made of every record."""

    topic: str
    partition: int
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    def header(self, name: str) -> bytes | None:
        """The last header of that name, or None."""
        for key, value in reversed(self.headers):
            if key == name:
                return value
        return None


class Producer(Protocol):
    """Writes records. Sends to one partition land in the order in which `send` was called.

    The future of a send gives the record's offset once the log has it for good (acks=all). It fails with
    `LogUnavailable` when the outcome is unknown: the record may or may not be there. A producer of which
    one send failed is `broken`: it refuses every further send with `ProducerBroken`, every send still in
    flight fails too, and the writer goes on with a new producer, sending everything that was not
    acknowledged again, in order.
    """

    @property
    def broken(self) -> bool: ...

    def send(self, record: Outgoing, *, now: bool = False) -> Future[int]:
        """Hand a record over, at once and without waiting. Where batches have their price, those of many writers leave
        together, a moment later; `now`: not this one, which takes along what waits. Raises `RecordTooLarge` or
        `ProducerBroken`."""
        ...

    async def close(self, grace_s: float = 5.0) -> None:
        """Send what was handed over, wait at most `grace_s`, then fail what is left with `LogUnavailable`.
        Never hangs, also while the log is down."""
        ...


class Tail(Protocol):
    """Reads partitions from given positions onward, for itself: no group, no commits."""

    async def batch(self, timeout_s: float = 1.0, limit: int = 5000) -> Sequence[Incoming]:
        """The next records of any of its partitions, each partition in order; () when there were none in time.
        Raises `RetentionGap` when a position asked for no longer exists. While the log is away it waits and
        returns ()."""
        ...

    def add(self, partition: int, offset: int) -> None:
        """Read `partition` too, from `offset`. Adding one that is already read moves it there."""
        ...

    def remove(self, partition: int) -> None:
        """Stop reading `partition`; records of it that were already fetched are not returned any more."""
        ...

    def position(self, partition: int) -> int:
        """The offset of the next record that `batch` will return of `partition`."""
        ...

    async def close(self) -> None: ...


OnAssigned = Callable[[frozenset[int]], Awaitable[None]]
"""Called with the whole new assignment after each rebalance. It must return at once (work goes to a task)."""

OnRevoked = Callable[[frozenset[int]], Awaitable[None]]
"""Called before a rebalance with all partitions that were assigned (also those that will come back)."""

OnWanted = Callable[[frozenset[int]], None]
"""Called after each rebalance with those of one's partitions that another member should have: let go of them with
`Group.give`, once their work allows. None: keep everything."""


class Group(Protocol):
    """One member of a consumer group on one topic. Members share the partitions between them.

    After a rebalance every partition, also one that stays, is read again from its committed offset (or from
    the beginning where there is none): readers drop what they have seen. Paused partitions stay paused only
    until the next rebalance.
    """

    async def batch(self, timeout_s: float = 1.0, limit: int = 500) -> Sequence[Incoming]:
        """The next records of the assigned, unpaused partitions; () when there were none in time."""
        ...

    def pause(self, partition: int) -> None: ...

    def resume(self, partition: int) -> None: ...

    def give(self, partitions: frozenset[int]) -> None:
        """Let go of assigned partitions at a rebalance that begins now."""
        ...

    async def committed(self, partition: int) -> int:
        """Where an assigned partition is read from after a rebalance. Raises `LogUnavailable` after 5 s."""
        ...

    async def owns(self, partition: int) -> bool:
        """Whether the group, asked now, gives the partition to this member. `assignment` says it as it was last told: a
        member that was away has not heard yet that others have its partitions. Raises `LogUnavailable` after 5 s."""
        ...

    async def rewind(self, partition: int) -> None:
        """Read an assigned partition again from its committed offset (from the beginning where there is none)."""
        ...

    async def commit(self, offsets: Mapping[int, int]) -> None:
        """Record that everything below each offset is finished. Partitions not assigned any more are left out.
        Raises `LogUnavailable` when it did not come through within 5 s; trying again later is always safe."""
        ...

    def assignment(self) -> frozenset[int]: ...

    async def close(self) -> None:
        """Leave the group, so that others take over at once."""
        ...


class Reading(Protocol):
    """What is asked of a log by who only ever reads it, beside those that have it open: see `Log`."""

    @property
    def partitions(self) -> int: ...

    async def tail(self, topic: str, starts: Mapping[int, int]) -> Tail: ...

    async def begins(self, topic: str) -> dict[int, int]: ...

    async def ends(self, topic: str) -> dict[int, int]: ...

    async def close(self) -> None: ...


class Log(Protocol):
    """A log with the topics of `parley_events.topics`, opened. `partitions` is the same for all of them."""

    @property
    def partitions(self) -> int: ...

    async def producer(self) -> Producer: ...

    async def tail(self, topic: str, starts: Mapping[int, int]) -> Tail:
        """Read the partitions named in `starts` (may be empty), each from the offset given."""
        ...

    async def group(
        self,
        topic: str,
        group_id: str,
        on_assigned: OnAssigned,
        on_revoked: OnRevoked,
        on_wanted: OnWanted | None = None,
    ) -> Group:
        """Join a group. Without `on_wanted` a member never gives a partition away while it lives."""
        ...

    async def begins(self, topic: str) -> dict[int, int]:
        """Per partition the offset of the oldest record that is still there."""
        ...

    async def ends(self, topic: str) -> dict[int, int]:
        """Per partition the offset that the next record will get. Raises `LogUnavailable` after 5 s."""
        ...

    async def committed(self, topic: str, group_id: str) -> dict[int, int]:
        """Per partition the offset that a group has committed; that of the oldest record where it has none. Raises
        `LogUnavailable` after 5 s."""
        ...

    async def at_time(self, topic: str, time_ms: int) -> dict[int, int]:
        """Per partition the offset of the first record with `time_ms` or later; the end where there is none."""
        ...

    async def close(self) -> None: ...
