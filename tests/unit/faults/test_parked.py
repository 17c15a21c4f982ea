"""What is waited for, as the checker works it out from facts: approvals, and what is due when."""

from __future__ import annotations

from typing import Any

from parley_events import facts as f
from parley_events import ids
from parley_events.body import Author, ThreadSeed, Usage
from parley_events.codec import Fact
from tests.faults.check.parked import approvals, dues

THREAD = "10000000-0000-4000-8000-000000000001"
RUN = ids.run_id(THREAD, "c1")


class Story:
    """A thread's facts, each a second after the one before."""

    def __init__(self, idle_s: int | None = None) -> None:
        self.facts: list[Fact] = []
        self.say(
            f.MessagePosted(
                message_id="m",
                run_id=RUN,
                answer_id="a",
                disposition="started",
                author=Author(id="ann"),
                agent_id="scripted",
                agent_version=1,
                text="hi",
                opened=ThreadSeed(idle_s=idle_s),
            )
        )

    def say(self, body: f.FactBody) -> int:
        seq = len(self.facts) + 1
        self.facts.append(Fact(body.type, THREAD, seq, 0, "w", seq * 1000, body, run_id=getattr(body, "run_id", None)))
        return seq

    def asks(self, index: int = 0, due_at_ms: int = 50_000) -> str:
        """An approval; its id."""
        body = f.ApprovalRequested(
            run_id=RUN, call=2, index=index, tool_call_id="t", name="pay", arguments={}, due_at_ms=due_at_ms
        )
        return ids.approval_id(THREAD, self.say(body))

    def client_tool(self, index: int = 1, due_at_ms: int = 60_000) -> str:
        """A call that the client runs; the key of its timer."""
        body = f.ToolCalled(
            run_id=RUN,
            call=2,
            index=index,
            tool_call_id="t",
            name="weather",
            arguments={},
            effect="client",
            effect_key="k",
            due_at_ms=due_at_ms,
        )
        return ids.fact_message_id(THREAD, self.say(body))

    def calls(self, due_at_ms: int | None) -> None:
        self.say(
            f.ModelCalled(
                run_id=RUN,
                turn=0,
                attempt=1,
                agent_id="scripted",
                agent_version=1,
                model="m",
                shown=1,
                due_at_ms=due_at_ms,
            )
        )

    def parks(self) -> None:
        self.say(f.RunWaiting(run_id=RUN, waits_for="approval", tool_call_ids=("t",), due_at_ms=50_000))

    def ends(self) -> None:
        self.say(f.RunCompleted(run_id=RUN, message_id="a", stop_reason="end_turn", usage=Usage()))

    @property
    def due(self) -> dict[str, int]:
        return {key: due_ms for _, key, due_ms in dues(self.facts)}

    def status(self, approval_id: str) -> Any:
        return approvals(self.facts)[approval_id]["status"]


def test_what_is_asked_is_due_until_it_is_answered() -> None:
    story = Story()
    first, second = story.asks(0), story.asks(1, 55_000)
    client = story.client_tool()
    story.parks()
    assert story.due == {first: 50_000, second: 55_000, client: 60_000}
    story.say(f.ApprovalAnswered(approval_id=first, run_id=RUN, decision="deny", by="ann", comment="no"))
    story.say(f.ApprovalExpired(approval_id=second, run_id=RUN))
    assert (story.status(first), story.status(second)) == ("denied", "expired")
    assert story.due == {client: 60_000}
    story.say(f.ToolAnswered(run_id=RUN, tool_call_id="t", result="sunny", call=2, index=1))
    assert story.due == {}


def test_a_clients_tool_that_expired_is_due_no_more() -> None:
    story = Story()
    story.client_tool()
    story.say(f.ToolExpired(run_id=RUN, call=2, index=1, tool_call_id="t"))
    assert story.due == {}


def test_a_runs_deadline_stands_still_while_it_is_parked() -> None:
    story = Story()
    story.calls(90_000)
    assert story.due == {RUN: 90_000}
    story.calls(91_000)
    assert story.due == {RUN: 91_000}
    story.parks()
    assert story.due == {}
    story.calls(95_000)
    story.ends()
    assert story.due == {}


def test_the_end_of_a_run_closes_what_was_asked() -> None:
    story = Story()
    approval = story.asks()
    story.client_tool()
    story.ends()
    assert story.status(approval) == "closed"
    assert story.due == {}


def test_a_cleared_thread_has_no_approvals() -> None:
    story = Story()
    story.asks()
    story.say(f.ThreadCleared(by="ann"))
    story.asks()
    assert approvals(story.facts) == {}


def test_an_idle_thread_is_due_when_nothing_runs() -> None:
    story = Story(idle_s=10)
    assert story.due == {}
    story.ends()
    assert story.due == {"session": 12_000}
    story.say(f.ThreadRead(user_id="ann", up_to=1))
    assert story.due == {"session": 13_000}
    story.say(f.ThreadExpired(idle_since_ms=3_000))
    assert story.due == {}
