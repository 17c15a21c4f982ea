"""What a run does next: `next_step(run, …)`, a pure function of its journal.

The runner performs the step, records what came of it, and asks again; after a takeover the new owner asks the same
question of the same facts, so a run goes on where its journal ends.
"""

from __future__ import annotations

from dataclasses import dataclass

from parley_dispatcher.state import Run, ToolUse
from parley_dispatcher.teams import Place, due, spoke
from parley_events import facts as f
from parley_events.body import Block, Limits


@dataclass(frozen=True, slots=True)
class CallModel:
    """Call the model for turn `turn` (from 0), for the `attempt`-th time, not before `not_before_ms`."""

    turn: int
    attempt: int
    not_before_ms: int


@dataclass(frozen=True, slots=True)
class CallTools:
    """See to the calls that have no result and wait for nobody, all of one model turn; `call` is that turn's."""

    call: int
    uses: tuple[ToolUse, ...]


@dataclass(frozen=True, slots=True)
class PlayMembers:
    """Let members of the team speak: each in a run of its own, all of them at once."""

    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Finish:
    """Record the end of the run."""

    body: f.RunCompleted | f.RunFailed | f.RunCancelled


@dataclass(frozen=True, slots=True)
class Park:
    """Nothing is left to do but wait for somebody outside: record that."""

    body: f.RunWaiting


Step = CallModel | CallTools | PlayMembers | Park | Finish

_GIVEN_UP = ("refusal", "model_context_window_exceeded")
"""Stop reasons after which nothing more may come of a turn, not even the calls that it had made."""


def next_step(run: Run, limits: Limits, now_ms: int) -> Step | None:
    """The step that is due; None when there is nothing to do (the run has ended, or waits for someone)."""
    if run.status in ("ended", "waiting"):
        return None
    if run.status == "cancelling":
        return Finish(stopped(run))
    if run.play is not None and (playing := due(run)) is not None:
        return PlayMembers(playing) if playing else Park(_waiting(run))
    if run.play is not None and not spoke(run):
        return _fail(run, "team_failed", "no member of the team gave an answer")
    failed = run.failed
    if failed is not None and not failed.retry:
        return _fail(run, f"model_{failed.kind}", failed.message)
    last = run.turns[-1] if run.turns else None
    if last is not None and failed is None and run.call is None:
        missing = tuple(use for use in last.tools if use.open)
        if missing and last.stop_reason not in _GIVEN_UP:
            open_ones = tuple(use for use in missing if use.waits_for is None)
            return CallTools(last.call, open_ones) if open_ones else Park(_waiting(run))
        # `pause_turn`: the provider stopped in the middle of its own work, and goes on when it is called with what it
        # said.
        if last.stop_reason in _GIVEN_UP or (not last.tools and last.stop_reason != "pause_turn"):
            return Finish(
                f.RunCompleted(
                    run_id=run.run_id, message_id=run.answer_id, stop_reason=last.stop_reason, usage=run.usage
                )
            )
    if len(run.turns) >= limits.steps:
        return _fail(run, "step_limit", f"the run took {limits.steps} model turns, which is its limit")
    if now_ms > run.deadline_ms(limits.seconds, now_ms):
        return _fail(run, "time_limit", f"the run took {limits.seconds} s, which is its limit")
    wait = failed.retry_after_ms if failed is not None else 0
    return CallModel(len(run.turns), run.attempt + 1, run.failed_ms + wait if failed is not None else 0)


def _fail(run: Run, code: str, message: str) -> Finish:
    return Finish(_failure(run, code, message))


def _failure(run: Run, code: str, message: str) -> f.RunFailed:
    return f.RunFailed(run_id=run.run_id, message_id=run.answer_id, code=code, message=message, usage=run.usage)


def stopped(run: Run, call: int | None = None, blocks: tuple[Block, ...] = ()) -> f.RunCancelled | f.RunFailed:
    """The end of a run that is being stopped: it fails where a timer stopped it, and is cancelled otherwise. `blocks`:
    what the model had said in its unfinished `call`; where the run fails it is dropped, as any attempt that fails."""
    if run.cancel_code is not None:
        return _failure(run, run.cancel_code, run.cancel_reason or "the run was stopped")
    return f.RunCancelled(
        run_id=run.run_id,
        message_id=run.answer_id,
        by=run.cancelled_by,
        reason=run.cancel_reason,
        call=call,
        blocks=blocks,
        usage=run.usage,
    )


def _waiting(run: Run) -> f.RunWaiting:
    waiting = run.waiting
    return f.RunWaiting(
        run_id=run.run_id,
        waits_for=run.waits_for or "client_tool",
        tool_call_ids=tuple(use.tool_call_id for use in waiting),
        due_at_ms=run.expires_ms,
    )


def crashed(run: Run, most: int) -> Finish | None:
    """The end of a run that takes its dispatchers down: asked when a task takes the run up, where an attempt that has
    neither returned nor failed was broken off. Stops and moves of dispatchers break attempts off as well."""
    broken_off = run.attempt - run.failures
    if run.status != "running" or run.call is None or broken_off < most:
        return None
    return _fail(run, "crashed", f"a model turn was broken off {broken_off} times by its dispatcher's end")


def backoff_ms(base_ms: int, failures: int) -> int:
    """How long to wait after that many failed attempts in a row: doubling from `base_ms`, at most 30 s."""
    return min(base_ms << min(max(failures - 1, 0), 20), 30_000)
