"""What answers mean: given facts, when somebody answers, then one outcome; and what comes too late, or from others."""

from __future__ import annotations

from typing import Any

import pytest

from parley_dispatcher import answers
from parley_dispatcher.state import Run
from parley_events import commands as c
from parley_events import facts as f
from parley_events.body import Principal
from tests.unit.dispatcher.story import Story, code, use
from tests.unit.dispatcher.world import ANN, BOB

ADMIN = Principal(user_id="root", admin=True)
ELSEWHERE = "99999999-2222-4333-8444-555555555555"
SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "times": {"type": "integer"}},
    "required": ["text"],
    "additionalProperties": False,
}


def asked(**more: Any) -> tuple[Story, Run, str]:
    """A run that waits for an approval, and its id."""
    story = Story()
    run = story.posted()
    story.returned(run, use("publish", "t1"))
    approval = story.requested(run, **{"input_schema": SCHEMA} | more)
    story.waiting(run)
    return story, run, approval


def handed(*ids: str) -> tuple[Story, Run]:
    """A run that waits for results of its client."""
    story = Story()
    run = story.posted()
    story.returned(run, *(use("weather", one) for one in ids))
    for index in range(len(ids)):
        story.handed_over(run, index)
    story.waiting(run)
    return story, run


def approval_answer(approval: str, decision: Any = "approve", **more: Any) -> c.AnswerApproval:
    fields: dict[str, Any] = {"principal": ANN} | more
    return c.AnswerApproval(approval_id=approval, decision=decision, **fields)


def tool_answer(tool_call_id: str, **more: Any) -> c.AnswerTool:
    fields: dict[str, Any] = {"principal": ANN, "result": "rain"} | more
    return c.AnswerTool(tool_call_id=tool_call_id, **fields)


# ---- approvals


def test_an_answer_wakes_the_run_and_says_who_gave_it() -> None:
    story, run, approval = asked()
    outcome = story.asked(approval_answer(approval, principal=BOB, comment="so", arguments={"text": "x"}))
    assert outcome == f.ApprovalAnswered(
        approval_id=approval,
        run_id=run.run_id,
        decision="approve",
        by="bob",
        comment="so",
        arguments={"text": "x"},
    )
    assert run.status == "running" and run.turns[-1].tools[0].given == {"text": "x"}


def test_whoever_may_approve_need_not_own_the_thread_but_must_be_of_its_workspace() -> None:
    story, _, approval = asked()
    assert code(story.asked(approval_answer(approval), "c1", workspace_id=ELSEWHERE)) == "not_found"
    assert story.asked(approval_answer(approval, principal=BOB), "c2").type == "approval.answered"


@pytest.mark.parametrize(
    ("who", "principal", "may"),
    [
        ((), BOB, True),
        (("bob",), BOB, True),
        (("bob",), ANN, False),
        (("bob",), ADMIN, True),
        (("x", "ann"), ANN, True),
    ],
)
def test_the_terms_may_name_who_answers(who: tuple[str, ...], principal: Principal, may: bool) -> None:
    story, _, approval = asked(who=who)
    outcome = story.asked(approval_answer(approval, principal=principal))
    assert outcome.type == "approval.answered" if may else code(outcome) == "forbidden"


@pytest.mark.parametrize(
    "before", ["answered", "denied", "expired", "returned", "cancelling", "thread", "ended", "deleted"]
)
def test_what_is_not_open_any_more_takes_no_answer(before: str) -> None:
    story, run, approval = asked()
    one = run.turns[-1].tools[0]
    match before:
        case "answered" | "denied":
            story.asked(approval_answer(approval, "approve" if before == "answered" else "deny"), "c1")
        case "expired":
            story.decided(run, one, "approval_expired")
        case "returned":
            story.tool_returned(run)
        case "cancelling":
            story.cancelling(run)
        case "thread":
            story.happened(f.ThreadCancelling(by="ann"))
        case "ended":
            story.cancelled(run)
        case "deleted":
            story.happened(f.ThreadDeleted())
    wanted = "not_found" if before == "deleted" else "not_open"
    assert code(story.asked(approval_answer(approval), "c2")) == wanted
    assert code(story.asked(approval_answer("none"), "c3")) == "not_found"


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({}, "'text' is missing"),
        ({"text": 1}, "'text' is not of the type string"),
        ({"text": "x", "times": True}, "'times' is not of the type integer"),
        ({"text": "x", "more": 1}, "'more' is not known"),
        ({"text": "x", "times": 3}, None),
    ],
)
def test_edited_arguments_must_fit_what_was_asked(arguments: dict[str, Any], wrong: str | None) -> None:
    story, _, approval = asked()
    outcome = story.asked(approval_answer(approval, arguments=arguments))
    if wrong is None:
        assert outcome.type == "approval.answered"
    else:
        assert (code(outcome), outcome.message) == ("invalid", f"arguments: {wrong}")


def test_a_denial_has_no_arguments_and_a_comment_is_short() -> None:
    story, _, approval = asked()
    assert code(story.asked(approval_answer(approval, "deny", arguments={"text": "x"}), "c1")) == "invalid"
    long = "x" * (answers.MAX_COMMENT_CHARS + 1)
    assert code(story.asked(approval_answer(approval, comment=long), "c2")) == "invalid"


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "(a+)+$", "properties": {"text": {"type": "string", "pattern": "(a+)+$"}}},
        {"$ref": "#", "properties": {"text": {"$ref": "#/properties/text"}}},
        {"type": ["object", "null"], "required": "text", "properties": []},
        {"properties": {"text": True}, "additionalProperties": {"type": "string"}},
    ],
)
def test_no_schema_holds_anything_up_or_breaks_anything(schema: dict[str, Any]) -> None:
    story, _, approval = asked(input_schema=schema)
    assert story.asked(approval_answer(approval, arguments={"text": "a" * 100_000 + "b"})).type == "approval.answered"


def test_an_answer_that_comes_again_is_told_its_first_outcome() -> None:
    story, _, approval = asked()
    story.asked(approval_answer(approval, comment="so"), "c1")
    again = story.asked(approval_answer(approval, comment="so"), "c1")
    assert (again.type, again.outcome_type) == ("command.repeated", "approval.answered")
    assert again.first["approval_id"] == approval and "comment" not in again.first


# ---- results of clients


def statuses(story: Story) -> list[str]:
    return [run.status for run in story.thread.open_runs.values()]


def test_a_result_closes_its_call_and_says_which_are_left() -> None:
    story, run = handed("t1", "t2")
    first = story.asked(tool_answer("t2"), "c1")
    assert (first.run_id, first.index, first.pending) == (run.run_id, 1, ("t1",))
    assert statuses(story) == ["waiting"], "nothing is to be done yet"
    last = story.asked(tool_answer("t1", run_id=run.run_id, is_error=True), "c2")
    assert last.pending == () and statuses(story) == ["running"]
    assert [one.status for one in run.turns[-1].tools] == ["error", "ok"]


def test_a_result_of_nothing_or_for_another_run_or_too_late_is_refused() -> None:
    story, run = handed("t1")
    assert code(story.asked(tool_answer("t9"), "c1")) == "not_found"
    assert code(story.asked(tool_answer("t1", run_id="other"), "c2")) == "not_found"
    assert code(story.asked(tool_answer("t1", principal=BOB), "c3")) == "not_found"
    assert code(story.asked(tool_answer("t1"), "c4", workspace_id=ELSEWHERE)) == "not_found"
    story.told(run, run.turns[-1].tools[0], "tool_expired")
    assert code(story.asked(tool_answer("t1"), "c5")) == "not_open"


@pytest.mark.parametrize(
    "stopped", [f.ThreadCancelling(by="ann"), f.ThreadCleared(by="ann")], ids=lambda body: body.type
)
def test_a_run_that_is_being_stopped_takes_no_result(stopped: f.FactBody) -> None:
    story, _ = handed("t1")
    story.happened(stopped)
    assert code(story.asked(tool_answer("t1"))) == "not_open"


def test_a_server_side_call_is_not_the_clients_to_answer() -> None:
    story = Story()
    run = story.posted()
    story.returned(run, use("pay", "t1"), use("publish", "t2"))
    story.tool_called(run, 0)
    story.requested(run, 1)
    assert code(story.asked(tool_answer("t1"), "c1")) == "not_open"
    assert code(story.asked(tool_answer("t2"), "c2")) == "not_open"


def test_of_two_calls_with_one_id_the_oldest_open_one_is_answered() -> None:
    story, _ = handed("t1", "t1")
    assert (story.asked(tool_answer("t1"), "c1").index, statuses(story)) == (0, ["waiting"])
    assert (story.asked(tool_answer("t1"), "c2").index, statuses(story)) == (1, ["running"])


def test_a_result_that_is_too_long_is_refused_and_no_nul_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_RESULT_CHARS", 4)
    story, _ = handed("t1")
    assert code(story.asked(tool_answer("t1", result="12345"), "c1")) == "too_large"
    assert story.asked(tool_answer("t1", result="a\x00b"), "c2").result == "a\ufffdb"


@pytest.mark.parametrize("kind", ["client_tool", "approval"])
def test_a_message_closes_the_calls_of_the_client_unless_a_person_is_asked_too(kind: str) -> None:
    story = Story()
    run = story.posted()
    story.returned(run, use("weather", "t1"), use("publish", "t2"))
    story.handed_over(run, 0)
    if kind == "approval":
        story.requested(run, 1)
    story.waiting(run)
    story.posted("two")
    gone = run.turns[-1].tools[0].given_up
    assert (gone, run.status) == (("moved_on", "running") if kind == "client_tool" else (None, "waiting"))


# ---- calls of which nobody knows


def unknown(story: Story, name: str, call_id: str = "t1") -> Run:
    run = story.posted(name)
    story.returned(run, use("pay", call_id))
    story.tool_called(run)
    story.tool_returned(run, 0, "unknown")
    story.completed(run)
    return run


def settle(**more: Any) -> c.SettleTool:
    fields: dict[str, Any] = {"principal": ANN, "tool_call_id": "t1", "happened": True} | more
    return c.SettleTool(**fields)


def test_what_became_of_an_unknown_call_is_said_once_though_the_run_has_ended() -> None:
    story = Story()
    run = unknown(story, "one")
    outcome = story.asked(settle(comment="seen"), "c1")
    call = run.turns[0].call
    assert outcome == f.ToolSettled(
        run_id=run.run_id, tool_call_id="t1", happened=True, by="ann", comment="seen", call=call, index=0
    )
    assert code(story.asked(settle(happened=False), "c2")) == "not_open"
    assert code(story.asked(settle(tool_call_id="t9"), "c3")) == "not_found"
    assert code(story.asked(settle(principal=BOB), "c4")) == "not_found"


def test_a_call_whose_outcome_is_known_is_not_settled() -> None:
    story = Story()
    run = story.posted()
    story.returned(run, use("pay", "t1"))
    story.tool_called(run)
    assert code(story.asked(settle(), "c1")) == "not_open"
    story.tool_returned(run)
    assert code(story.asked(settle(), "c2")) == "not_open"


def test_where_two_runs_have_such_a_call_the_run_must_be_named() -> None:
    story = Story()
    unknown(story, "one")
    second = unknown(story, "two")
    assert code(story.asked(settle(), "c1")) == "invalid"
    assert story.asked(settle(run_id=second.run_id), "c2").run_id == second.run_id
    assert story.asked(settle(), "c3").run_id != second.run_id, "one is left"
