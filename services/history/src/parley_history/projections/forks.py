"""Forks: a thread that begins with the messages of another.

What a `thread.forked` took over is folded as any facts of a run are, onto rows of its own, of which messages, files and
runs are kept. The runs ran in the source, and used nothing here: so nothing is counted twice. What their tools put on
record (decisions, skills) stays the source's, and so do approvals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from parley_events import facts as f
from parley_events.body import Usage
from parley_events.codec import Fact
from parley_events.retelling import retold
from parley_history.projections import runs, threads, tools
from parley_history.projections.rows import View

PAST: dict[str, Callable[[View, Fact, Any], None]] = {
    f.MessagePosted.type: threads.message_posted,
    f.ChildStarted.type: runs.child_started,
    f.ModelCalled.type: runs.model_called,
    f.ModelReturned.type: runs.model_returned,
    f.ModelFailed.type: runs.model_failed,
    f.ToolCalled.type: tools.tool_called,
    f.ToolReturned.type: tools.tool_returned,
    f.ToolAnswered.type: tools.tool_answered,
    f.ToolExpired.type: tools.tool_expired,
    f.ToolSettled.type: tools.tool_settled,
    f.RunWaiting.type: runs.run_waiting,
    f.RunCancelling.type: runs.run_cancelling,
    f.RunCompleted.type: runs.run_completed,
    f.RunFailed.type: runs.run_failed,
    f.RunCancelled.type: runs.run_cancelled,
}
"""What the facts of a past do to the messages."""


def thread_forked(view: View, fact: Fact, body: f.ThreadForked) -> None:
    """The thread, with the messages and files that it took over: their seqs are at most 0, so its own come after."""
    row = threads.open_thread(view, fact, body.seed)
    row.forked_from, row.forked_at = body.source_thread_id, body.at
    if body.title is not None:
        row.title = body.title
    row.cleared_seq = body.past[0].seq - 1 if body.past else 0
    aside = View(threads=[row])
    aside.partition = view.partition
    for past in retold(fact):
        apply = PAST.get(past.type)
        if apply is not None:
            apply(aside, past, past.body)
    view.messages |= aside.messages
    view.files |= aside.files
    for run in aside.runs.all():
        run.usage = Usage()
        view.runs.put(run)
