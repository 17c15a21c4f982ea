"""Parleys that have a history already: facts put on the embedded log as a dispatcher would have, in seconds.

Ids are as scattered as real ones, so that the indexes of the view grow as they do in life.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

from parley_events import facts as f
from parley_events.body import Block, ThreadSeed, Usage
from parley_events.codec import EVENTS_TOPIC
from parley_events.log.embedded import EmbeddedLog
from parley_events.log.port import Outgoing
from parley_standalone.folder import Folder
from tests.contract.history.listlog import ListLog
from tests.contract.history.story import Writer

PARTITIONS = 8
AGENT = "scripted"
_QUESTION = "What is the weather like in the north, and shall I take a coat?"
_ANSWER = "It is cold: yes, take one. " * 10
_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Store:
    """How much there is: `small` threads of one run each; `long` threads of `runs` runs each, which were cleared
    afterwards if `cleared`; `busy` threads of one run each with `turns` turns, a tool call at the end of each."""

    small: int
    long: int = 0
    runs: int = 0
    cleared: bool = False
    busy: int = 0
    turns: int = 0


@dataclass(frozen=True, slots=True)
class Filled:
    """What was put there: the ids of the small and the long threads, and how many records."""

    small: tuple[str, ...]
    long: tuple[str, ...]
    facts: int


def fill(data: Path, store: Store) -> Filled:
    """Make the folder of a Parley whose log holds that much. Nothing has read it yet."""
    folder = Folder.open(data)
    kept = folder.secrets
    folder.close()
    log = ListLog(PARTITIONS)
    teller = _Teller(Writer(log), kept.workspace_id, kept.user)
    small = tuple(_thread("small", number) for number in range(store.small))
    long = tuple(_thread("long", number) for number in range(store.long))
    for thread in small:
        teller.run(thread, 0)
    for number in range(store.runs):
        for thread in long:
            teller.run(thread, number)
    if store.cleared:
        for thread in long:
            teller.writer.write(thread, kept.workspace_id, f.ThreadCleared())
    for number in range(store.busy):
        teller.run(_thread("busy", number), 0, store.turns)
    asyncio.run(_put(log, data))
    return Filled(small, long, sum(len(records) for records in log.records))


def _thread(kind: str, number: int) -> str:
    return str(uuid5(NAMESPACE_OID, f"{kind} {number}"))


@dataclass(frozen=True, slots=True)
class _Teller:
    """Runs as they go on record."""

    writer: Writer
    workspace_id: str
    user_id: str

    def run(self, thread: str, number: int, tools: int = 0) -> None:
        writer, workspace = self.writer, self.workspace_id
        more: dict[str, object] = {"agent_id": AGENT}
        if thread not in writer.seqs:
            more["opened"] = ThreadSeed(user_id=self.user_id, agent_id=AGENT)
        run = writer.post(thread, workspace, _QUESTION, command=f"c{number}", **more)
        for turn in range(tools):
            self._tool_turn(thread, run, turn)
        writer.turn(thread, workspace, run, _ANSWER, tools)
        writer.complete(thread, workspace, run)
        writer.written.clear()

    def _tool_turn(self, thread: str, run: str, turn: int) -> None:
        asked = f.ModelCalled(
            run_id=run,
            turn=turn,
            attempt=1,
            agent_id=AGENT,
            agent_version=1,
            model="scripted",
            shown=self.writer.seqs[thread],
        )
        call = self.writer.write(thread, self.workspace_id, asked).seq or 0
        arguments = {"place": "north"}
        said = f.ModelReturned(
            run_id=run,
            call=call,
            turn=turn,
            blocks=(
                Block(kind="text", text="Let me look at that for you."),
                Block(kind="tool", tool_call_id=f"t{call}", name="look", arguments=arguments),
            ),
            stop_reason="tool_use",
            usage=Usage(input_tokens=3, output_tokens=5),
        )
        self.writer.write(thread, self.workspace_id, said, call=call)
        place = {"run_id": run, "call": call, "index": 0, "tool_call_id": f"t{call}", "name": "look"}
        called = {**place, "arguments": arguments, "effect": "read_only", "effect_key": f"{run}.{call}.0"}
        self.writer.write(thread, self.workspace_id, f.ToolCalled.model_validate(called))
        returned = {**place, "status": "ok", "result": "It is cold. " * 10}
        self.writer.write(thread, self.workspace_id, f.ToolReturned.model_validate(returned))


async def _put(log: ListLog, data: Path) -> None:
    made = await EmbeddedLog.open(data / "log", PARTITIONS)
    producer = await made.producer()
    for records in log.records:
        for start in range(0, len(records), _AT_ONCE):
            part = records[start : start + _AT_ONCE]
            sent = [producer.send(Outgoing(EVENTS_TOPIC, r.partition, r.key, r.value, r.headers)) for r in part]
            offsets = await asyncio.gather(*sent)
            assert offsets[0] == start, "facts name offsets: the log must have been empty"
    await producer.close()
    await made.close()
