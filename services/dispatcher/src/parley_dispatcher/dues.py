"""What a timer means when it fires: a due key and a time → the fact that follows, or nothing. Pure.

History lists dues as it knows them, which may be late: what was answered, expired or put off since then is still in its
list. So everything is judged here by the state, and a timer that means nothing any more has no outcome; by that each
due takes effect once, whoever fires it and however often. The owner's loop is `timers`.
"""

from __future__ import annotations

from parley_dispatcher.runs import Run, ToolUse, Turn
from parley_dispatcher.state import ThreadState
from parley_events import facts as f

SESSION = "session"
"""The due key of a thread's expiry; others are an approval's, a message's or a run's id."""


def fire(state: ThreadState, due_key: str, now_ms: int) -> f.FactBody | None:
    """The fact that follows, at the owner's time; None: nothing does."""
    if state.deleted or not state.exists:
        return None
    if due_key == SESSION:
        return f.ThreadExpired(idle_since_ms=state.last_ms) if state.idle(now_ms) and not state.expired else None
    if due_key in state.approvals:
        return _approval(*state.approvals[due_key], now_ms)
    run = state.open_runs.get(due_key)
    if run is not None:
        return _deadline(run, now_ms)
    for run in state.open_runs.values():
        for turn, use in run.uses():
            if use.message_id == due_key:
                return _client_call(run, turn, use, now_ms)
    return None


def _approval(run: Run, use: ToolUse, now_ms: int) -> f.FactBody | None:
    asked = use.asked
    if asked is None or asked.decision is not None or not use.open or run.stopped or asked.due_at_ms > now_ms:
        return None
    return f.ApprovalExpired(approval_id=asked.approval_id, run_id=run.run_id)


def _client_call(run: Run, turn: Turn, use: ToolUse, now_ms: int) -> f.FactBody | None:
    if use.waits_for != "client_tool" or run.stopped or use.due_at_ms is None or use.due_at_ms > now_ms:
        return None
    return f.ToolExpired(run_id=run.run_id, call=turn.call, index=use.index, tool_call_id=use.tool_call_id)


def _deadline(run: Run, now_ms: int) -> f.FactBody | None:
    """A run that is parked has none: it gets another one when it goes on."""
    if run.stopped or run.due_at_ms is None or run.due_at_ms > now_ms:
        return None
    ran_s = (run.due_at_ms - run.parked_ms - (run.started_ms or 0)) // 1000
    return f.RunCancelling(
        run_id=run.run_id, by="parley", reason=f"the run took {ran_s} s, which is its limit", code="time_limit"
    )
