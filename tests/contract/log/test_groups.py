"""Groups: every partition has one reader, commits survive, and what was not committed is read again, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from parley_events.log import Group, Incoming, Log
from parley_events.log.kafka_group import KafkaGroup
from tests.contract.log.conftest import PARTITIONS, Place
from tests.contract.log.reading import LIMIT_S, TOPIC, read, read_until, record, texts, until, write

ALL = frozenset(range(PARTITIONS))


class Member:
    """A member of a group that keeps polling, as every user of the port does, and notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, frozenset[int]]] = []
        self.found: list[Incoming] = []
        self.group: Group | None = None
        self._polling: asyncio.Task[None] | None = None

    async def join(self, log: Log, group_id: str, poll: bool = True) -> Group:
        self.group = await log.group(TOPIC, group_id, self._assigned, self._revoked)
        if poll:
            self._polling = asyncio.create_task(self._poll(self.group))
        return self.group

    async def leave(self) -> None:
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)
            self._polling = None
        if self.group is not None:
            async with asyncio.timeout(LIMIT_S):
                await self.group.close()
            self.group = None

    @property
    def has(self) -> frozenset[int]:
        return self.group.assignment() if self.group is not None else frozenset()

    async def _poll(self, group: Group) -> None:
        while True:
            self.found.extend(await group.batch(timeout_s=0.2))

    async def _assigned(self, partitions: frozenset[int]) -> None:
        self.told.append(("assigned", partitions))

    async def _revoked(self, partitions: frozenset[int]) -> None:
        self.told.append(("revoked", partitions))


Join = Callable[..., Awaitable[Member]]


@pytest.fixture
async def join(log: Log) -> AsyncIterator[Join]:
    """Makes members; those that are still there leave at the end."""
    members: list[Member] = []

    async def made(group_id: str = "g", poll: bool = True) -> Member:
        member = Member()
        members.append(member)
        async with asyncio.timeout(LIMIT_S):
            await member.join(log, group_id, poll)
        return member

    yield made
    for member in reversed(members):
        await member.leave()


def group_of(member: Member) -> Group:
    assert member.group is not None
    return member.group


def shared(first: Member, second: Member) -> bool:
    """Whether both have some partitions, each has one reader, and the rebalance is over for both: an assignment is
    there a moment before its member is told of it."""
    told = all(member.told[-1:] == [("assigned", member.has)] for member in (first, second))
    return told and all((first.has, second.has)) and not first.has & second.has and first.has | second.has == ALL


async def test_a_member_alone_has_every_partition_and_reads_from_the_beginning(log: Log, join: Join) -> None:
    await write(log, [record(p, f"{p}:{n}") for n in range(3) for p in range(PARTITIONS)])
    member = await join(poll=False)
    await until(lambda: member.told == [("assigned", ALL)])
    assert member.has == ALL
    found = await read(group_of(member), 3 * PARTITIONS)
    for partition in range(PARTITIONS):
        assert texts(found, partition) == [f"{partition}:{n}" for n in range(3)]
    await write(log, [record(1, "later")])
    assert texts(await read(group_of(member), 1)) == ["later"]


async def test_members_share_the_partitions_and_a_leaving_ones_come_back(log: Log, join: Join) -> None:
    first = await join()
    second = await join()
    await until(lambda: shared(first, second))
    assert first.told[0] == ("assigned", ALL)
    assert ("revoked", ALL) in first.told
    assert first.told[-1] == ("assigned", first.has)
    assert second.told[-1] == ("assigned", second.has)
    await write(log, [record(p, f"shared {p}") for p in range(PARTITIONS)])
    await until(lambda: len(texts(first.found) + texts(second.found)) >= PARTITIONS)
    assert {r.partition for r in first.found} == first.has
    assert {r.partition for r in second.found} == second.has
    await second.leave()
    await until(lambda: first.has == ALL)
    await write(log, [record(p, f"alone {p}") for p in range(PARTITIONS)])
    await until(lambda: {f"alone {p}" for p in range(PARTITIONS)} <= set(texts(first.found)))


async def test_groups_of_other_names_read_for_themselves(log: Log, join: Join) -> None:
    one, other = await join("one"), await join("other")
    assert one.has == other.has == ALL
    await write(log, [record(0, "for both")])
    await until(lambda: texts(one.found) == texts(other.found) == ["for both"])


async def test_what_was_committed_is_not_read_again_and_the_rest_is_in_order(log: Log, join: Join) -> None:
    await write(log, [record(p, f"{p}:{n}") for n in range(10) for p in range(PARTITIONS)])
    member = await join(poll=False)
    await read(group_of(member), 10 * PARTITIONS)
    await group_of(member).commit({0: 10, 1: 4, 2: 0})
    await member.leave()
    again = await join(poll=False)
    found = await read(group_of(again), 0 + 6 + 10 + 10)
    assert texts(found, 0) == []
    assert texts(found, 1) == [f"1:{n}" for n in range(4, 10)]
    assert texts(found, 2) == [f"2:{n}" for n in range(10)]
    assert texts(found, 3) == [f"3:{n}" for n in range(10)]


async def test_anybody_can_ask_how_far_a_group_has_come(log: Log, join: Join) -> None:
    assert await log.committed(TOPIC, "g") == dict.fromkeys(range(PARTITIONS), 0), "there is no such group yet"
    await write(log, [record(p, f"{p}:{n}") for n in range(10) for p in range(PARTITIONS)])
    member = await join()
    await group_of(member).commit({0: 10, 1: 4, 2: 0})
    assert await log.committed(TOPIC, "g") == {0: 10, 1: 4, **dict.fromkeys(range(2, PARTITIONS), 0)}
    assert await log.committed(TOPIC, "another") == dict.fromkeys(range(PARTITIONS), 0)
    await member.leave()
    assert (await log.committed(TOPIC, "g"))[0] == 10, "what is committed outlives its members"


async def test_after_a_rebalance_everything_uncommitted_comes_again_in_order(log: Log, join: Join) -> None:
    await write(log, [record(p, f"{p}:{n}") for n in range(10) for p in range(PARTITIONS)])
    first = await join()
    await until(lambda: len(first.found) >= 10 * PARTITIONS)
    await group_of(first).commit(dict.fromkeys(range(PARTITIONS), 7))
    second = await join()
    await until(lambda: shared(first, second))

    def again(partition: int) -> bool:
        """Whether the partition's holder was given the last three anew (the first one has had all ten before)."""
        holder, more = (first, 10) if partition in first.has else (second, 0)
        found = texts(holder.found, partition)
        return len(found) >= more + 3 and found[-3:] == [f"{partition}:{n}" for n in range(7, 10)]

    await until(lambda: all(again(partition) for partition in range(PARTITIONS)))


async def test_offsets_of_partitions_that_are_not_assigned_are_left_out(log: Log, join: Join) -> None:
    await write(log, [record(p, f"{p}:{n}") for n in range(3) for p in range(PARTITIONS)])
    first, second = await join(), await join()
    await until(lambda: shared(first, second))
    mine, others = min(first.has), min(second.has)
    await group_of(first).commit({mine: 2, others: 2, 99: 1})
    await first.leave()
    await second.leave()
    alone = await join(poll=False)
    found = await read(group_of(alone), 3 * PARTITIONS - 2)
    assert texts(found, mine) == [f"{mine}:2"]
    assert texts(found, others) == [f"{others}:{n}" for n in range(3)]


async def test_a_paused_partition_is_silent_and_goes_on_where_it_stopped(log: Log, join: Join) -> None:
    member = await join(poll=False)
    group = group_of(member)
    await write(log, [record(0, "0:0"), record(1, "1:0")])
    await read(group, 2)
    group.pause(0)
    group.pause(0)
    await write(log, [record(0, "0:1"), record(1, "1:1"), record(0, "0:2"), record(1, "1:2")])
    found = await read_until(group, lambda found: len(texts(found, 1)) == 2)
    assert texts(found) == ["1:1", "1:2"]
    assert list(await group.batch(timeout_s=0.3)) == []
    group.resume(0)
    group.resume(0)
    group.resume(1)
    assert texts(await read(group, 2)) == ["0:1", "0:2"]


async def test_a_pause_lasts_until_the_next_rebalance(log: Log, join: Join) -> None:
    first = await join()
    for partition in range(PARTITIONS):
        group_of(first).pause(partition)
    second = await join()
    await until(lambda: shared(first, second))
    await write(log, [record(p, f"{p}") for p in range(PARTITIONS)])
    await until(lambda: sorted(texts(first.found) + texts(second.found)) == [str(p) for p in range(PARTITIONS)])
    quiet, other = sorted(first.has)
    group_of(first).pause(quiet)
    await write(log, [record(quiet, "not while it is paused"), record(other, "goes on")])
    await until(lambda: "goes on" in texts(first.found))
    assert "not while it is paused" not in texts(first.found)
    group_of(first).resume(quiet)
    await until(lambda: "not while it is paused" in texts(first.found))


async def test_a_partition_is_rewound_to_what_was_committed(log: Log, join: Join) -> None:
    member = await join(poll=False)
    group = group_of(member)
    await write(log, [record(p, f"{p}:{n}") for n in range(5) for p in (0, 1)])
    await read(group, 10)
    await group.commit({0: 3})
    await group.rewind(0)
    assert texts(await read(group, 2)) == ["0:3", "0:4"]
    await group.rewind(1)
    assert texts(await read(group, 5)) == [f"1:{n}" for n in range(5)]
    group.pause(1)
    await group.rewind(1)
    assert list(await group.batch(timeout_s=0.3)) == []
    group.resume(1)
    assert texts(await read(group, 5)) == [f"1:{n}" for n in range(5)]


@pytest.mark.parametrize("place", ["kafka"], indirect=True)
@pytest.mark.parametrize("what", ["rewind", "pause"])
async def test_what_was_fetched_before_a_rewind_or_pause_does_not_come_after_it(
    log: Log, join: Join, what: str
) -> None:
    """A poll outlives the call of `batch` that began it. A reader that got its records now would take what lies
    between the rewound position and them for read, and so lose it."""
    group = group_of(await join(poll=False))
    assert isinstance(group, KafkaGroup)
    await write(log, [record(0, str(n)) for n in range(5)])
    await read(group, 5)
    # What `batch` leaves behind when its time is over, as in a rebalance.
    group._polling = asyncio.create_task(group._consumer.getmany(timeout_ms=20_000))
    await write(log, [record(0, str(n)) for n in range(5, 10)])
    await asyncio.wait({group._polling}, timeout=LIMIT_S)
    fetched = [r.offset for batch in group._polling.result().values() for r in batch]
    if what == "rewind":
        await group.rewind(0)
        assert texts(await read(group, 10)) == [str(n) for n in range(10)]
    else:
        group.pause(0)
        assert list(await group.batch(timeout_s=0.3)) == []
        group.resume(0)
        assert texts(await read(group, 5)) == [str(n) for n in range(5, 10)]
    assert fetched[0] == 5


@pytest.mark.parametrize("place", ["kafka"], indirect=True)
async def test_a_header_without_a_value_reads_as_an_empty_one(place: Place, log: Log, join: Join) -> None:
    """Any producer may write to `parley.commands`; the port knows only headers with a value."""
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=place.bootstrap)
    await producer.start()
    try:
        await producer.send_and_wait(
            place.prefix + TOPIC, b"x", partition=0, headers=[("none", None), ("some", b"value")]
        )
    finally:
        await producer.stop()
    [found] = await read(group_of(await join(poll=False)), 1)
    assert found.headers == (("none", b""), ("some", b"value"))


async def test_a_member_that_leaves_twice_or_after_its_log_does_not_hang(place: Place, join: Join) -> None:
    member = await join(poll=False)
    group = group_of(member)
    async with asyncio.timeout(LIMIT_S):
        await group.close()
        await group.close()
    other = await join("other", poll=False)
    async with asyncio.timeout(LIMIT_S):
        await place.log.close()
        await group_of(other).close()
    other.group = None
