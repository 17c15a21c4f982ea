"""What a new owner does with what its predecessor left: commands given a second time, poison, an old look at the tail,
facts that cannot be read; and how a partition is let go of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from parley_dispatcher.app import build
from parley_dispatcher.errors import NotOwner
from parley_dispatcher.owner import Owner
from parley_dispatcher.settings import Settings
from parley_dispatcher.worker import Worker
from parley_events import commands as c
from parley_events import facts as f
from parley_events import ids
from parley_events.body import Author, ThreadSeed
from parley_events.clock import system_clock
from parley_events.codec import EVENTS_TOPIC, Command, Fact, encode_fact
from parley_events.errors import LogUnavailable
from parley_events.log import Incoming
from tests.unit.dispatcher.world import (
    ANN,
    PARTITIONS,
    WORKSPACE,
    Dispatcher,
    Gate,
    GatedLog,
    HeldModel,
    World,
    agent,
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


async def nothing() -> None:
    return None


def forgetful(dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on it commits nothing, as if it died before the next time."""
    monkeypatch.setattr(dispatcher.worker, "_commit_once", nothing)


@asynccontextmanager
async def impatient(world: World, stuck_s: float) -> AsyncIterator[tuple[Worker, GatedLog, list[str]]]:
    """A dispatcher that may end its process: its worker, all claimed; its log; and why it ended, once it has."""
    told: list[str] = []
    log = GatedLog(world.log)
    app = build(
        Settings(data=world.folder, partitions=PARTITIONS, drain_s=0.0, stuck_s=stuck_s),
        log=log,
        history=world.history.client,
        objects=world.objects,
        on_failure=told.append,
    )
    async with app.router.lifespan_context(app):
        worker = app.state.running.worker
        await eventually(lambda: worker.ready)
        yield worker, log, told


async def decided(owner: Callable[[], Owner], upto: int) -> None:
    """Until everything below `upto` is finished."""
    await eventually(lambda: owner().watermark() >= upto)


async def everything(world: World) -> None:
    """Until the reader has seen all that is on the log now."""
    ends = await world.log.ends(EVENTS_TOPIC)
    await world.read.until(lambda: len(world.read.all) >= sum(ends.values()))


def tried(world: World) -> list[tuple[int | None, int]]:
    """Which commands were begun alone, and which attempt it was."""
    return [
        (fact.command_offset, fact.body.attempt) for fact in world.read.facts if isinstance(fact.body, f.CommandTried)
    ]


async def put_tried(world: World, partition: int, epoch: int, offset: int, attempt: int) -> None:
    """A predecessor's note that it begins a command alone."""
    body = f.CommandTried(attempt=attempt)
    fact = Fact(body.type, "", None, epoch, "", system_clock(), body, command_offset=offset)
    await world.send(encode_fact(fact, partition))


async def rejected(world: World) -> list[Incoming]:
    """All that is on `parley.rejected`."""
    ends = await world.log.ends("parley.rejected")
    tail = await world.log.tail("parley.rejected", {p: 0 for p, end in ends.items() if end})
    found: list[Incoming] = []
    while len(found) < sum(ends.values()):
        found += await tail.batch()
    await tail.close()
    return found


# ---- commands given a second time


@pytest.mark.parametrize("history_is", ["ahead of it", "behind"])
async def test_a_refused_command_is_not_decided_again_by_the_next_owner(
    world: World, monkeypatch: pytest.MonkeyPatch, history_is: str
) -> None:
    thread = new_thread(0)
    if history_is == "behind":
        world.history.taking.close()
    async with world.dispatcher() as first:
        forgetful(first, monkeypatch)
        asked = await world.put(thread, post("/text one", agent_id="later", agent_version=None))
        assert (await world.read.outcome(asked)).code == "unknown_agent"
        await decided(lambda: first.owner(thread), 1)
    if history_is == "ahead of it":
        await world.history.reaches(await world.log.ends(EVENTS_TOPIC))
    # It would be decided otherwise now.
    world.history.agents["later"] = agent("later")
    async with world.dispatcher() as second:
        await decided(lambda: second.owner(thread), 1)
        await everything(world)
        assert [body.type for body in world.read.outcomes(asked)] == ["command.rejected"]
        assert tried(world) == []
        world.history.taking.open()
        assert (await world.ask(thread, post("/text two", agent_id="later"))).type == "message.posted"


async def test_every_outcome_stands_when_owners_come_and_go_and_nothing_is_committed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that waits keeps the commit back, through one owner after the other: those behind are decided once."""
    waiting, thread = new_thread(0), new_thread(0)
    world.history.slow[waiting] = Gate()
    world.history.slow[waiting].close()
    asked: list[str] = []
    for turn in range(3):
        async with world.dispatcher() as dispatcher:
            forgetful(dispatcher, monkeypatch)
            if turn == 0:
                asked.append(await world.put(waiting, post("/text at last")))
            asked.append(await world.put(thread, c.DeleteThread(principal=ANN)))  # refused: there is no such thread
            await world.read.outcome(asked[-1])
            await eventually(lambda d=dispatcher: d.owner(thread).next_command == len(asked))  # type: ignore[misc]
    world.history.slow[waiting].open()
    async with world.dispatcher() as last:
        await decided(lambda: last.owner(thread), len(asked))
        await everything(world)
    for command_id in asked:
        assert len(world.read.outcomes(command_id)) == 1, "a command has two outcomes"
    assert tried(world) == [(0, 1)]


async def test_a_superseded_owners_outcomes_finish_nothing(world: World) -> None:
    """What was written under an older claim is not believed, also not as the outcome of a command."""
    thread = new_thread(0)
    old = await world.claim(0, "old")
    await world.claim(0, "new")
    asked = await world.put(thread, post("/text one"))
    body = f.CommandRejected(command_type="message.post", code="invalid", message="a stale word")
    stale = Fact(body.type, thread, None, old, WORKSPACE, system_clock(), body, causation_id=asked, command_offset=0)
    await world.send(encode_fact(stale, 0))
    await world.history.reaches({0: 3})
    async with world.dispatcher():
        assert (await world.read.outcome(asked)).type == "message.posted"


# ---- poison


async def test_a_command_that_was_begun_alone_twice_and_never_decided_is_set_aside_once(world: World) -> None:
    thread, other = new_thread(0), new_thread(0)
    epoch = await world.claim(0)
    poison = await world.put(thread, post("/text deadly"))
    behind = await world.put(other, post("/text harmless"))
    for attempt in (1, 2):
        await put_tried(world, 0, epoch, 0, attempt)
    async with world.dispatcher() as dispatcher:
        await decided(lambda: dispatcher.owner(thread), 2)
        assert (await world.read.outcome(poison)).code == "poison"
        assert (await world.read.outcome(behind)).type == "message.posted"
        await world.read.ended(other)
        [record] = await rejected(world)
        assert (record.header("rejected_reason"), record.header("rejected_offset")) == (b"poison", b"0")
        claims = [fact.body for _, fact in world.read.all if isinstance(fact.body, f.PartitionClaimed)]
        assert (0, 3) in [(claim.first_unfinished, claim.attempt) for claim in claims]
        assert tried(world)[-1] == (1, 1), "the one behind it is begun alone as well, and lives"
    async with world.dispatcher() as again:
        await eventually(lambda: again.worker.ready)
        await everything(world)
    assert len(world.read.outcomes(poison)) == 1 and len(await rejected(world)) == 1
    assert world.read.types(thread) == ["command.rejected"]


async def test_one_death_in_the_moment_of_a_command_is_forgiven(world: World) -> None:
    thread = new_thread(0)
    epoch = await world.claim(0)
    asked = await world.put(thread, post("/text innocent"))
    await put_tried(world, 0, epoch, 0, 1)
    async with world.dispatcher():
        assert (await world.read.outcome(asked)).type == "message.posted"
        await world.read.ended(thread)
        assert tried(world) == [(0, 1), (0, 2)]
    assert await rejected(world) == []


async def test_what_a_superseded_owner_tried_does_not_count(world: World) -> None:
    thread = new_thread(0)
    old = await world.claim(0, "old")
    asked = await world.put(thread, post("/text innocent"))
    await world.claim(0, "new")
    for attempt in (1, 2, 3):
        await put_tried(world, 0, old, 0, attempt)
    async with world.dispatcher():
        assert (await world.read.outcome(asked)).type == "message.posted"


async def test_neither_a_storm_of_claims_nor_a_slow_history_makes_a_command_poison(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claim after claim with the same first unfinished command, which none of them could begin."""
    thread = new_thread(0)
    world.history.slow[thread] = Gate()
    world.history.slow[thread].close()
    asked = await world.put(thread, post("/text patient"))
    for _ in range(5):
        async with world.dispatcher() as dispatcher:
            await eventually(lambda d=dispatcher: d.owner(thread).next_command == 1)  # type: ignore[misc]
            owner = dispatcher.owner(thread)
            await world.claim(0)
            await eventually(lambda o=owner: o.closed)  # type: ignore[misc]
    world.history.slow[thread].open()
    async with world.dispatcher():
        assert (await world.read.outcome(asked)).type == "message.posted"
        await world.read.ended(thread)
        assert tried(world) == [(0, 1)]
    assert await rejected(world) == []


async def test_new_commands_are_not_begun_alone(world: World) -> None:
    thread = new_thread(0)
    async with world.dispatcher():
        for n in range(3):
            await world.ask(thread, post(f"/text {n}"))
        await world.read.ended(thread, 3)
        assert tried(world) == []


# ---- runs that take their dispatchers down


@pytest.mark.parametrize(("broken_off", "ends"), [(9, "run.completed"), (10, "run.failed")])
async def test_a_run_whose_turn_is_always_broken_off_fails_in_the_end(world: World, broken_off: int, ends: str) -> None:
    thread = new_thread(0)
    epoch = await world.claim(0)
    command_id = "command-x"
    run = ids.run_id(thread, command_id)
    answer = ids.answer_id(run)
    posted = f.MessagePosted(
        message_id=ids.question_id(thread, command_id),
        run_id=run,
        answer_id=answer,
        disposition="started",
        author=Author(kind="user", id="ann"),
        agent_id="scripted",
        agent_version=1,
        text="/text alive",
        opened=ThreadSeed(user_id="ann"),
    )
    bodies: list[f.FactBody] = [posted] + [
        f.ModelCalled(run_id=run, turn=0, attempt=n, agent_id="scripted", agent_version=1, model="scripted", shown=1)
        for n in range(1, broken_off + 1)
    ]
    for seq, body in enumerate(bodies, 1):
        fact = Fact(body.type, thread, seq, epoch, WORKSPACE, system_clock(), body, run)
        await world.send(encode_fact(fact, 0))
    async with world.dispatcher():
        end = await world.read.ended(thread)
    assert end.type == ends
    if ends == "run.failed":
        assert end.code == "crashed"


# ---- an old look at the tail


class Hand:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def give_clock(dispatcher: Dispatcher) -> Hand:
    hand = Hand()
    object.__setattr__(dispatcher.worker._world, "elapsed", hand)
    return hand


async def test_whoever_stood_still_looks_at_the_tail_again_before_an_effect(world: World) -> None:
    """The intent was read back; then the process stood still, somebody else claimed the partition, and it woke up with
    what it had read before: no effect begins before the tail has been read to its end as of now."""
    thread = new_thread(0)
    async with world.dispatcher() as dispatcher:
        await world.ask(thread, post("/text a"))
        await world.read.ended(thread)
        owner, hand = dispatcher.owner(thread), give_clock(dispatcher)
        intent = owner.append(owner.states.held[thread], f.ThreadRead(user_id="ann", up_to=1))
        waiting = asyncio.create_task(owner.read_back(intent))
        await asyncio.sleep(0)
        hand.now += 30.0
        await eventually(lambda: owner.states.read[thread] >= (intent.seq or 0) or waiting.done())
        await within(waiting)  # nobody claimed it meanwhile: it may go on, having looked again

        dispatcher.log.own_tail.close()
        intent = owner.append(owner.states.held[thread], f.ThreadRead(user_id="ann", up_to=2))
        waiting = asyncio.create_task(owner.read_back(intent))
        await asyncio.sleep(0)
        [future] = owner._waiters[(thread, intent.seq or 0)]
        await world.claim(0)
        # What it had in memory when it stood still says that the intent is there.
        future.set_result(None)
        hand.now += 30.0
        done, _ = await asyncio.wait({waiting}, timeout=0.2)
        assert not done, "an effect would have begun on an old look"
        dispatcher.log.own_tail.open()
        with pytest.raises(NotOwner):
            await within(waiting)


async def test_a_look_that_took_too_long_is_none(world: World) -> None:
    """The process stands still during the look itself."""
    async with world.dispatcher() as dispatcher:
        owner, hand = dispatcher.worker.owners[0], give_clock(dispatcher)
        ends, looks = dispatcher.log.ends, 0

        async def slow(topic: str) -> dict[int, int]:
            nonlocal looks
            looks += 1
            hand.now += 30.0 if looks < 3 else 0.1
            return await ends(topic)

        dispatcher.log.ends = slow  # type: ignore[method-assign]
        await within(owner.look())
        assert looks == 3


async def test_an_intent_that_was_read_back_at_once_waits_for_nothing_more(world: World) -> None:
    thread = new_thread(0)
    async with world.dispatcher() as dispatcher:
        await world.ask(thread, post("/text a"))
        await world.read.ended(thread)
        owner, hand = dispatcher.owner(thread), give_clock(dispatcher)
        asked = []
        ends = dispatcher.worker._world.log.ends

        async def noted(topic: str) -> dict[int, int]:
            asked.append(topic)
            return await ends(topic)

        dispatcher.log.ends = noted  # type: ignore[method-assign]
        intent = owner.append(owner.states.held[thread], f.ThreadRead(user_id="ann", up_to=1))
        hand.now += 0.5
        await within(owner.read_back(intent))
        assert asked == []


async def test_a_member_that_the_group_does_not_count_claims_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was away, its partition is another's, and it has not heard of that yet."""
    async with world.dispatcher() as dispatcher:
        group = dispatcher.log.groups[0]
        refusing = True

        async def owns(partition: int) -> bool:
            return not refusing

        monkeypatch.setattr(group, "owns", owns)
        owner = dispatcher.worker.owners[0]
        foreign = await world.claim(0)
        await eventually(lambda: owner.closed)
        await asyncio.sleep(0.3)  # many times the pause after which it would claim again
        await everything(world)
        assert [fact.epoch for r, fact in world.read.all if r.partition == 0 and r.offset > foreign] == []
        refusing = False
        await eventually(lambda: 0 in dispatcher.worker.owners and dispatcher.worker.owners[0].ready)


@pytest.mark.parametrize("log_answers", [True, False])
async def test_a_member_that_is_out_of_its_group_and_does_not_notice_ends_its_process(
    world: World, monkeypatch: pytest.MonkeyPatch, log_answers: bool
) -> None:
    """A log that is away says nothing about the group."""
    async with impatient(world, stuck_s=0.1) as (_, log, told):
        asked = 0

        async def owns(partition: int) -> bool:
            nonlocal asked
            asked += 1
            return False

        async def away(topic: str) -> dict[int, int]:
            raise LogUnavailable("away")

        monkeypatch.setattr(log.groups[0], "owns", owns)
        if not log_answers:
            monkeypatch.setattr(log, "ends", away)
        await world.claim(0)
        if log_answers:
            await eventually(lambda: bool(told))
            assert "has not given us partition 0" in told[0]
        else:
            await eventually(lambda: asked > 40)
            assert told == []


# ---- facts that cannot be read


async def test_an_unreadable_fact_stops_its_partition_alone_and_is_tried_again_rarely(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("parley_dispatcher.worker._STOPPED_S", 0.3)
    bad, other = new_thread(0), new_thread(1)
    real: Callable[..., Any] = world.history._find
    spoilt = True

    def find(path: list[str], query: Any) -> Any:
        if path[:2] == ["streams", bad] and spoilt:
            head = {"ce_type": "thread.read", "ce_seq": "1", "ce_epoch": "0", "ce_subject": bad}
            item = {"offset": 0, "time_ms": 0, "headers": head, "body": {"nothing": "of it"}}
            return {"items": [item], "last_seq": 1, "partition": 0, "next_offset": world.history.next[0], "epoch": 0}
        return real(path, query)

    monkeypatch.setattr(world.history, "_find", find)
    async with world.dispatcher() as dispatcher:
        asked = await world.put(bad, post("/text one"))
        await eventually(lambda: 0 in dispatcher.worker.stopped)
        assert "cannot be read" in dispatcher.worker.stopped[0]
        await world.ask(other, post("/text two"))
        await world.read.ended(other)
        assert dispatcher.worker.ready, "the partitions that go on make it ready"
        said = [record for record in caplog.records if "stands still" in record.getMessage()]
        assert len(said) == 1 and bad in said[0].getMessage()
        spoilt = False
        await eventually(lambda: 0 in dispatcher.worker.owners and dispatcher.worker.owners[0].ready)
        await world.read.ended(bad)
        assert dispatcher.worker.stopped == {}
        assert [body.type for body in world.read.outcomes(asked)] == ["message.posted"]


# ---- letting go of a partition


async def test_a_partition_that_is_wanted_is_given_once_its_step_has_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread, kept, model = new_thread(0), new_thread(1), HeldModel()
    async with world.dispatcher(providers={"scripted": model}, drain_s=60.0) as dispatcher:
        given: list[frozenset[int]] = []
        monkeypatch.setattr(dispatcher.log.groups[0], "give", given.append)
        await world.ask(thread, post("/text a HOLD b\n/tool now"))
        await within(model.holding.wait())
        dispatcher.worker._wanted(frozenset({0}))
        late = await world.ask(thread, post("/text later"))
        assert late.disposition == "queued" and given == [], "it goes on deciding, and gives nothing yet"
        fresh = await world.ask(new_thread(0), post("/text elsewhere in it"))
        assert fresh.disposition == "started"
        model.gate.open()
        await eventually(lambda: given == [frozenset({0})])
        await world.ask(kept, post("/text goes on"))
        await world.read.ended(kept)
        await everything(world)
        assert len(world.read.of(thread, f.ModelReturned)) == 1, "the step under way is not broken off"
        assert world.read.of(thread, f.ToolCalled) == [], "no step is begun"
        # An older assignment is heard of late: what was given is no longer ours to go on with.
        dispatcher.worker._wanted(frozenset())
        await world.ask(kept, post("/text and on"))
        await world.read.ended(kept, 2)
        await everything(world)
        assert world.read.of(thread, f.ToolCalled) == [], "a step is begun that will be broken off"
        # The other dispatcher is gone again, the group leaves the partition here: what was held back is begun.
        await dispatcher.worker._assigned(frozenset({0, 1}))
        dispatcher.worker._wanted(frozenset())
        await world.read.ended(thread, 2)
    assert len(world.read.of(thread, f.ModelCalled)) == 3


async def test_a_partition_that_is_wanted_is_given_when_the_grace_period_has_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread, model = new_thread(0), HeldModel()
    async with world.dispatcher(providers={"scripted": model}, drain_s=0.2) as dispatcher:
        given: list[frozenset[int]] = []
        monkeypatch.setattr(dispatcher.log.groups[0], "give", given.append)
        await world.ask(thread, post("/text a HOLD b"))
        await within(model.holding.wait())
        dispatcher.worker._wanted(frozenset({0}))
        await eventually(lambda: given == [frozenset({0})])
        model.gate.open()


async def test_the_pause_before_another_attempt_holds_nobody_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    thread = new_thread(0)
    async with asyncio.timeout(10.0), world.dispatcher(model_backoff_ms=30_000, drain_s=60.0):
        await world.ask(thread, post("/error 529\n/text a"))
        await world.read.wait_for(thread, f.ModelFailed)
    assert world.read.of(thread, f.ModelCalled)[-1].attempt == 1


async def test_a_dispatcher_leaves_once_its_last_outcomes_were_read_back(world: World) -> None:
    """Else whoever comes next would be given commands that are finished, and might not believe the last facts."""
    thread, left = new_thread(0), asyncio.Event()

    async def run(log: GatedLog, stop: asyncio.Event) -> None:
        async with world.dispatcher(log=log, drain_s=60.0):
            await stop.wait()
        left.set()

    log, stop = GatedLog(world.log), asyncio.Event()
    running = asyncio.create_task(run(log, stop))
    await world.ask(thread, post("/text a"))
    await world.read.ended(thread)
    log.own_tail.close()
    await world.ask(thread, post("/text b"))
    await world.read.ended(thread, 2)
    stop.set()
    await asyncio.sleep(0.2)
    assert not left.is_set() and log.groups[0].assignment(), "it left before its outcome was read back"
    log.own_tail.open()
    await within(running)
    assert max(commit.get(0, 0) for commit in log.commits) == 2


# ---- a partition that stands still


@pytest.mark.parametrize("log_answers", [True, False])
async def test_a_decision_that_never_comes_ends_the_process_unless_the_log_is_away(
    world: World, monkeypatch: pytest.MonkeyPatch, log_answers: bool
) -> None:
    monkeypatch.setattr("parley_dispatcher.worker._STUCK_LOOK_S", 0.02)
    monkeypatch.setattr("parley_dispatcher.worker._SURE_S", 0.2)
    monkeypatch.setattr("parley_dispatcher.watchdog.EXCUSE_S", 0.02)
    async with impatient(world, stuck_s=0.05) as (worker, log, told):
        thread = new_thread(0)

        async def never(command: Command, agent_id: str) -> int | None:
            await asyncio.Event().wait()
            return None

        asked = 0
        ends = log.ends

        async def away(topic: str) -> dict[int, int]:
            nonlocal asked
            asked += 1
            if not log_answers:
                raise LogUnavailable("away")
            return await ends(topic)

        monkeypatch.setattr(log, "ends", away)
        monkeypatch.setattr(worker.owners[0], "_resolve", never)
        await world.put(thread, post("/text a", agent_version=None, agent_id="assistant"))
        if log_answers:
            await eventually(lambda: bool(told))
            assert "partition 0 stands still: the command at 0 is not finished" in told[0]
        else:
            await eventually(lambda: asked > 15)
            assert told == []
