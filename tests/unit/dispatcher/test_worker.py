"""Claims on a real log: who may write, what is lost at once, what a new owner takes over, and how one leaves."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from parley_dispatcher.errors import NotOwner
from parley_events import facts as f
from parley_events.codec import EVENTS_TOPIC
from parley_events.errors import LogUnavailable
from tests.unit.dispatcher.world import (
    LIMIT_S,
    PARTITIONS,
    Gate,
    GatedLog,
    HeldModel,
    World,
    eventually,
    new_thread,
    post,
    within,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits and claims are tried again soon."""
    monkeypatch.setattr("parley_dispatcher.worker._COMMIT_S", 0.02)
    monkeypatch.setattr("parley_dispatcher.worker._POSITIONS_S", 0.02)
    monkeypatch.setattr("parley_dispatcher.worker._RECLAIM_S", 0.02)


def claims(world: World, partition: int) -> list[str]:
    """Who claimed the partition, in order."""
    return [
        fact.body.owner
        for record, fact in world.read.all
        if isinstance(fact.body, f.PartitionClaimed) and record.partition == partition
    ]


async def shown(world: World) -> None:
    """Until the reader has seen all that is on the log now."""
    ends = await world.log.ends(EVENTS_TOPIC)
    await world.read.until(lambda: len(world.read.all) >= sum(ends.values()))


# ---- claims


async def test_every_partition_is_claimed_once_at_the_start(world: World) -> None:
    async with world.dispatcher() as dispatcher:
        await shown(world)
        assert [len(claims(world, p)) for p in range(PARTITIONS)] == [1, 1]
        assert {p: owner.epoch for p, owner in dispatcher.worker.owners.items()} == {0: 0, 1: 0}


async def test_the_own_tail_is_read_now_and_then_and_at_once_where_someone_waits_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claims and a step that cannot be taken back wait for it; what nobody waits for is gathered."""
    monkeypatch.setattr("parley_dispatcher.worker._GATHER_S", 600.0)
    thread = new_thread(0)
    async with world.dispatcher() as dispatcher:
        owner = dispatcher.worker.owners[0]
        await world.ask(thread, post('/tool append_line {"file": "effects", "line": "once"}'))
        await world.read.ended(thread)
        assert (world.folder / "effects" / "effects").read_text().count("once") == 1
        assert not owner.settled and not owner.awaits, "nobody waits for the end of the run"
        await within(owner.look())
        assert owner.settled


async def test_a_foreign_claim_takes_everything_away_at_once(world: World) -> None:
    thread = new_thread(0)
    async with world.dispatcher() as dispatcher:
        asked = await world.put(thread, post("/text a\n/wait 600000"))
        await world.read.wait_for(thread, f.ModelCalled)
        owner, state = dispatcher.owner(thread), dispatcher.owner(thread).states.held[thread]
        [task] = owner.running.values()
        dispatcher.log.own_tail.close()
        unread = owner.append(state, f.ThreadRead(user_id="ann", up_to=1))
        waiting = asyncio.create_task(owner.read_back(unread))
        await asyncio.sleep(0)
        await world.claim(0)
        held = len(world.read.all)
        dispatcher.log.own_tail.open()
        # What was read back before the newer claim counts; nothing after it.
        with contextlib.suppress(NotOwner):
            await within(waiting)
        await eventually(lambda: owner.closed)
        await within(asyncio.wait([task]))
        with pytest.raises(NotOwner):
            owner.append(state, f.ThreadRead(user_id="ann", up_to=2))
        with pytest.raises(NotOwner):
            await owner.read_back(unread)
        assert owner.states.held == {} and owner.watermark() == -1
        mine = [fact for record, fact in world.read.all[held:] if fact.epoch == owner.epoch and fact.stream]
        assert [fact.type for fact in mine] in ([], ["thread.read"])
        # The group still says that it is ours: it is claimed anew, and the run goes on.
        await eventually(lambda: dispatcher.worker.ready and 0 in dispatcher.worker.owners)
        await world.read.wait_for(thread, f.ModelCalled, count=2)
        assert len(world.read.outcomes(asked)) >= 1


async def test_whoever_waits_for_a_read_back_learns_that_it_is_not_ours_any_more(world: World) -> None:
    thread = new_thread(0)
    async with world.dispatcher() as dispatcher:
        await world.ask(thread, post("/text a"))
        await world.read.ended(thread)
        owner = dispatcher.owner(thread)
        await eventually(lambda: owner.read_to == 5)
        state = owner.states.held[thread]
        dispatcher.log.own_tail.close()
        await world.claim(0)
        late = owner.append(state, f.ThreadRead(user_id="ann", up_to=1))
        waiting = asyncio.create_task(owner.read_back(late))
        await asyncio.sleep(0)
        dispatcher.log.own_tail.open()
        with pytest.raises(NotOwner):
            await within(waiting)
        await shown(world)
    assert world.read.of(thread, f.ThreadRead) == []


async def test_what_a_superseded_owner_writes_is_never_believed_and_never_finished(world: World) -> None:
    """Two that both believe they own a partition: the first is cut off from its tail, and goes on writing."""
    stale_log = GatedLog(world.log)
    thread = new_thread(0)
    async with world.dispatcher(log=stale_log, group="stale") as stale:
        await world.ask(thread, post("/text one"))
        await world.read.ended(thread)
        stale_log.own_tail.close()
        async with world.dispatcher(group="newer") as newer:
            asked = await world.put(thread, post("/text two"))
            await world.read.ended(thread, 2)
            await eventually(lambda: newer.owner(thread).watermark() == 2)
            await shown(world)
            both = [fact for _, fact in world.read.all if fact.causation_id == asked]
            assert [fact.type for fact in both] == ["message.posted"] * 2
            assert len(world.read.outcomes(asked)) == 1
            assert stale.owner(thread).watermark() == 1
            assert len({fact.epoch for fact in both}) == 2


async def test_what_a_superseded_owner_wrote_is_no_part_of_a_thread_that_is_loaded(world: World) -> None:
    stale_log = GatedLog(world.log)
    thread = new_thread(0)
    async with world.dispatcher(log=stale_log, group="stale") as stale:
        await world.ask(thread, post("/text one"))
        await world.read.ended(thread)
        stale_log.own_tail.close()
        async with world.dispatcher(group="newer") as newer:
            world.history.taking.close()
            late = stale.owner(thread).append(stale.owner(thread).states.held[thread], f.ThreadDeleted())
            await shown(world)
            await world.ask(thread, post("/text two"))
            await world.read.ended(thread, 2)
            owner = newer.owner(thread)
            await eventually(lambda: owner.read_to == world.log._parts[(EVENTS_TOPIC, 0)].next)
            del owner.states.held[thread]
            outcome = await world.ask(thread, post("/show messages"))
            assert (late.seq, outcome.type) == (5, "message.posted")
            await world.read.ended(thread, 3)
            assert "/text two" in world.read.of(thread, f.ModelReturned)[-1].blocks[0].text


async def test_a_foreign_claim_during_the_last_step_of_a_claim_is_noticed(world: World) -> None:
    log = GatedLog(world.log)
    log.commands_ends.close()
    async with world.dispatcher(log=log, wait=False) as dispatcher:
        await within(log.ends_asked.wait())
        owner = dispatcher.worker.owners[0]
        await world.claim(0)
        await eventually(lambda: owner.read_to >= 2)
        log.commands_ends.open()
        thread = new_thread(0)
        await world.ask(thread, post("/text one"))
        await world.read.ended(thread)
        assert owner.closed and dispatcher.worker.owners[0] is not owner


async def test_a_partition_that_stays_is_not_claimed_again_and_its_runs_go_on(world: World) -> None:
    thread, model = new_thread(0), HeldModel()
    async with world.dispatcher(providers={"scripted": model}) as first:
        await world.ask(thread, post("/text a HOLD b"))
        await within(model.holding.wait())
        epoch, kept = first.owner(thread).epoch, first.owner(thread)
        async with world.dispatcher():
            # The embedded group gives every second partition to the second member.
            assert set(first.worker.owners) == {0}
            model.gate.open()
            await world.read.ended(thread)
            await world.ask(new_thread(1), post("/text elsewhere"))
        await eventually(lambda: set(first.worker.owners) == {0, 1} and first.worker.ready)
        await world.ask(thread, post("/text c"))
        await world.read.ended(thread, 2)
        assert first.owner(thread) is kept and kept.epoch == epoch
        await shown(world)
    assert [len(claims(world, p)) for p in range(PARTITIONS)] == [1, 3]
    assert len(world.read.of(thread, f.ModelCalled)) == 2


async def test_commands_read_again_after_a_rebalance_are_decided_once(world: World) -> None:
    threads = [new_thread(p) for p in (0, 1)]
    async with world.dispatcher(), world.dispatcher():
        asked = [await world.put(thread, post("/text x")) for thread in threads for _ in range(5)]
        async with world.dispatcher():
            for thread in threads:
                await world.read.ended(thread, 5)
    for command_id in asked:
        kinds = [body.type for body in world.read.outcomes(command_id)]
        assert kinds[0] == "message.posted"
        assert set(kinds[1:]) <= {"command.repeated"}
    assert all(len(world.read.of(thread, f.MessagePosted)) == 5 for thread in threads)


async def test_a_claim_that_was_given_away_before_it_began_claims_nothing(world: World) -> None:
    """History is away, so the claim waits; the partition goes to another; then history is back."""
    world.history.away = True
    async with world.dispatcher(wait=False) as first:
        waiting = first.worker.owners[1]
        async with world.dispatcher(wait=False) as second:
            await eventually(lambda: set(second.worker.owners) == {1})
            world.history.away = False
            await eventually(lambda: second.worker.ready and first.worker.ready)
            await eventually(lambda: not first.worker._claims)
            assert waiting.closed and waiting.epoch == -1
            await shown(world)
            assert len(claims(world, 1)) == 1


async def test_a_claim_of_unknown_outcome_is_given_up_with_the_partition(world: World) -> None:
    """The acknowledgement of the claim never comes; the partition is given away; nothing waits for ever."""
    async with world.dispatcher() as first:
        sender = first.worker._world.sender
        producer, sender._producer = sender._producer, None
        async with world.dispatcher():
            pass
        await eventually(lambda: 1 in first.worker.owners and first.worker.owners[1]._claimed is not None)
        first.worker._release(1)
        await eventually(lambda: not first.worker._claims)
        sender._producer = producer


async def test_a_partition_lost_to_a_stale_claim_is_read_again_from_what_was_finished(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands that were decided under the lost claim, or came in between, are decided under the new one."""
    monkeypatch.setattr("parley_dispatcher.worker._RECLAIM_S", 0.15)
    thread = new_thread(0)
    async with world.dispatcher() as dispatcher:
        first = await world.put(thread, post("/text one"))
        await world.read.ended(thread)
        await eventually(lambda: any(commit.get(0) == 1 for commit in dispatcher.log.commits))
        dispatcher.log.own_tail.close()
        await world.claim(0)
        lost = await world.put(thread, post("/text two"))
        await eventually(lambda: dispatcher.owner(thread).next_command == 2)
        dispatcher.log.own_tail.open()
        await eventually(lambda: 0 not in dispatcher.worker.owners)
        between = await world.put(thread, post("/text three"))
        await world.read.ended(thread, 3)
        await eventually(lambda: dispatcher.owner(thread).watermark() == 3)
    assert [body.type for body in world.read.outcomes(first)] == ["message.posted"]
    for asked in (lost, between):
        assert [body.type for body in world.read.outcomes(asked)] == ["message.posted"]


async def test_a_partition_that_cannot_be_read_again_yet_is_tried_until_it_can(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = new_thread(0)
    async with world.dispatcher() as dispatcher:
        [group] = dispatcher.log.groups
        rewind, failures = group.rewind, [LogUnavailable("away"), LogUnavailable("away")]

        async def failing(partition: int) -> None:
            if failures:
                raise failures.pop()
            await rewind(partition)

        monkeypatch.setattr(group, "rewind", failing)
        await world.claim(0)
        await world.ask(thread, post("/text on"))
        assert failures == []


# ---- taking over


async def test_a_takeover_with_history_behind_loses_nothing_and_repeats_nothing(world: World) -> None:
    threads = [new_thread(0) for _ in range(3)]
    async with world.dispatcher():
        for thread in threads:
            await world.ask(thread, post("/text one\n/tool clock"))
            await world.read.ended(thread)
        world.history.taking.close()
        asked = [await world.put(thread, post("/text two\n/wait 600000")) for thread in threads]
        for thread in threads:
            await world.read.wait_for(thread, f.ModelCalled, count=3)
    first = await world.put(threads[0], post("/text two\n/wait 600000"), asked[0])
    async with world.dispatcher() as dispatcher:
        for thread in threads:
            # The unfinished call is made anew, with the next attempt.
            again = await world.read.wait_for(thread, f.ModelCalled, count=4)
            assert (again.turn, again.attempt) == (0, 2)
        await world.read.until(lambda: len(world.read.outcomes(first)) >= 2)
        assert {body.type for body in world.read.outcomes(first)[1:]} == {"command.repeated"}
        assert dispatcher.owner(threads[0])._window.size > 0
        world.history.taking.open()
        await eventually(lambda: dispatcher.owner(threads[0])._window.size == 0)
    for thread in threads:
        assert len(world.read.of(thread, f.MessagePosted)) == 2
        assert len(world.read.of(thread, f.ToolCalled)) == 1


async def test_what_a_claim_finds_active_is_loaded_a_few_threads_at_a_time(world: World) -> None:
    world.history.taking.close()
    threads = [new_thread(0) for _ in range(40)]
    async with world.dispatcher():
        for thread in threads:
            await world.ask(thread, post("/text one"))
            await world.read.ended(thread)
    for thread in threads:
        world.history.slow[thread] = Gate()
        world.history.slow[thread].close()
    world.history.asked.clear()

    def asked() -> int:
        return sum(f"streams/{thread}/facts" in world.history.asked for thread in threads)

    async with world.dispatcher() as dispatcher:
        await eventually(lambda: asked() == 16)
        other = new_thread(1)
        await world.ask(other, post("/text elsewhere"))
        await world.read.ended(other)
        assert asked() == 16
        for thread in threads:
            world.history.slow[thread].open()
        await eventually(lambda: dispatcher.owner(threads[0]).states.held.keys() >= set(threads))


async def test_a_run_that_was_posted_and_never_begun_is_begun_by_the_next_owner(world: World) -> None:
    thread, queued = new_thread(0), new_thread(0)
    async with world.dispatcher() as dispatcher:
        await world.ask(queued, post("/text a\n/wait 600000"))
        await world.read.wait_for(queued, f.ModelCalled)
        await world.ask(queued, post("/text b"))
        dispatcher.runner.draining = True
        await world.ask(thread, post("/text a"))
    assert world.read.of(thread, f.ModelCalled) == []
    async with world.dispatcher():
        assert (await world.read.ended(thread)).type == "run.completed"
        assert (await world.read.wait_for(queued, f.ModelCalled, count=2)).attempt == 2


async def test_completed_turns_and_tool_calls_are_not_repeated_by_the_next_owner(world: World) -> None:
    thread = new_thread(0)
    line = '/tool append_line {"file": "effects", "line": "once"}'
    model = HeldModel()
    async with world.dispatcher(providers={"scripted": model}):
        await world.ask(thread, post(f"/text one\n{line}\n/text two\n/tool clock\n/text three\n/text HOLD"))
        await within(model.holding.wait())
        await world.read.wait_for(thread, f.ModelCalled, count=3)
    async with world.dispatcher():
        end = await world.read.ended(thread)
    assert end.type == "run.completed"
    turns = world.read.of(thread, f.ModelReturned)
    assert ["".join(b.text for b in turn.blocks if b.kind == "text") for turn in turns] == ["one", "two", "threeHOLD"]
    assert [(called.turn, called.attempt) for called in world.read.of(thread, f.ModelCalled)] == [
        (0, 1),
        (1, 1),
        (2, 1),
        (2, 2),
    ]
    assert len(world.read.of(thread, f.ToolCalled)) == len(world.read.of(thread, f.ToolReturned)) == 2
    assert (world.folder / "effects" / "effects").read_text().count("once") == 1


async def test_a_tool_that_was_called_and_did_not_return_is_recorded_as_unknown_and_never_called_again(
    world: World,
) -> None:
    thread = new_thread(0)
    script = '/tool append_line {"file": "effects", "line": "once"}\n/show messages'
    async with world.dispatcher() as dispatcher:
        dispatcher.log.own_tail.close()
        await world.ask(thread, post(script))
        called = await world.read.wait_for(thread, f.ToolCalled)
    async with world.dispatcher():
        assert (await world.read.ended(thread)).type == "run.completed"
    [returned] = world.read.of(thread, f.ToolReturned)
    assert (returned.status, returned.tool_call_id) == ("unknown", called.tool_call_id)
    assert len(world.read.of(thread, f.ToolCalled)) == 1
    assert not (world.folder / "effects").exists()
    assert "outcome of this call is unknown" in world.read.of(thread, f.ModelReturned)[-1].blocks[0].text


async def test_a_read_only_tool_that_did_not_return_is_called_again_under_the_same_intent(world: World) -> None:
    thread = new_thread(0)
    async with world.dispatcher():
        await world.ask(thread, post('/tool sleep {"ms": 600000}\n/text done'))
        await world.read.wait_for(thread, f.ToolCalled)
    async with world.dispatcher(tool_timeout_s=0.05):
        await world.read.ended(thread)
    assert len(world.read.of(thread, f.ToolCalled)) == 1
    [returned] = world.read.of(thread, f.ToolReturned)
    assert (returned.status, returned.result) == ("error", "The tool did not answer within 0.05 s.")


async def test_an_agent_that_was_asked_goes_on_inside_its_own_run(world: World) -> None:
    thread, model = new_thread(0), HeldModel()
    question = "/text first\\n/tool clock\\n/text second HOLD"
    script = f'/tool ask_agent {{"agent_id": "assistant", "message": "{question}"}}\n/text done'
    async with world.dispatcher(providers={"scripted": model}):
        await world.ask(thread, post(script))
        await within(model.holding.wait())
        await world.read.wait_for(thread, f.ModelCalled, count=3)
    async with world.dispatcher():
        assert (await world.read.ended(thread, 2)).type == "run.completed"
    assert len(world.read.of(thread, f.ChildStarted)) == 1
    results = {returned.name: returned.result for returned in world.read.of(thread, f.ToolReturned)}
    assert results["ask_agent"] == "second HOLD"
    assert [body.turn for body in world.read.of(thread, f.ModelReturned)] == [0, 0, 1, 1]


async def test_a_run_that_was_being_cancelled_ends_with_its_children_under_the_next_owner(world: World) -> None:
    thread = new_thread(0)
    script = '/tool ask_agent {"agent_id": "assistant", "message": "/wait 600000"}'
    async with world.dispatcher() as dispatcher:
        asked = await world.put(thread, post(script))
        await world.read.wait_for(thread, f.ModelCalled, count=2)
        # It is recorded that the run is to stop, and the process dies before it has.
        dispatcher.runner.draining = True
        run = (await world.read.outcome(asked)).run_id
        owner = dispatcher.owner(thread)
        owner.append(owner.states.held[thread], f.RunCancelling(run_id=run, by="ann"), run_id=run)
    async with world.dispatcher():
        await world.read.ended(thread, 2)
    ends = world.read.of(thread, f.RunCancelled)
    [child] = world.read.of(thread, f.ChildStarted)
    assert [end.run_id for end in ends] == [child.run_id, run]
    assert world.read.of(thread, f.ToolReturned)[0].status == "unknown"
    async with asyncio.timeout(LIMIT_S), world.history.grown:
        await world.history.grown.wait_for(lambda: not world.history._open_runs(thread))


async def test_a_run_that_was_being_cancelled_needs_its_agent_no_more(world: World) -> None:
    thread, model = new_thread(0), HeldModel()
    async with world.dispatcher(providers={"scripted": model}) as dispatcher:
        asked = await world.put(thread, post("/text HOLD"))
        await within(model.holding.wait())
        await eventually(lambda: dispatcher.owner(thread).watermark() == 1)
        dispatcher.runner.draining = True
        run = (await world.read.outcome(asked)).run_id
        owner = dispatcher.owner(thread)
        owner.append(owner.states.held[thread], f.RunCancelling(run_id=run, by="ann"), run_id=run)
    world.history.agents.clear()
    async with world.dispatcher():
        assert (await world.read.ended(thread)).type == "run.cancelled"


# ---- leaving


async def test_a_leaving_dispatcher_finishes_its_step_begins_no_other_and_goes_on_deciding(world: World) -> None:
    thread, other, model = new_thread(0), new_thread(0), HeldModel()
    async with world.dispatcher(drain_s=LIMIT_S, providers={"scripted": model}) as dispatcher:
        await world.ask(thread, post("/text one HOLD\n/tool clock\n/text never here"))
        await within(model.holding.wait())
        leaving = asyncio.create_task(dispatcher.worker.stop())
        await asyncio.sleep(0)
        outcome = await world.ask(other, post("/text decided"))
        assert outcome.type == "message.posted"
        assert not leaving.done()
        model.gate.open()
        await within(leaving)
    await shown(world)
    assert world.read.types(thread) == ["message.posted", "model.called", "model.returned"]
    assert world.read.types(other) == ["message.posted"]
    async with world.dispatcher():
        await world.read.ended(thread)
        await world.read.ended(other)
    assert [called.attempt for called in world.read.of(thread, f.ModelCalled)] == [1, 1]


async def test_a_step_longer_than_the_grace_period_goes_on_elsewhere(world: World) -> None:
    thread = new_thread(0)
    async with world.dispatcher(drain_s=0.05):
        await world.ask(thread, post("/text one\n/wait 600000"))
        await world.read.wait_for(thread, f.ModelCalled)
    assert world.read.types(thread) == ["message.posted", "model.called"]
    async with world.dispatcher():
        assert (await world.read.wait_for(thread, f.ModelCalled, count=2)).attempt == 2


async def test_a_leaving_dispatcher_commits_what_is_finished(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parley_dispatcher.worker._COMMIT_S", 600.0)
    thread = new_thread(0)
    async with world.dispatcher() as dispatcher:
        await world.ask(thread, post("/text one"))
        await world.read.ended(thread)
        await eventually(lambda: dispatcher.owner(thread).watermark() == 1)
    assert dispatcher.log.commits == [{0: 1}]


async def test_who_has_left_claims_nothing_more(world: World) -> None:
    """Others leave at the same time, and the group still gives it their partitions."""
    async with world.dispatcher() as first, world.dispatcher():
        await first.worker.stop()
        await shown(world)
        before = [len(claims(world, p)) for p in range(PARTITIONS)]
        await first.worker._assigned(frozenset(range(PARTITIONS)))
        assert not first.worker._claims
        await shown(world)
        assert [len(claims(world, p)) for p in range(PARTITIONS)] == before


async def test_a_dispatcher_is_ready_once_all_that_it_was_given_is_claimed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_dispatcher.worker._RECLAIM_S", 3600.0)
    world.history.away = True
    async with world.dispatcher(wait=False) as dispatcher:
        assert not dispatcher.worker.ready
        world.history.away = False
        await eventually(lambda: dispatcher.worker.ready)
        await world.claim(0)
        await eventually(lambda: 0 not in dispatcher.worker.owners)
        assert not dispatcher.worker.ready


async def test_a_log_that_takes_nothing_is_no_reason_to_end_the_process(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_dispatcher.worker._BACKLOG_BYTES", -1)
    async with world.dispatcher() as dispatcher:
        polled: set[float] = set()

        def goes_on() -> bool:
            polled.add(dispatcher.worker.polled_at)
            return len(polled) > 3

        await world.put(new_thread(), post("/text x"))
        await eventually(goes_on)


async def test_a_loop_that_dies_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    with pytest.raises(AssertionError, match="commit: a mistake"):
        async with world.dispatcher() as dispatcher:

            def broken() -> int:
                raise RuntimeError("a mistake")

            monkeypatch.setattr(dispatcher.worker.owners[0], "watermark", broken)
            assert dispatcher.worker.failed is not None
            told.append(await within(asyncio.shield(dispatcher.worker.failed)))
            monkeypatch.undo()
    assert told == ["commit: a mistake"]
