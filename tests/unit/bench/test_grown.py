"""The made-up histories: every stream makes sense to a dispatcher, and has as much as was asked for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from parley_dispatcher.state import ThreadState, evolve, initial
from parley_events.codec import EVENTS_TOPIC, decode_fact
from parley_events.facts import PartitionClaimed
from parley_events.fence import FactFence
from parley_events.log.embedded import EmbeddedLog
from tests.bench.grown import PARTITIONS, Store, fill


async def states_of(data: Path, facts: int) -> dict[str, ThreadState]:
    """What a reader of the log believes."""
    log = await EmbeddedLog.open(data / "log", PARTITIONS)
    tail = await log.tail(EVENTS_TOPIC, dict.fromkeys(range(PARTITIONS), 0))
    fences = [FactFence() for _ in range(PARTITIONS)]
    states: dict[str, ThreadState] = {}
    while facts:
        for record in await tail.batch():
            facts -= 1
            fact = decode_fact(record)
            assert fences[record.partition].accepts(record.offset, fact.type, fact.epoch)
            if fact.type != PartitionClaimed.type:
                state = states.setdefault(fact.stream, initial(fact.stream))  # type: ignore[arg-type]
                evolve(state, fact)
    await tail.close()
    await log.close()
    return states


def test_a_store_has_the_threads_runs_and_facts_that_were_asked_for(tmp_path: Path) -> None:
    import asyncio

    filled = fill(tmp_path, Store(20, long=2, runs=5, cleared=True, busy=3, turns=4))
    states = asyncio.run(states_of(tmp_path, filled.facts))
    assert len(states) == 25
    assert not any(state.open_runs for state in states.values())
    assert Counter(len(state.runs) for state in states.values()) == {1: 23, 5: 2}
    assert all(states[thread].cleared_seq for thread in filled.long)
    assert {len(states[thread].runs) for thread in filled.small} == {1}
    # A question, a turn of two facts and an end; four facts more for each turn with a tool.
    busy = [state for name, state in states.items() if name not in (*filled.small, *filled.long)]
    assert {state.seq for state in busy} == {4 + 4 * 4}
    assert len({state.user_id for state in states.values()}) == 1
