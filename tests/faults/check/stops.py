"""3, while things stop: no effect starts once a run is being cancelled, and no model is ever shown an orphan.

The second is checked on the very requests: the thread is folded as a dispatcher folds it, and for each attempt at a
model turn the request is built again and its tool calls and results are matched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from parley_dispatcher.prompt import build_request
from parley_dispatcher.state import Run, ThreadState, evolve, initial
from parley_events import facts as f
from parley_events.body import AgentSpec
from parley_events.codec import Fact
from tests.faults.check.story import Story, run_of
from tests.faults.check.violation import Violation

STARTS = (f.ModelCalled, f.ToolCalled, f.ApprovalRequested)
"""What begins something."""
ARRIVES_MS = 2_000
"""How long a call that was begun may be on its way to the tool server."""


def check_stops(story: Story) -> list[Violation]:
    """The rest of promise 3."""
    return [*_cancelled_on_record(story), *_cancelled_in_the_ledger(story), *_orphans(story)]


def _cancellings(story: Story) -> dict[str, Fact]:
    """Run → the first fact that stops it: its own, its parent's, or its whole thread's."""
    found: dict[str, Fact] = {}
    for facts in story.streams.values():
        open_runs: set[str] = set()
        for fact in facts:
            body, run_id = fact.body, run_of(fact)
            stopped: set[str] = set()
            if isinstance(body, f.MessagePosted | f.ChildStarted):
                open_runs.add(body.run_id)
                if isinstance(body, f.ChildStarted) and body.parent_run_id in found:
                    stopped = {body.run_id}
            elif isinstance(body, f.RunCancelling):
                stopped = {body.run_id} | {run for run in open_runs if _parent(story, run) == body.run_id}
            elif isinstance(body, f.ThreadCancelling):
                stopped = set(body.run_ids)
            elif isinstance(body, f.ThreadDeleted | f.ThreadCleared):
                stopped = set(open_runs)
            elif fact.type in f.RUN_ENDS and run_id is not None:
                open_runs.discard(run_id)
            for run in stopped:
                found.setdefault(run, fact)
    return found


def _parent(story: Story, run_id: str) -> str | None:
    run = story.runs.get(run_id)
    return getattr(run.origin.body, "parent_run_id", None) if run is not None else None


def _cancelled_on_record(story: Story) -> Iterator[Violation]:
    for run_id, stop in _cancellings(story).items():
        run = story.runs.get(run_id)
        for fact in run.facts if run is not None else ():
            if isinstance(fact.body, STARTS) and (fact.seq or 0) > (stop.seq or 0):
                yield Violation(3, f"{fact.type} after the {stop.type} of its run", story.where(fact))


def _cancelled_in_the_ledger(story: Story) -> Iterator[Violation]:
    """An intent may be on record before the cancel, and the call itself begin after it. Where the partition changed
    hands in between, the one who calls cannot know: that window is a stated limit."""
    stops = _cancellings(story)
    intents: dict[str, tuple[Fact, str]] = {}
    for fact in story.facts:
        if isinstance(fact.body, f.ToolCalled):
            intents[fact.body.effect_key] = (fact, fact.body.run_id)
    seen: set[str] = set()
    for execution in story.evidence.ledger:
        known = intents.get(execution.effect_key)
        if execution.effect == "read_only" or known is None or execution.effect_key in seen:
            continue
        seen.add(execution.effect_key)
        intent, run_id = known
        stop = stops.get(run_id)
        if stop is None or execution.wall_ms <= story.appended_ms(stop) + ARRIVES_MS:
            continue
        claims = story.claims.get(story.partition(intent), [])
        if not any((intent.offset or 0) < claim < (stop.offset or 0) for claim in claims):
            late = execution.wall_ms - story.appended_ms(stop)
            yield Violation(
                3, f"{execution.tool} was run {late} ms after the {stop.type} of its run", story.where(stop)
            )


def _orphans(story: Story) -> Iterator[Violation]:
    for stream, facts in story.streams.items():
        if stream.startswith("ws:"):
            continue
        state = initial(stream)
        assert isinstance(state, ThreadState)
        for fact in facts:
            if isinstance(fact.body, f.ModelCalled) and fact.body.run_id in state.runs:
                yield from _shown(story, state, state.runs[fact.body.run_id], fact, fact.body)
            try:
                evolve(state, fact)
            except (ValueError, LookupError) as error:
                yield Violation(2, f"the thread cannot be folded any further: {error!r}", story.where(fact))
                break


def _shown(story: Story, state: ThreadState, run: Run, fact: Fact, body: f.ModelCalled) -> Iterator[Violation]:
    """What the model is shown at this attempt."""
    for index in _without_result(story, fact, body):
        what = f"the model is called while call {index} of its last turn has no result"
        yield Violation(3, what, story.where(fact))
    spec = AgentSpec(agent_id=body.agent_id, name=body.agent_id, model=body.model)
    messages = build_request(state, run, spec, None, [], body.attempt).messages
    for problem in unpaired(messages):
        yield Violation(3, f"the model is shown {problem}", story.where(fact))


def _without_result(story: Story, fact: Fact, body: f.ModelCalled) -> list[int]:
    """The calls of the run's last turn that nobody has answered when the model is called again."""
    wanted: list[int] = []
    for earlier in story.runs[body.run_id].facts if body.run_id in story.runs else ():
        said = earlier.body
        if (earlier.seq or 0) >= (fact.seq or 0):
            break
        if isinstance(said, f.ModelReturned):
            wanted = list(range(sum(block.kind == "tool" for block in said.blocks)))
        elif isinstance(said, f.ToolReturned | f.ToolAnswered) and said.index in wanted:
            wanted.remove(said.index)
    return wanted


def unpaired(messages: list[dict[str, Any]]) -> Iterator[str]:
    """What is wrong with the tool calls and results of a request: each call has its result in the very next message,
    each result its call in the one before, and the roles alternate."""
    wanted: Counter[str] = Counter()
    role = None
    for message in messages:
        if message["role"] == role:
            yield f"two messages of the {role} after one another"
        role = message["role"]
        parts = message["content"] if isinstance(message["content"], list) else []
        results = Counter(part["tool_use_id"] for part in parts if part.get("type") == "tool_result")
        for missing in (wanted - results).elements():
            yield f"the call {missing} without a result"
        for orphan in (results - wanted).elements():
            yield f"a result of {orphan}, which was not called in the message before"
        wanted = Counter(part["id"] for part in parts if part.get("type") == "tool_use")
    for missing in wanted.elements():
        yield f"the call {missing} without a result"
