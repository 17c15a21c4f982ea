"""What is due when: one row per timer, by its stream and key. History lists them, the partition's owner fires them."""

from __future__ import annotations

from parley_events.codec import Fact
from parley_events.facts import ThreadRead
from parley_history.projections.rows import DueRow, RunRow, View

SESSION = "session"
"""The key of the time at which an idle thread expires."""


def set_due(view: View, fact: Fact, due_key: str, run_id: str, due_ms: int) -> None:
    """Something is due, or due at another time than before. `run_id`: the run with whose end it is over."""
    key = (fact.stream, due_key)
    view.dues[key] = DueRow(
        stream=fact.stream,
        due_key=due_key,
        partition=view.partition,
        workspace_id=fact.workspace_id,
        run_id=run_id,
        due_ms=due_ms,
    )
    if run_id:
        view.dues_by_run.setdefault(run_id, []).append(key)


def drop_due(view: View, stream: str, due_key: str) -> None:
    """It is due no more."""
    view.dues[(stream, due_key)] = None


def drop_dues_of(view: View, run: RunRow) -> None:
    """The run has ended, and with it whatever was due in it."""
    for key in view.dues_by_run.pop(run.id, ()):
        due = view.dues[key]
        if due is not None and due.run_id == run.id:
            view.dues[key] = None
    view.dues_of[(run.thread_id, run.id)] = None


def session_due(view: View, fact: Fact) -> None:
    """After any fact of a thread: it expires when nothing has happened in it for so long, and nothing runs in it. That
    someone has read it is nothing that happened."""
    thread = view.threads.get(fact.stream)
    if thread is None or thread.idle_s is None or fact.body.__class__ is ThreadRead:
        return
    if thread.open_runs or thread.expired or thread.deleted:
        drop_due(view, fact.stream, SESSION)
    else:
        set_due(view, fact, SESSION, "", fact.time_ms + thread.idle_s * 1000)
