"""What it means to fork a thread. Pure; beside `decide`, which lists it.

The source is not asked: it lies on another partition, with another owner. Who asks has read it, and the command brings
along what is copied.
"""

from __future__ import annotations

from parley_dispatcher.refusals import Refused
from parley_dispatcher.state import ThreadState, evolve
from parley_events import facts as f
from parley_events import ids
from parley_events.codec import Command, Fact
from parley_events.commands import ForkThread


def fork_thread(state: ThreadState, command: Command, body: ForkThread) -> f.FactBody:
    """The past is folded once on trial: what makes no sense, would run on here, or belongs to another thread must not
    get onto the log."""
    if state.exists:
        raise Refused("exists", "there is a thread of this id already")
    if body.seed is None or body.at is None:
        raise Refused("invalid", "a fork needs at, seed and past: who asks for it reads them off the source")
    forked = f.ThreadForked(
        source_thread_id=body.source_thread_id, at=body.at, seed=body.seed, title=body.title, past=body.past
    )
    trial = ThreadState(state.stream)
    try:
        evolve(trial, Fact(forked.type, state.stream, 1, 0, command.workspace_id, command.time_ms, forked))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise Refused("invalid", "the past makes no sense") from None
    if trial.open_runs:
        raise Refused("invalid", "a run of the past has no end")
    if any(ids.thread_of(run) != state.stream for run in trial.runs):
        raise Refused("invalid", "a run of the past belongs to another thread")
    return forked
