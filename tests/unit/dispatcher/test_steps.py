"""What a run does next follows from its journal alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from parley_dispatcher.state import Run
from parley_dispatcher.steps import CallModel, CallTools, Finish, Park, backoff_ms, next_step
from parley_events import facts as f
from parley_events.body import Limits
from tests.unit.dispatcher.journals import Journal, journals
from tests.unit.dispatcher.story import DAY_MS, T0, Story, text, use

LIMITS = Limits()


def step(run: Run, limits: Limits = LIMITS, now_ms: int = T0) -> object:
    return next_step(run, limits, now_ms)


def test_a_new_run_calls_the_model() -> None:
    assert step(Story().posted()) == CallModel(0, 1, 0)


def test_a_call_that_nobody_ended_is_made_anew_with_the_next_attempt() -> None:
    story = Story()
    run = story.posted()
    story.called(run)
    assert step(run) == CallModel(0, 2, 0)


def test_a_failed_call_is_made_again_after_its_pause_or_ends_the_run() -> None:
    story = Story()
    run = story.posted()
    story.failed(run, wait_ms=500)
    assert step(run) == CallModel(0, 2, T0 + 500)
    story.called(run)
    story.failed(run, kind="400", retry=False)
    finish = step(run)
    assert isinstance(finish, Finish) and isinstance(finish.body, f.RunFailed)
    assert (finish.body.code, finish.body.message, finish.body.usage.input_tokens) == ("model_400", "no", 2)


def test_calls_without_a_result_come_before_the_next_turn() -> None:
    story = Story()
    run = story.posted()
    call = story.returned(run, use(call_id="t1"), use(call_id="t2"))
    assert step(run) == CallTools(call, tuple(run.turns[0].tools))
    story.tool_called(run, 0)
    story.tool_returned(run, 0)
    assert step(run) == CallTools(call, (run.turns[0].tools[1],))
    story.tool_called(run, 1)
    assert step(run) == CallTools(call, (run.turns[0].tools[1],)), "called and not returned is open, too"
    story.tool_returned(run, 1)
    assert step(run) == CallModel(1, 1, 0)


def test_a_turn_without_calls_completes_the_run() -> None:
    story = Story()
    run = story.posted()
    story.returned(run, text("bye"), stop="max_tokens")
    finish = step(run)
    assert isinstance(finish, Finish) and isinstance(finish.body, f.RunCompleted)
    assert (finish.body.stop_reason, finish.body.usage, finish.body.message_id) == (
        "max_tokens",
        run.usage,
        run.answer_id,
    )


def test_a_cancelled_run_only_ends() -> None:
    story = Story()
    run = story.posted()
    story.returned(run, use())
    story.cancelling(run)
    finish = step(run)
    assert isinstance(finish, Finish) and isinstance(finish.body, f.RunCancelled)
    assert (finish.body.by, finish.body.reason) == ("ann", "enough")


def test_a_run_that_ended_or_waits_has_no_step() -> None:
    story = Story()
    run = story.posted()
    story.happened(f.RunWaiting(run_id=run.run_id, waits_for="approval", tool_call_ids=()))
    assert step(run) is None
    story.cancelled(run)
    assert step(run) is None


def test_steps_and_seconds_are_limited_between_turns() -> None:
    story = Story()
    run = story.posted()
    story.returned(run, use())
    story.tool_returned(run)
    over = step(run, Limits(steps=1))
    assert isinstance(over, Finish) and isinstance(over.body, f.RunFailed) and over.body.code == "step_limit"
    late = step(run, Limits(seconds=10), T0 + 10_001)
    assert isinstance(late, Finish) and isinstance(late.body, f.RunFailed) and late.body.code == "time_limit"
    assert step(run, Limits(seconds=10), T0 + 10_000) == CallModel(1, 1, 0)


def test_the_last_turn_counts_though_the_limit_is_reached_with_it() -> None:
    story = Story()
    run = story.posted()
    story.returned(run, text("bye"))
    finish = step(run, Limits(steps=1), T0 + 10**9)
    assert isinstance(finish, Finish) and isinstance(finish.body, f.RunCompleted)


@pytest.mark.parametrize(("failures", "pause"), [(1, 500), (2, 1000), (3, 2000), (7, 30_000), (10**6, 30_000)])
def test_pauses_double_up_to_half_a_minute(failures: int, pause: int) -> None:
    assert backoff_ms(500, failures) == pause


@settings(max_examples=30)
@given(journals())
def test_every_open_run_has_a_step_that_fits_its_journal(journal: Journal) -> None:
    for run in journal.state.runs.values():
        found = next_step(run, LIMITS, T0)
        if run.ended or run.status == "waiting":
            assert found is None
        elif run.status == "cancelling":
            assert isinstance(found, Finish) and isinstance(found.body, f.RunCancelled)
        elif isinstance(found, CallTools):
            assert found.call == run.turns[-1].call
            assert found.uses and all(one.open and one.waits_for is None for one in found.uses)
        elif isinstance(found, Park):
            waiting = [one for one in run.turns[-1].tools if one.open]
            assert waiting and all(one.waits_for is not None for one in waiting)
            assert found.body.tool_call_ids == tuple(one.tool_call_id for one in waiting)
        elif isinstance(found, CallModel):
            assert (found.turn, found.attempt) == (len(run.turns), run.attempt + 1)
            assert (
                run.failed is not None
                or run.call is not None
                or not any(one.open for turn in run.turns[-1:] for one in turn.tools)
            )
        else:
            assert isinstance(found, Finish)


def test_a_paused_turn_goes_on_and_one_that_was_given_up_is_over_with_its_calls() -> None:
    story = Story()
    run = story.posted()
    story.returned(run, text("I search"), stop="pause_turn")
    assert step(run) == CallModel(1, 1, 0)
    assert isinstance(step(run, Limits(steps=1)), Finish), "it does not pause for ever"
    for reason in ("refusal", "model_context_window_exceeded"):
        story = Story()
        other = story.posted()
        story.returned(other, use(), stop=reason)
        finish = step(other)
        assert isinstance(finish, Finish) and isinstance(finish.body, f.RunCompleted)
        assert finish.body.stop_reason == reason


# ---- waiting


def test_a_run_parks_only_when_nothing_is_left_to_do() -> None:
    story = Story()
    run = story.posted()
    story.returned(run, use("pay", "t1"), use("weather", "t2"), use("clock", "t3"))
    story.requested(run, 0)
    story.handed_over(run, 1)
    found = step(run)
    assert isinstance(found, CallTools) and [one.tool_call_id for one in found.uses] == ["t3"]
    story.tool_returned(run, 2)
    parked = step(run)
    assert isinstance(parked, Park)
    assert parked.body == f.RunWaiting(
        run_id=run.run_id, waits_for="approval", tool_call_ids=("t1", "t2"), due_at_ms=T0 + DAY_MS
    )
    story.waiting(run)
    assert step(run) is None
    story.decided(run, run.turns[-1].tools[0], "denied")
    again = step(run)
    assert isinstance(again, CallTools) and [one.tool_call_id for one in again.uses] == ["t1"]
    story.tool_returned(run, 0, "denied")
    client = step(run)
    assert isinstance(client, Park) and client.body.waits_for == "client_tool"
    assert client.body.due_at_ms == T0 + 2 * DAY_MS


def test_the_time_that_a_run_was_parked_is_not_its_own() -> None:
    story = Story()
    run = story.posted()
    story.returned(run, use("weather", "t1"))
    story.handed_over(run)
    story.waiting(run)
    story.now_ms += DAY_MS
    story.told(run, run.turns[-1].tools[0])
    assert run.parked_ms == DAY_MS
    limits = Limits(seconds=10)
    assert step(run, limits, T0 + DAY_MS + 10_000) == CallModel(1, 1, 0)
    late = step(run, limits, T0 + DAY_MS + 10_001)
    assert isinstance(late, Finish) and isinstance(late.body, f.RunFailed) and late.body.code == "time_limit"
    assert run.deadline_ms(10, 0) == T0 + DAY_MS + 10_000


def test_a_run_that_a_timer_stops_fails_with_its_code() -> None:
    story = Story()
    run = story.posted()
    story.called(run)
    story.happened(f.RunCancelling(run_id=run.run_id, by="parley", reason="too long", code="time_limit"))
    finish = step(run)
    assert isinstance(finish, Finish) and isinstance(finish.body, f.RunFailed)
    assert (finish.body.code, finish.body.message) == ("time_limit", "too long")


def test_who_stops_a_run_first_is_on_record_and_its_children_stop_with_it() -> None:
    story = Story()
    run = story.posted()
    for parent, child in ((run.run_id, "child"), ("child", "grandchild")):
        story.happened(
            f.ChildStarted(run_id=child, parent_run_id=parent, tool_call_id="t", agent_id="a", agent_version=1, text="")
        )
    story.cancelling(run)
    story.happened(f.ThreadCancelling(by="bob"))
    assert {one.status for one in story.thread.open_runs.values()} == {"cancelling"}
    assert {one.cancelled_by for one in story.thread.open_runs.values()} == {"ann"}
