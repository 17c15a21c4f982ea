"""What is broken, when, and what is expected: `SCENARIOS`, a literal table. What "expected" means is the checker's: every
promise holds in all that was observed; the sentence here says what that is in this case.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial

from parley_events.partition import partition_of
from tests.faults import outside
from tests.faults.boundaries import Placed
from tests.faults.cluster import PARTITIONS, Process
from tests.faults.proxy import Weather
from tests.faults.stage import Blow, Round
from tests.faults.workload import MODEL_ERRORS, Talk, steady, tool, unsteady_tools, whole


@dataclass(frozen=True, slots=True)
class Scenario:
    """`fault`: what is broken; `when`; `expected`; `act`: how. `blows`: how many faults it strikes."""

    name: str
    fault: str
    when: str
    expected: str
    act: Callable[[Round], Awaitable[None]]


# ---- processes that die or stall at the boundaries of what they journal

_FACTS = ("message.posted", "model.called", "model.returned", "tool.called", "tool.returned", "run.completed")


def _blows(action: str) -> list[Blow]:
    """Every boundary of a dispatcher, once: each kind of fact before and after it is appended and once it is
    acknowledged, intents before and after they are read back, tools before and after they run, commits, claims."""
    around = [
        Blow(f"append.{place}", action, kind, "ledger__pay" if kind == "tool.called" else None)
        for kind in _FACTS
        for place in ("before", "after", "acknowledged")
    ]
    return [
        *around,
        Blow("read_back.before", action, "tool.called", "ledger__pay"),
        Blow("read_back.after", action, "tool.called", "append_line"),
        *(
            Blow(f"tool.{place}", action, name)
            for place in ("before", "after")
            for name in ("ledger__pay", "ledger__book")
        ),
        Blow("tool.after", action, "ledger__reserve"),
        Blow("see.before", action, "tool.called"),
        Blow("see.after", action, "message.posted"),
        Blow("commit.before", action),
        Blow("commit.after", action),
    ]


async def _strikes(blows: list[Blow], going: Round) -> None:
    """One blow after the other, each as soon as the one before has struck: what heals overlaps."""
    await going.begin(crowd=3, bystanders=2)
    for blow in blows:
        await going.strike(blow)


async def _claiming(action: str, going: Round) -> None:
    """The one that takes over is struck itself, before and after its claim."""
    await going.begin(crowd=3, bystanders=2)
    for place in ("before", "after"):
        hit, victim = await going.strike(Blow("append.after", "kill", "model.called"))
        fault = Placed(id=going.work.number(), boundary=f"claim.{place}", action=action)  # type: ignore[arg-type]
        await going.cluster.control.place(fault, "dispatcher")
        partition = partition_of(victim.thread_id.encode(), PARTITIONS)
        await going.struck(fault, f"{action} at claim.{place}", victim, partition if action == "stop" else None)


async def _kill_all(going: Round) -> None:
    await going.begin(crowd=4, bystanders=0)
    talks = [await going.work.open() for _ in range(4)]
    for number, talk in enumerate(talks):
        going.work.saying(talk, whole(f"all {number}"))
    fault = Placed(id=going.work.number(), boundary="append.after", action="kill", kind="tool.returned")
    await going.cluster.control.place(fault, "dispatcher")

    async def all_at_once() -> None:
        await going.cluster.control.hit(fault.id, 60.0)
        for process in going.cluster.of("dispatcher"):
            process.kill()
        for process in going.cluster.of("dispatcher"):
            await going.cluster.restart(process)

    await going.during("SIGKILL of all dispatchers", "dispatcher", all_at_once())


async def _rolling(going: Round) -> None:
    await going.begin(crowd=4, bystanders=3, pieces=150)

    async def one_by_one() -> None:
        for process in going.cluster.of("dispatcher"):
            await asyncio.to_thread(process.end)
            await going.cluster.restart(process)
            await going.cluster.ready([process.name])

    await going.during("SIGTERM of each dispatcher in turn", "dispatcher", one_by_one())


# ---- zombies


async def _zombie(going: Round) -> None:
    """An owner that was stopped in the middle goes on where it stood: it has facts and unsafe calls in hand."""
    await going.begin(crowd=3, bystanders=2)
    echoes = "\n".join(tool("echo", n=number) for number in range(12))
    message = f"/text said \n{tool('append_line', file='effects.txt', line=going.work.number())}\n{echoes}\n/text done"
    await going.strike(Blow("append.before", "stop", "model.returned"), message)


async def _unread(going: Round) -> None:
    """Stopped between an intent and its read-back: the successor calls the tool; the stale one must not."""
    await going.begin(crowd=2, bystanders=1)
    line = tool("append_line", file="effects.txt", line=going.work.number())
    await going.strike(Blow("append.after", "stop", "tool.called", "append_line"), f"/text now\n{line}\n/text done")


async def _late_batch(going: Round) -> None:
    """What a superseded owner had on its way arrives after its successor has ended the run."""
    await going.begin(crowd=2, bystanders=1)
    talk = await going.work.open(watched=True)
    partition = partition_of(talk.thread_id.encode(), PARTITIONS)
    before = going.cluster.control.owners[partition][0]
    hit, _ = await going.strike(Blow("append.after", "kill", "model.called"), "/text one \n/stream 20 20", victim=talk)
    await going.cluster.control.claimed(partition, before, 60.0)
    run_id = await _first_run(talk)
    seq = await _ended_at(talk)
    for ahead in (1, 2):
        await outside.forge_late_batch(going.cluster, run_id, seq + ahead, before)
    await going.work.say(talk, "/text and more\n/stream 5 5")
    await outside.forge_late_batch(going.cluster, talk.runs[-1], seq + 20, before)


async def _first_run(talk: Talk) -> str:
    async with asyncio.timeout(60):
        while not talk.runs:
            await asyncio.sleep(0.02)
    return talk.runs[0]


async def _ended_at(talk: Talk) -> int:
    """The seq of the end of the thread's first run, once a follower has seen it."""
    async with asyncio.timeout(90):
        while not talk.watchers or not talk.watchers[0].over:
            await asyncio.sleep(0.05)
    last = talk.watchers[0].seen[-1].data
    assert isinstance(last, dict)
    return int(last["seq"])


async def _two_groups(going: Round) -> None:
    """Another dispatcher in a group of its own claims everything, for as long as it lives."""
    await going.begin(crowd=5, bystanders=0)
    talk = await going.work.open()
    going.work.saying(talk, whole(going.name), steady(100, 50))
    model = going.cluster.of("dispatcher")[0]
    intruder = Process("intruder-1", model.log.parent, model.env | {"PARLEY_GROUP": "parley.intruder"})
    intruder.kind = "dispatcher"

    async def quarrel() -> None:
        intruder.start()
        going.cluster.processes[intruder.name] = intruder
        try:
            await asyncio.sleep(8.0)
        finally:
            del going.cluster.processes[intruder.name]
            intruder.kill()

    await going.during("two owners of every partition", "dispatcher", quarrel())


async def _foreign_claims(going: Round) -> None:
    await going.begin(crowd=5, bystanders=0)

    async def claim() -> None:
        for partition in (*range(PARTITIONS), *range(PARTITIONS)):
            await outside.forge_claim(going.cluster, partition)

    await going.during("claims by somebody who does nothing", "parley.events", claim())


# ---- the group


async def _storm(going: Round) -> None:
    await going.begin(crowd=5, bystanders=2)
    talk = await going.work.open()
    going.work.saying(talk, whole(going.name))
    await going.during("members come and go", "group", outside.come_and_go(going.cluster, 8))


async def _offsets_deleted(going: Round) -> None:
    await going.begin(crowd=5, bystanders=0)
    talk = await going.work.open()
    going.work.saying(talk, whole(going.name))

    async def delete() -> None:
        for process in going.cluster.of("dispatcher"):
            process.kill()
        await outside.delete_group(going.cluster)
        for process in going.cluster.of("dispatcher"):
            await going.cluster.restart(process)

    await going.during("committed offsets deleted", "group", delete())


# ---- the broker and the network


async def _broker_killed(going: Round) -> None:
    await going.begin(crowd=5, bystanders=2)
    talk = await going.work.open()
    going.work.saying(talk, whole(going.name), whole(f"{going.name} again"))

    async def again() -> None:
        await asyncio.to_thread(going.cluster.kafka.kill)
        await asyncio.to_thread(going.cluster.kafka.start)

    await going.during("SIGKILL of the broker", "kafka", again())


async def _lost_answers(going: Round) -> None:
    """Responses to produce requests are lost until every producer has been given up and all was sent again."""
    proxy, logs = going.cluster.proxy, [process.log for process in going.cluster.of("dispatcher")]
    told = "a send came to an unknown end"
    before = sum(outside.said_in(log, told) for log in logs)
    await going.begin(crowd=4, bystanders=1, pieces=200)
    talk = await going.work.open()
    going.work.saying(talk, whole(going.name), whole(f"{going.name} again"))

    async def lose() -> None:
        proxy.weather = Weather(lose_produced=True)
        until = time.monotonic() + 40
        while sum(outside.said_in(log, told) for log in logs) == before and time.monotonic() < until:
            await asyncio.sleep(0.1)
        proxy.weather = Weather()
        assert proxy.lost, "no response was lost"

    await going.during("produce responses lost", "network", lose())


async def _latency(going: Round) -> None:
    going.cluster.proxy.weather = Weather(latency_s=0.15)
    await going.begin(crowd=4, bystanders=1)
    talk = await going.work.open()
    going.work.saying(talk, whole(going.name))

    async def slow() -> None:
        await asyncio.sleep(8.0)
        going.cluster.proxy.weather = Weather()

    await going.during("latency of 150 ms each way", "network", slow())


async def _cut(going: Round) -> None:
    await going.begin(crowd=4, bystanders=0)
    talk = await going.work.open()
    going.work.saying(talk, whole(going.name))

    async def cut() -> None:
        for _ in range(6):
            assert going.cluster.proxy.cut(), "there was no connection to cut"
            await asyncio.sleep(0.7)

    await going.during("connections cut, six times", "network", cut())


async def _swallowed(going: Round) -> None:
    """One dispatcher is cut off as by a firewall, until another has its partitions; then it is let back in."""
    await going.begin(crowd=3, bystanders=2)
    talk = await going.work.open()
    partition = partition_of(talk.thread_id.encode(), PARTITIONS)
    going.work.saying(talk, f"/text wait \n/stream 40 50\n{whole(going.name)}")
    await _first_run(talk)
    epoch, owner = going.cluster.control.owners[partition]

    async def alone() -> None:
        pid = going.cluster.processes[owner].pid
        going.cluster.proxy.weather = Weather(swallow=True, pids=frozenset({pid}))
        await going.cluster.control.claimed(partition, epoch, 60.0)
        going.cluster.proxy.weather = Weather()
        going.cluster.proxy.cut(frozenset({pid}))

    await going.during("one dispatcher cut off", owner, alone())


# ---- history and PostgreSQL


async def _projector(boundary: str, action: str, going: Round) -> None:
    await going.begin(crowd=3, bystanders=1)
    talk = await going.work.open()
    fault = Placed(id=going.work.number(), boundary=boundary, action=action, stream=talk.thread_id)  # type: ignore[arg-type]
    await going.cluster.control.place(fault, "history")
    going.work.saying(talk, whole(going.name))
    await going.struck(fault, f"{action} at {boundary}", None, None)


async def _two_projectors(going: Round) -> None:
    """One stands still with a batch in hand until the other has adopted its partition and gone further."""
    await going.begin(crowd=3, bystanders=0)
    talk = await going.work.open()
    partition = partition_of(talk.thread_id.encode(), PARTITIONS)
    fault = Placed(id=going.work.number(), boundary="fold.before", action="stop", stream=talk.thread_id, passing=2)
    await going.cluster.control.place(fault, "history")
    going.work.saying(talk, whole(going.name))
    hit = await going.cluster.control.hit(fault.id, 60.0)

    async def adopted() -> None:
        connection = await going.cluster.connect()
        stood = "SELECT next_offset FROM parley.positions WHERE partition = $1"
        try:
            before = await connection.fetchval(stood, partition)
            async with asyncio.timeout(60):
                while await connection.fetchval(stood, partition) == before:
                    await asyncio.sleep(0.1)
        finally:
            await connection.close()
        going.cluster.processes[hit.name].signal(signal.SIGCONT)

    await going.during("a projector wakes up with a stale batch", hit.name, adopted())


async def _history_behind(held_s: float, going: Round) -> None:
    """The views stand still, reads are answered, and a dispatcher dies meanwhile."""
    await going.begin(crowd=3, bystanders=1)
    faults = [
        Placed(id=going.work.number(), boundary="fold.before", action="hold"),
    ]
    control = going.cluster.control
    for fault in faults:
        await control.place(replace(fault, every=True), "history")

    async def behind() -> None:
        began = time.monotonic()
        hit, talk = await going.strike(Blow("append.after", "kill", "tool.returned"))
        await _first_run(talk)
        await going.strike(Blow("append.after", "kill", "model.returned"), victim=None)
        await asyncio.sleep(max(0.0, held_s - (time.monotonic() - began)))
        for fault in faults:
            await control.lift(fault.id)

    await going.during(f"history behind for {held_s:g} s", "history", behind())


async def _history_away(going: Round) -> None:
    """Both histories stand still while a dispatcher dies; then they go on."""
    await going.begin(crowd=3, bystanders=1)

    async def away() -> None:
        for process in going.cluster.of("history"):
            process.signal(signal.SIGSTOP)
        try:
            victim = await going.work.open()
            await going.strike(Blow("append.after", "kill", "model.returned"), victim=victim)
            await asyncio.sleep(12.0)
        finally:
            for process in going.cluster.of("history"):
                process.signal(signal.SIGCONT)

    await going.during("history away", "history", away())


async def _postgres(going: Round) -> None:
    await going.begin(crowd=4, bystanders=2)
    talk = await going.work.open()
    going.work.saying(talk, whole(going.name), whole(f"{going.name} again"))

    async def again() -> None:
        await asyncio.to_thread(going.cluster.postgres.kill)
        await asyncio.sleep(3.0)
        await asyncio.to_thread(going.cluster.postgres.start)

    await going.during("SIGKILL of PostgreSQL", "postgres", again())


# ---- gateways


async def _answer_lost(going: Round) -> None:
    """A gateway dies when the command is decided and the answer is not sent: the client asks again, elsewhere."""
    await going.begin(crowd=4, bystanders=2)
    for contract in ("threads", "org_chat"):
        talk = await going.work.open(contract)  # type: ignore[arg-type]
        for place, kind in (("answer.before", "message.posted"), ("send.before", "message.post")):
            fault = Placed(id=going.work.number(), boundary=place, action="kill", kind=kind, stream=talk.thread_id)
            await going.cluster.control.place(fault, "gateway")
            going.work.saying(
                talk, f"/text {contract} \n/stream 10 20\n{tool('ledger__pay', note=going.work.number())}"
            )
            await going.struck(fault, f"kill at {place}", None, None)


# ---- models and tools


async def _model_errors(going: Round) -> None:
    await going.begin(crowd=2, bystanders=1)
    for message in MODEL_ERRORS.values():
        talk = await going.work.open()
        going.work.saying(talk, message, "/text And after that.")
    await going.strike(Blow("append.after", "kill", "model.failed"), MODEL_ERRORS["cut"])
    await going.strike(Blow("append.after", "stop", "model.failed"), MODEL_ERRORS["429"])


async def _tools_fail(going: Round) -> None:
    await going.begin(crowd=2, bystanders=1)
    for number in range(2):
        talk = await going.work.open()
        going.work.saying(talk, unsteady_tools(f"{going.name} {number}"), "/text And after that.")
    hang = "/text so\n" + tool("ledger__pay", note=f"{going.name} kill", then="late", ms=1500) + "\n/text on"
    hit, _ = await going.strike(Blow("append.acknowledged", "kill", "tool.called", "ledger__pay"), hang)


async def _cancelled(going: Round) -> None:
    """Runs are cancelled while their owners die or stall."""
    await going.begin(crowd=2, bystanders=1)
    for action in ("kill", "stop"):
        for boundary, kind in (("append.acknowledged", "run.cancelling"), ("append.before", "run.cancelled")):
            victim = await going.work.open()
            partition = partition_of(victim.thread_id.encode(), PARTITIONS)
            fault = Placed(
                id=going.work.number(),
                boundary=boundary,
                action=action,  # type: ignore[arg-type]
                kind=kind,
                stream=victim.thread_id,
            )
            await going.cluster.control.place(fault, "dispatcher")
            late = tool("ledger__pay", note=f"{going.name} {kind} {action}", then="late", ms=1500)
            message = f"/text begin \n/stream 5 20\n{late}\n{tool('ledger__book', note='x')}\n/stream 100 50"
            going.work.cancelling(victim, message, lambda seen: len(seen) > 6)
            await going.struck(fault, f"{action} at {boundary} of {kind}", victim, partition)
            going.work.saying(victim, "/text and it goes on")


# ---- poison


async def _unreadable(going: Round) -> None:
    await going.begin(crowd=3, bystanders=1)

    async def poison() -> None:
        for talk in list(going.work.talks):
            if talk.contract == "threads":
                await outside.put_poison(going.cluster, talk.thread_id)

    await going.during("records that cannot be read", "parley.commands", poison())


def _boundaries(action: str, size: int = 4) -> tuple[Scenario, ...]:
    blows = _blows(action)
    word = {"kill": "SIGKILL", "stop": "SIGSTOP, then SIGCONT once another has taken over"}[action]
    groups = [blows[start : start + size] for start in range(0, len(blows), size)]
    return tuple(
        Scenario(
            f"{action} {number}",
            f"{word} of the dispatcher that has the thread",
            "; ".join(blow.name.removeprefix(f"{action} at ") for blow in group),
            "another takes over; no turn and no effect is repeated; nobody sees what the stale one writes",
            partial(_strikes, group),
        )
        for number, group in enumerate(groups, start=1)
    )


_TAKES_OVER = "another takes over; every run ends once, and each effect happens once"

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        *_boundaries("kill"),
        *_boundaries("stop"),
        Scenario(
            "kill claiming",
            "SIGKILL of who takes over",
            "before and after its claim",
            _TAKES_OVER,
            partial(_claiming, "kill"),
        ),
        Scenario(
            "stop claiming",
            "SIGSTOP of who takes over",
            "before and after its claim",
            _TAKES_OVER,
            partial(_claiming, "stop"),
        ),
        Scenario(
            "kill all", "SIGKILL of all dispatchers at once", "in the middle of tool calls", _TAKES_OVER, _kill_all
        ),
        Scenario("rolling", "SIGTERM of each dispatcher in turn", "under load", "every run ends once", _rolling),
        Scenario(
            "zombie",
            "SIGSTOP, then SIGCONT",
            "before a model's turn is recorded",
            "nobody sees what it writes then",
            _zombie,
        ),
        Scenario(
            "unread intent",
            "SIGSTOP, then SIGCONT",
            "between an intent and its read-back",
            "the tool is called once, by the successor",
            _unread,
        ),
        Scenario(
            "late batch", "records under an old epoch arrive", "after the run's end", "nobody sees them", _late_batch
        ),
        Scenario(
            "two owners",
            "a dispatcher of another group claims all",
            "for eight seconds",
            "one outcome per command, each effect once",
            _two_groups,
        ),
        Scenario(
            "foreign claims",
            "claims by somebody who does nothing",
            "under load, twice each",
            "the owners claim again",
            _foreign_claims,
        ),
        Scenario(
            "storm",
            "members of the group come and go, 8 times",
            "under load",
            "runs that stay are not disturbed",
            _storm,
        ),
        Scenario(
            "offsets deleted",
            "the group's offsets are deleted",
            "while all dispatchers are down",
            "every command is recognised",
            _offsets_deleted,
        ),
        Scenario(
            "broker killed", "SIGKILL of the broker, and a restart", "under load", "everything goes on", _broker_killed
        ),
        Scenario(
            "answers lost",
            "produce responses are lost",
            "until every producer is replaced",
            "what is sent twice is seen once",
            _lost_answers,
        ),
        Scenario(
            "latency",
            "150 ms between dispatchers and broker",
            "for eight seconds",
            "slower, and nothing else",
            _latency,
        ),
        Scenario("cut", "connections to the broker break", "six times", "everything goes on", _cut),
        Scenario(
            "cut off", "one dispatcher cannot reach the broker", "until another has taken over", _TAKES_OVER, _swallowed
        ),
        Scenario(
            "projector before",
            "SIGKILL of a history",
            "before COMMIT",
            "the other folds the same again",
            partial(_projector, "fold.before_commit", "kill"),
        ),
        Scenario(
            "projector after",
            "SIGKILL of a history",
            "after COMMIT",
            "nothing is folded twice",
            partial(_projector, "fold.after_commit", "kill"),
        ),
        Scenario(
            "two projectors",
            "SIGSTOP of a history with a batch in hand",
            "until the other has gone further",
            "positions never go back",
            _two_projectors,
        ),
        Scenario(
            "history behind",
            "the views stand still, a dispatcher dies",
            "for 60 seconds",
            "takeovers do not wait for them",
            partial(_history_behind, 60.0),
        ),
        Scenario(
            "history away",
            "SIGSTOP of both histories, a dispatcher dies",
            "for 12 seconds",
            "taken over once it answers",
            _history_away,
        ),
        Scenario(
            "postgres",
            "SIGKILL of PostgreSQL, and a restart",
            "for three seconds, under load",
            "runs go on, views catch up",
            _postgres,
        ),
        Scenario(
            "gateway",
            "SIGKILL of a gateway",
            "before it sends; before it answers",
            "a retry meets the same run; followers go on elsewhere",
            _answer_lost,
        ),
        Scenario(
            "model errors",
            "429, 529, 500, 400, cut, stall, one id twice",
            "and the owner dies or stalls between attempts",
            "tried again, or a clear failure",
            _model_errors,
        ),
        Scenario(
            "tools fail",
            "time-outs, errors and HTTP 500 after the effect",
            "and the owner dies during a call",
            "unknown where nobody knows; never a second call",
            _tools_fail,
        ),
        Scenario(
            "cancels",
            "the owner dies or stalls",
            "while a run is being cancelled",
            "no effect starts after it; the thread goes on",
            _cancelled,
        ),
        Scenario(
            "unreadable",
            "seven kinds of unreadable records",
            "in the midst of commands",
            "in parley.rejected once each",
            _unreadable,
        ),
    )
}
"""Every scenario, by its name."""
