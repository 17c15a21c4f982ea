"""Which threads a new owner may leave alone: those whose every open run waits, and for which nothing came since."""

from __future__ import annotations

import pytest

from parley_events import facts as f
from parley_events import ids
from parley_events.body import Usage
from parley_history.settings import Settings
from tests.contract.history.conftest import running
from tests.contract.history.listlog import ListLog
from tests.contract.history.story import Writer, thread, workspace

WS, T1 = workspace(1), thread(1)
CHILD = ids.child_run_id(T1, "key")


def with_parked_child(writer: Writer) -> str:
    """A run whose child waits, and that waits for it."""
    run = writer.post(T1, WS, "ask")
    started = f.ChildStarted(
        run_id=CHILD, parent_run_id=run, tool_call_id="t1", agent_id="helper", agent_version=1, text="do"
    )
    writer.write(T1, WS, started)
    for one in (CHILD, run):
        body = f.RunWaiting(run_id=one, waits_for="approval", tool_call_ids=("t1",))
        writer.write(T1, WS, body)
    return run


async def waiting(settings: Settings, log: ListLog) -> tuple[list[str], list[str]]:
    """The threads with open runs, and those of them that need no task."""
    async with running(settings, log) as client:
        await client.caught_up(log)
        found = [await client.get(f"/partitions/{partition}") for partition in range(4)]
    return (
        [one for part in found for one in part["open_threads"]],
        [one for part in found for one in part["waiting_threads"]],
    )


async def test_a_thread_whose_runs_all_wait_needs_no_task(settings: Settings) -> None:
    log = ListLog(4)
    with_parked_child(Writer(log))
    assert await waiting(settings, log) == ([T1], [T1])


@pytest.mark.parametrize("came", ["the child's end", "the thread's cancel"])
async def test_what_came_for_a_parked_run_without_being_its_own_needs_a_task(settings: Settings, came: str) -> None:
    """The owner may die between such a fact and what follows from it."""
    log = ListLog(4)
    writer = Writer(log)
    run = with_parked_child(writer)
    if came == "the child's end":
        asked = f.ApprovalAnswered(approval_id=f"{T1}.p1", run_id=CHILD, decision="deny", by="ann")
        writer.write(T1, WS, asked)
        end = f.RunCompleted(run_id=CHILD, message_id=ids.answer_id(CHILD), stop_reason="end_turn", usage=Usage())
        writer.write(T1, WS, end)
    else:
        writer.write(T1, WS, f.ThreadCancelling(by="ann", run_ids=(run, CHILD)))
    assert await waiting(settings, log) == ([T1], [])


async def test_a_run_that_is_parked_again_needs_no_task_again(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    run = with_parked_child(writer)
    end = f.RunCompleted(run_id=CHILD, message_id=ids.answer_id(CHILD), stop_reason="end_turn", usage=Usage())
    writer.write(T1, WS, end)
    writer.write(T1, WS, f.RunWaiting(run_id=run, waits_for="approval", tool_call_ids=("t2",)))
    assert await waiting(settings, log) == ([T1], [T1])
