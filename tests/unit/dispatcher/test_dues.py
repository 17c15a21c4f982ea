"""What timers mean: by the state, at a time; one that means nothing any more has no outcome."""

from __future__ import annotations

import pytest

from parley_dispatcher.dues import SESSION, fire
from parley_dispatcher.state import Run
from parley_events import facts as f
from parley_events.body import ThreadSeed
from tests.unit.dispatcher.story import DAY_MS, SAY, T0, THREAD, Story, code, text, use


def asked() -> tuple[Story, Run, str]:
    story = Story()
    run = story.posted()
    story.returned(run, use("publish", "t1"))
    approval = story.requested(run)
    story.waiting(run)
    return story, run, approval


def test_an_approval_expires_at_its_time_and_not_before_and_once() -> None:
    story, run, approval = asked()
    assert fire(story.thread, approval, T0 + DAY_MS - 1) is None
    expired = fire(story.thread, approval, T0 + DAY_MS)
    assert expired == f.ApprovalExpired(approval_id=approval, run_id=run.run_id)
    story.happened(expired)
    assert run.status == "running" and fire(story.thread, approval, T0 + 2 * DAY_MS) is None


@pytest.mark.parametrize("move", ["approved", "denied", "cancelling", "deleted"])
def test_what_was_answered_or_stopped_does_not_expire(move: str) -> None:
    story, run, approval = asked()
    if move == "cancelling":
        story.cancelling(run)
    elif move == "deleted":
        story.happened(f.ThreadDeleted())
    else:
        story.decided(run, run.turns[-1].tools[0], move)
    assert fire(story.thread, approval, T0 + 2 * DAY_MS) is None


def test_a_call_of_the_clients_expires_by_the_id_of_its_message() -> None:
    story = Story()
    run = story.posted()
    story.returned(run, use("weather", "t1"), use("weather", "t2"))
    first, second = story.handed_over(run, 0), story.handed_over(run, 1)
    story.waiting(run)
    assert fire(story.thread, first, T0 + 2 * DAY_MS - 1) is None
    expired = fire(story.thread, second, T0 + 2 * DAY_MS)
    assert expired == f.ToolExpired(run_id=run.run_id, call=run.turns[-1].call, index=1, tool_call_id="t2")
    story.happened(expired)
    assert fire(story.thread, second, T0 + 3 * DAY_MS) is None
    story.told(run, run.turns[-1].tools[0])
    assert fire(story.thread, first, T0 + 3 * DAY_MS) is None


def model_called(story: Story, run: Run, due_at_ms: int) -> None:
    story.happened(
        f.ModelCalled(
            run_id=run.run_id,
            turn=len(run.turns),
            attempt=1,
            agent_id="scripted",
            agent_version=1,
            model="scripted",
            shown=1,
            due_at_ms=due_at_ms,
        )
    )


def test_a_run_is_stopped_at_its_deadline_as_it_stands_now() -> None:
    story = Story()
    run = story.posted()
    assert fire(story.thread, run.run_id, T0 + DAY_MS) is None, "it has not begun"
    model_called(story, run, T0 + 1000)
    model_called(story, run, T0 + 5000)
    assert fire(story.thread, run.run_id, T0 + 4999) is None, "the list was old"
    stopped = fire(story.thread, run.run_id, T0 + 5000)
    assert isinstance(stopped, f.RunCancelling) and (stopped.run_id, stopped.code) == (run.run_id, "time_limit")
    story.happened(stopped)
    assert fire(story.thread, run.run_id, T0 + 6000) is None
    story.cancelled(run)
    assert fire(story.thread, run.run_id, T0 + 6000) is None


def test_a_parked_run_has_no_deadline() -> None:
    story = Story()
    run = story.posted()
    model_called(story, run, T0 + 1000)
    story.returned(run, use("publish", "t1"))
    story.requested(run)
    assert fire(story.thread, run.run_id, T0 + 1000) is not None, "it is not parked yet"
    story.waiting(run)
    assert fire(story.thread, run.run_id, T0 + DAY_MS) is None


def test_a_session_expires_when_nothing_happened_and_nothing_is_open() -> None:
    story = Story(THREAD, f.ThreadCreated(seed=ThreadSeed(user_id="ann", idle_s=60)))
    assert fire(story.thread, SESSION, T0 + 59_999) is None
    assert fire(story.thread, SESSION, T0 + 60_000) == f.ThreadExpired(idle_since_ms=T0)
    story.now_ms = T0 + 50_000
    run = story.posted()
    assert fire(story.thread, SESSION, T0 + DAY_MS) is None, "a run is open"
    story.returned(run, text("hi"))
    story.completed(run)
    story.happened(f.CommandRejected(command_type="x", code="invalid", message="m"))
    assert fire(story.thread, SESSION, T0 + 109_999) is None
    expired = fire(story.thread, SESSION, T0 + 110_000)
    assert expired == f.ThreadExpired(idle_since_ms=T0 + 50_000)
    story.happened(expired)
    assert fire(story.thread, SESSION, T0 + DAY_MS) is None


def test_a_refusal_is_no_activity() -> None:
    """It is not part of the thread: who loads it later does not see it."""
    story = Story(THREAD, f.ThreadCreated(seed=ThreadSeed(user_id="ann", idle_s=60)))
    story.now_ms += 50_000
    story.happened(f.CommandRejected(command_type="x", code="invalid", message="m"), causation_id="c")
    assert story.thread.last_ms == T0


def test_a_thread_without_a_limit_never_expires() -> None:
    story = Story(THREAD, f.ThreadCreated(seed=ThreadSeed(user_id="ann")))
    assert fire(story.thread, SESSION, T0 + 365 * DAY_MS) is None


def test_a_message_after_the_sessions_time_is_refused_though_no_timer_has_fired() -> None:
    story = Story(THREAD, f.ThreadCreated(seed=ThreadSeed(user_id="ann", idle_s=60)))
    story.now_ms = T0 + 59_999
    assert story.asked(SAY, "c1").type == "message.posted"
    [run] = story.thread.open_runs.values()
    story.cancelled(run)
    story.now_ms += 60_000
    assert code(story.asked(SAY, "c2")) == "session_expired"


def test_what_is_not_there_does_not_fire() -> None:
    story, run, _ = asked()
    for key in ("", "none", SESSION, f"{THREAD}.t99", run.answer_id):
        assert fire(story.thread, key, T0 + 9 * DAY_MS) is None
    assert fire(Story().thread, SESSION, T0) is None
