"""Random journals of a thread: whatever a dispatcher may have recorded, stopped at any place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from parley_dispatcher.state import Run, ThreadState
from parley_events import facts as f
from parley_events.body import Block
from parley_events.codec import Fact
from tests.unit.dispatcher.story import Story

words = st.sampled_from(["", "a", "two words ", "ü😀", "line\nbreak"])
blocks = st.one_of(
    st.builds(Block, kind=st.just("text"), text=words),
    st.builds(Block, kind=st.just("thought"), text=words, signature=st.sampled_from([None, "sig"])),
    st.builds(Block, kind=st.just("opaque"), data=st.just({"type": "redacted_thinking", "data": "EmwK"})),
    st.builds(
        Block,
        kind=st.just("tool"),
        tool_call_id=st.sampled_from(["t1", "t2", "t3"]),
        name=st.sampled_from(["clock", "held"]),
        arguments=st.sampled_from([{}, {"a": 1}]),
    ),
)


@dataclass
class Journal:
    """The facts, and the state that they were folded into as they happened."""

    facts: list[Fact]
    state: ThreadState


class _Recording(Story):
    def __init__(self) -> None:
        super().__init__()
        self.facts: list[Fact] = []

    def happened(self, body: f.FactBody, **envelope: Any) -> int:
        seq = super().happened(body, **envelope)
        self.facts.append(
            Fact(
                type=body.type,
                stream=self.state.stream,
                seq=seq or None,
                epoch=0,
                workspace_id=self.state.workspace_id,
                time_ms=self.now_ms,
                body=body,
                **envelope,
            )
        )
        return seq


def _moves(run: Run) -> list[str]:
    """What may be recorded next of the run whose turn it is."""
    if run.status == "cancelling":
        return ["cancelled"]
    moves = ["cancelling", "thread_cancelling", "cancelled", "run_failed"]
    last = run.turns[-1] if run.turns else None
    waiting = last is not None and run.call is None and run.failed is None and any(use.open for use in last.tools)
    kinds = {use.waits_for for use in run.waiting}
    if run.call is not None:
        moves += ["returned", "failed", "called"]
    elif waiting:
        moves += ["tool_called", "tool_returned", "requested", "handed_over", "waiting"]
        moves += ["approved", "denied", "approval_expired"] if "approval" in kinds else []
        moves += ["tool_answered", "tool_expired"] if "client_tool" in kinds else []
    elif last is not None and not last.tools and run.failed is None:
        moves += ["completed"]
    else:
        moves += ["called"]
    return moves


@st.composite
def journals(draw: st.DrawFn) -> Journal:
    """A thread's life of up to some 30 facts."""
    story = _Recording()
    for step in range(draw(st.integers(1, 30))):
        story.now_ms += draw(st.integers(0, 1000))
        run = story.thread.current()
        if run is None or draw(st.integers(0, 5)) == 0:
            story.posted(f"m{step}", draw(words))
            continue
        match draw(st.sampled_from(_moves(run))):
            case "called":
                story.called(run)
            case "returned":
                story.returned(run, *draw(st.lists(blocks, max_size=4)))
            case "failed":
                story.failed(run, retry=draw(st.booleans()))
            case "tool_called":
                uses = [use.index for use in run.turns[-1].tools if use.called is None]
                if uses:
                    story.tool_called(run, draw(st.sampled_from(uses)))
            case "tool_returned":
                index = draw(st.sampled_from([use.index for use in run.turns[-1].tools if use.open]))
                story.tool_returned(run, index, draw(st.sampled_from(["ok", "error", "unknown", "cancelled"])))
            case "completed":
                story.completed(run)
            case "requested":
                fresh = [
                    use.index for use in run.turns[-1].tools if use.called is None and use.asked is None and use.open
                ]
                if fresh:
                    story.requested(run, draw(st.sampled_from(fresh)))
            case "handed_over":
                fresh = [use.index for use in run.turns[-1].tools if use.called is None and use.waits_for is None]
                if fresh:
                    story.handed_over(run, draw(st.sampled_from(fresh)))
            case "waiting":
                if run.status == "running" and all(use.waits_for for use in run.turns[-1].tools if use.open):
                    story.waiting(run)
            case "approved" | "denied" | "approval_expired" as move:
                asked = [use for use in run.waiting if use.waits_for == "approval"]
                story.decided(run, draw(st.sampled_from(asked)), move)
            case "tool_answered" | "tool_expired" as move:
                handed = [use for use in run.waiting if use.waits_for == "client_tool"]
                story.told(run, draw(st.sampled_from(handed)), move)
            case "thread_cancelling":
                story.happened(f.ThreadCancelling(by="ann", run_ids=tuple(story.thread.open_runs)))
            case "cancelling":
                story.cancelling(run)
            case "cancelled":
                story.cancelled(run, *draw(st.lists(blocks, max_size=2)))
            case "run_failed":
                story.happened(
                    f.RunFailed(run_id=run.run_id, message_id=run.answer_id, code="x", message="x", usage=run.usage)
                )
        unknown = [(one, use) for one in story.thread.runs.values() for _, use in one.uses() if use.status == "unknown"]
        if draw(st.booleans()) and unknown:
            run, use = draw(st.sampled_from(unknown))
            story.settled(run, use, happened=draw(st.booleans()))
        if draw(st.integers(0, 30)) == 0:
            story.happened(f.ThreadCleared())
    return Journal(story.facts, story.thread)
