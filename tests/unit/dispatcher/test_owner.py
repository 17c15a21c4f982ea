"""Deciding on a real log: order, loading, what was read back, what is refused, and what is held in memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from parley_dispatcher.decide import decide
from parley_dispatcher.owner import Owner
from parley_dispatcher.state import State
from parley_events import commands as c
from parley_events import facts as f
from parley_events.body import Author
from parley_events.codec import COMMANDS_TOPIC, MAX_VALUE_BYTES, Command, Fact, encode_command
from parley_events.log import Incoming, Outgoing
from parley_events.topics import MAX_RECORD_BYTES
from tests.unit.dispatcher.world import (
    ANN,
    LIMIT_S,
    PARTITIONS,
    Gate,
    World,
    command,
    eventually,
    new_thread,
    post,
    run_id,
    within,
)


async def stored(world: World, stream: str, count: int) -> None:
    """Until history has that many facts of the stream."""
    async with asyncio.timeout(LIMIT_S), world.history.grown:
        await world.history.grown.wait_for(lambda: len(world.history.facts.get(stream, [])) >= count)


async def rejected(world: World, count: int = 1) -> list[Incoming]:
    tail = await world.log.tail("parley.rejected", dict.fromkeys(range(PARTITIONS), 0))
    found: list[Incoming] = []
    async with asyncio.timeout(LIMIT_S):
        while len(found) < count:
            found += await tail.batch()
    await tail.close()
    return found


# ---- order


async def test_the_commands_of_a_thread_are_decided_in_the_order_of_the_log(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        asked = [await world.put(thread, post(f"/text {n}")) for n in range(20)]
        await world.read.ended(thread, 20)
    posted = [fact for fact in world.read.facts if isinstance(fact.body, f.MessagePosted)]
    assert [fact.causation_id for fact in posted] == asked
    assert [fact.body.disposition for fact in posted if isinstance(fact.body, f.MessagePosted)] == [
        "started",
        *["queued"] * 19,
    ]
    answers = [body.blocks[0].text for body in world.read.of(thread, f.ModelReturned)]
    assert answers == [str(n) for n in range(20)]


async def test_a_slow_load_of_one_thread_holds_up_no_other_and_loses_no_order(world: World) -> None:
    slow, quick = new_thread(0), new_thread(0)
    world.history.slow[slow] = Gate()
    world.history.slow[slow].close()
    async with world.dispatcher():
        first = [await world.put(slow, post(f"/text {n}")) for n in range(3)]
        await world.ask(quick, post("/text quick"))
        await world.read.ended(quick)
        assert world.read.of(slow) == []
        world.history.slow[slow].open()
        await world.read.ended(slow, 3)
    causes = [fact.causation_id for fact in world.read.facts if fact.stream == slow and fact.causation_id]
    assert causes == first


async def test_a_fresh_thread_needs_no_load(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        await world.ask(thread, post("/text warm up", agent_id="assistant"))
        await world.read.ended(thread)
        world.history.away = True
        world.history.asked.clear()
        fresh = new_thread()
        await world.ask(fresh, post("/text hello", agent_id="assistant"), fresh=True)
        await world.read.ended(fresh)
    assert not any(fresh in path for path in world.history.asked)


async def test_a_command_from_before_the_claim_is_loaded_for_whatever_it_says_of_itself(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        first = await world.put(thread, post("/text hello"), fresh=True)
        await world.read.ended(thread)
    await world.put(thread, post("/text hello"), first, fresh=True)
    async with world.dispatcher():
        await world.read.outcome(first, 2)
    kinds = [body.type for body in world.read.outcomes(first)]
    assert kinds[0] == "message.posted"
    assert set(kinds[1:]) == {"command.repeated"}


# ---- finished means read back


async def test_an_offset_is_committed_only_once_the_outcome_was_read_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_dispatcher.worker._COMMIT_S", 0.01)
    thread = new_thread(0)
    async with world.dispatcher() as dispatcher:
        await world.ask(thread, post("/text one"))
        await eventually(lambda: any(commit.get(0) == 1 for commit in dispatcher.log.commits))
        dispatcher.log.own_tail.close()
        await world.ask(thread, post("/text two"))
        await world.read.ended(thread, 2)
        owner = dispatcher.owner(thread)
        assert (owner.next_command, owner.watermark()) == (2, 1)
        await world.ask(new_thread(0), post("/text three"))
        assert owner.watermark() == 1
        dispatcher.log.own_tail.open()
        await eventually(lambda: any(commit.get(0) == 3 for commit in dispatcher.log.commits))
    assert all(commit.get(0, 0) in (0, 1, 2, 3) for commit in dispatcher.log.commits)


async def test_a_command_whose_thread_is_still_loading_holds_the_offset_back(world: World) -> None:
    slow, quick = new_thread(0), new_thread(0)
    world.history.slow[slow] = Gate()
    world.history.slow[slow].close()
    async with world.dispatcher() as dispatcher:
        await world.put(slow, post("/text slow"))
        await world.ask(quick, post("/text quick"))
        await world.read.ended(quick)
        assert dispatcher.owner(slow).watermark() == 0
        world.history.slow[slow].open()
        await eventually(lambda: dispatcher.owner(slow).watermark() == 2)


# ---- what cannot be decided


async def test_a_record_that_is_no_command_goes_to_rejected_with_its_bytes_and_the_partition_goes_on(
    world: World,
) -> None:
    thread = new_thread(0)
    async with world.dispatcher() as dispatcher:
        await world.send(Outgoing(COMMANDS_TOPIC, 0, b"\xff\x00", b"garbage", (("mine", b"\x80"),)))
        await world.ask(thread, post("/text still here"))
        [record] = await rejected(world)
        await eventually(lambda: dispatcher.owner(thread).watermark() == 2)
    assert (record.key, record.value, record.header("mine")) == (b"\xff\x00", b"garbage", b"\x80")
    assert record.header("rejected_reason") == b"undecodable"
    assert record.header("rejected_message")
    assert (record.header("rejected_partition"), record.header("rejected_offset")) == (b"0", b"0")


async def test_a_command_in_the_wrong_partition_goes_to_rejected_whole(world: World) -> None:
    astray, thread = new_thread(1), new_thread(0)
    right = encode_command(command(astray, post("/text hello")), PARTITIONS)
    async with world.dispatcher():
        await world.send(Outgoing(COMMANDS_TOPIC, 0, right.key, right.value, right.headers))
        await world.ask(thread, post("/text still here"))
        [record] = await rejected(world)
    assert (record.header("rejected_reason"), record.value) == (b"wrong_partition", right.value)
    assert world.read.of(astray) == []


async def test_garbage_as_large_as_the_log_takes_is_kept_in_part_and_stops_nobody(world: World) -> None:
    thread = new_thread(0)
    async with world.dispatcher():
        await world.send(Outgoing(COMMANDS_TOPIC, 0, None, b"x" * MAX_RECORD_BYTES))
        await world.ask(thread, post("/text still here"))
        [record] = await rejected(world)
    assert record.header("rejected_reason") == b"undecodable"
    assert record.value == b"x" * 1024 * 1024


@pytest.mark.parametrize("name", ["ce_correlationid", "ce_traceparent", "ce_bodyhash"])
async def test_a_header_that_would_not_fit_its_outcome_is_refused(world: World, name: str) -> None:
    thread = new_thread(0)
    record = encode_command(command(thread, post("/text hello")), PARTITIONS)
    huge = Outgoing(COMMANDS_TOPIC, 0, record.key, record.value, (*record.headers, (name, b"x" * 100_000)))
    async with world.dispatcher():
        await world.send(huge)
        [found] = await rejected(world)
        await world.ask(thread, post("/text still here"))
    assert found.header("rejected_reason") == b"undecodable"


async def test_a_command_that_breaks_deciding_gets_an_outcome_and_the_thread_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = new_thread()

    def broken(state: State, asked: Command, version: int | None) -> f.FactBody:
        if isinstance(asked.body, c.MarkRead):
            raise RuntimeError("a mistake in decide")
        return decide(state, asked, version)

    monkeypatch.setattr("parley_dispatcher.owner.decide", broken)
    async with world.dispatcher() as dispatcher:
        await world.ask(thread, post("/text one"))
        outcome = await world.ask(thread, c.MarkRead(principal=ANN, up_to=1))
        assert (outcome.type, outcome.code) == ("command.rejected", "poison")
        assert (await world.ask(thread, post("/text two"))).type == "message.posted"
        await eventually(lambda: dispatcher.owner(thread).watermark() == 3)


async def test_an_outcome_that_is_too_large_is_refused_and_takes_no_number(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        # The largest body that a command can have: its outcome carries ids beside it.
        room = MAX_VALUE_BYTES - len(post("x", author=Author(id="")).model_dump_json())
        body = post("x", author=Author(id="x" * room))
        outcome = await world.ask(thread, body)
        assert (outcome.type, outcome.code) == ("command.rejected", "too_large")
        await world.ask(thread, post("/text fits"))
        await world.read.ended(thread)
    assert [fact.seq for fact in world.read.facts if fact.stream == thread][:3] == [None, 1, 2]


# ---- loading


async def test_an_answer_older_than_the_window_is_not_taken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The load is answered, then history moves on and the window is cut, then the answer arrives: without the
    thread's newest facts, and nothing after them shows the hole."""
    monkeypatch.setattr("parley_dispatcher.worker._POSITIONS_S", 0.01)
    thread = new_thread(0)
    async with world.dispatcher() as dispatcher:
        await world.ask(thread, post("/text one"))
        await world.read.ended(thread)
        await stored(world, thread, 4)
        world.history.taking.close()
        first = await world.put(thread, post("/text two"))
        await world.read.ended(thread, 2)
        owner = dispatcher.owner(thread)
        forget(dispatcher.owner(thread), thread)
        world.history.late[thread] = Gate()
        world.history.late[thread].close()
        world.history.asked.clear()
        third = await world.put(thread, post("/text three"))
        await eventually(lambda: any(thread in path for path in world.history.asked))
        world.history.taking.open()
        await eventually(lambda: owner._window.start >= 9)
        world.history.late[thread].open()
        await world.read.ended(thread, 3)
    assert (await world.read.outcome(first)).type == (await world.read.outcome(third)).type == "message.posted"
    assert [fact.seq for fact in world.read.facts if fact.stream == thread] == list(range(1, 13))


def forget(owner: Owner, stream: str) -> None:
    """As if the thread had been evicted."""
    owner.states.let_go(stream)


async def test_a_hole_between_the_answer_and_the_window_is_loaded_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_dispatcher.worker._POSITIONS_S", 60.0)
    thread = new_thread(0)
    async with world.dispatcher() as dispatcher:
        await world.ask(thread, post("/text one"))
        await world.read.ended(thread)
        owner = dispatcher.owner(thread)
        await eventually(lambda: owner.read_to >= 5)
        # History still has nothing of it; the window has lost its first facts.
        kept, world.history.facts[thread] = world.history.facts[thread], []
        window = owner._window._streams[thread]
        window.popleft()
        forget(owner, thread)
        asked = await world.put(thread, post("/text two"))
        await eventually(lambda: sum(thread in path for path in world.history.asked) >= 3)
        assert world.read.outcomes(asked) == []
        world.history.facts[thread] = kept
        await world.read.ended(thread, 2)
    assert [fact.seq for fact in world.read.facts if fact.stream == thread] == list(range(1, 9))


async def test_a_thread_is_loaded_as_what_history_answers_and_the_window_beyond_it(world: World) -> None:
    thread = new_thread(0)
    async with world.dispatcher() as dispatcher:
        await world.ask(thread, post("/text one"))
        await world.read.ended(thread)
        await stored(world, thread, 4)
        world.history.taking.close()
        await world.ask(thread, post("/text two"))
        await world.read.ended(thread, 2)
        await eventually(lambda: dispatcher.owner(thread).read_to >= 9)
        forget(dispatcher.owner(thread), thread)
        await world.ask(thread, post("/show messages"))
        await world.read.ended(thread, 3)
        [block] = world.read.of(thread, f.ModelReturned)[-1].blocks
        assert all(f"/text {word}" in block.text for word in ("one", "two"))


async def test_numbers_beyond_64_bits_come_back_as_they_were(world: World) -> None:
    thread, number = new_thread(), 10**30
    async with world.dispatcher():
        await world.ask(thread, post(f'/tool echo {{"n": {number}}}'))
        await world.read.ended(thread)
        await stored(world, thread, 8)
    async with world.dispatcher():
        await world.ask(thread, post("/show messages"))
        await world.read.ended(thread, 2)
    assert str(number) in world.read.of(thread, f.ModelReturned)[-1].blocks[0].text


async def test_a_window_over_its_limit_pauses_the_partition_until_history_has_caught_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_dispatcher.worker._POSITIONS_S", 0.01)
    thread, other = new_thread(0), new_thread(0)
    async with world.dispatcher() as dispatcher:
        await world.ask(new_thread(0), post("/text warm up"))
        world.history.taking.close()
        owner = dispatcher.owner(thread)
        limit = 200_000
        monkeypatch.setattr(owner, "_world", replace(owner._world, window_bytes=limit))
        await world.ask(thread, post("x" * limit))
        await eventually(lambda: 0 in dispatcher.worker._paused)
        late = await world.put(other, post("/text late"))
        await world.ask(new_thread(1), post("/text another partition goes on"))
        assert world.read.outcomes(late) == []
        world.history.taking.open()
        assert (await world.read.outcome(late)).type == "message.posted"


# ---- memory


async def test_a_full_cache_lets_go_of_what_rests_and_never_of_what_is_used(world: World) -> None:
    threads = [new_thread(0) for _ in range(6)]
    async with world.dispatcher(cache_mb=0) as dispatcher:
        for number in range(2):
            for thread in threads:
                await world.ask(thread, post(f"/text {number}\n/tool clock"), fresh=number == 0)
            for thread in threads:
                await world.read.ended(thread, number + 1)
        owner = dispatcher.owner(threads[0])
        await eventually(lambda: owner.read_to == world.log._parts[("parley.events", 0)].next)
        await world.ask(threads[0], c.MarkRead(principal=ANN, up_to=1))
        assert len(owner.states.held) <= 2
        assert owner.states.size == sum(owner.states.sizes.values())
        assert set(owner.states.sizes) == set(owner.states.read) == set(owner.states.held)
    for thread in threads:
        seqs = [fact.seq for fact in world.read.facts if fact.stream == thread and fact.seq]
        assert seqs[:16] == list(range(1, 17))


async def test_the_cache_is_that_of_all_partitions_together(world: World) -> None:
    threads = [new_thread(number % PARTITIONS) for number in range(4 * PARTITIONS)]
    async with world.dispatcher(cache_mb=1) as dispatcher:
        for thread in threads:
            await world.ask(thread, post("/text " + "x" * 50_000), fresh=True)
            await world.read.ended(thread)
        owners = [dispatcher.owner(thread) for thread in threads[:PARTITIONS]]
        for owner in owners:
            await within(owner.look())  # what was not read back yet is not let go of
        largest = max(size for owner in owners for size in owner.states.sizes.values())
        assert largest > 200_000
        # The thread that is being used stays, in each.
        assert sum(owner.states.size for owner in owners) <= 1024 * 1024 + PARTITIONS * largest < 8 * 1024 * 1024


async def test_what_runs_say_counts_as_held(world: World) -> None:
    thread = new_thread(0)
    async with world.dispatcher() as dispatcher:
        await world.ask(thread, post("/text " + "x" * 50_000), fresh=True)
        await world.read.ended(thread)
        owner = dispatcher.owner(thread)
        assert owner.states.size == owner.states.held[thread].size > 200_000


# ---- who is asked about agents


async def test_without_a_version_the_newest_one_answers_and_an_unknown_agent_is_refused(world: World) -> None:
    async with world.dispatcher():
        found = await world.ask(new_thread(), post("/text hi", agent_version=None))
        assert (found.agent_id, found.agent_version) == ("scripted", 1)
        missing = await world.ask(new_thread(), post("/text hi", agent_id="nobody", agent_version=None))
        assert (missing.type, missing.code) == ("command.rejected", "unknown_agent")


async def test_while_history_is_away_known_threads_go_on_and_others_wait(world: World) -> None:
    known, other = new_thread(), new_thread()
    async with world.dispatcher():
        await world.ask(known, post("/text one"))
        await world.read.ended(known)
        world.history.away = True
        await world.ask(known, post("/text two"))
        await world.read.ended(known, 2)
        late = await world.put(other, post("/text late"))
        await world.ask(known, post("/text three"))
        assert world.read.outcomes(late) == []
        world.history.away = False
        assert (await world.read.outcome(late)).type == "message.posted"


async def test_an_outcome_carries_what_the_command_said_of_itself(world: World) -> None:
    thread = new_thread()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with world.dispatcher():
        asked = await world.put(thread, post("/text x"), body_hash="h", correlation_id="corr", traceparent=trace)
        await world.read.ended(thread)
    facts: list[Fact] = [fact for fact in world.read.facts if fact.stream == thread]
    first, *rest = facts
    assert (first.causation_id, first.body_hash, first.correlation_id, first.traceparent) == (asked, "h", "corr", trace)
    assert first.run_id == run_id(thread, asked)
    assert all(fact.run_id == first.run_id and fact.traceparent == trace for fact in rest)
    assert all(fact.correlation_id == asked and fact.causation_id is None for fact in rest)
