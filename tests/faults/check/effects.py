"""3. A tool that is not idempotent is never run twice for one call, and what is completed is never repeated.

The log says what was meant and what came of it, the tool server's own ledger what was really done; both must tell the
same story. `unknown` is the honest word where the log cannot know; the ledger may then say either.
"""

from __future__ import annotations

from collections.abc import Iterator

from parley_events import facts as f
from parley_events.codec import Fact
from tests.faults.check.story import RunStory, Story
from tests.faults.check.violation import Violation
from tests.faults.evidence import Execution

Place = tuple[str, int, int]
"""A tool call: its run, its model turn's call, its index."""
NOT_MADE = frozenset({"denied", "cancelled"})
"""What a result says of a call that never began."""


def check_effects(story: Story) -> list[Violation]:
    """Promise 3."""
    called, returned = _calls(story), _results(story)
    return [
        *_once_on_record(story),
        *_turns(story),
        *_executions(story, called),
        *_results_and_ledger(story, called, returned),
    ]


def _calls(story: Story) -> dict[Place, tuple[Fact, f.ToolCalled]]:
    found: dict[Place, tuple[Fact, f.ToolCalled]] = {}
    for fact in story.facts:
        if isinstance(fact.body, f.ToolCalled):
            found.setdefault((fact.body.run_id, fact.body.call, fact.body.index), (fact, fact.body))
    return found


def _results(story: Story) -> dict[Place, tuple[Fact, f.ToolReturned]]:
    found: dict[Place, tuple[Fact, f.ToolReturned]] = {}
    for fact in story.facts:
        if isinstance(fact.body, f.ToolReturned):
            found.setdefault((fact.body.run_id, fact.body.call, fact.body.index), (fact, fact.body))
    return found


def _once_on_record(story: Story) -> Iterator[Violation]:
    """Each call is begun once and answered once, by Parley or by the client, however many owners worked on it."""
    called: set[Place] = set()
    answered: dict[Place, str] = {}
    keys: dict[str, Place] = {}
    for fact in story.facts:
        body = fact.body
        if not isinstance(body, f.ToolCalled | f.ToolReturned | f.ToolAnswered):
            continue
        if body.call is None or body.index is None:
            continue
        place = (body.run_id, body.call, body.index)
        if isinstance(body, f.ToolCalled):
            if place in called:
                yield Violation(3, "a second tool.called of one call", story.where(fact))
            if place in answered:
                yield Violation(3, "a call is begun that has its result already", story.where(fact))
            if keys.setdefault(body.effect_key, place) != place:
                yield Violation(3, f"the effect key {body.effect_key} stands for two calls", story.where(fact))
            called.add(place)
        elif place in answered:
            yield Violation(3, f"a {fact.type} of a call that has its {answered[place]}", story.where(fact))
        else:
            answered[place] = fact.type


def _turns(story: Story) -> Iterator[Violation]:
    """A model turn that is whole is not made again; attempts of a turn count 1, 2, 3 …"""
    for run in story.runs.values():
        whole: set[int] = set()
        attempts: dict[int, int] = {}
        for fact in run.facts:
            body = fact.body
            if isinstance(body, f.ModelReturned):
                if body.turn in whole:
                    yield Violation(3, f"turn {body.turn} of {run.run_id} was completed twice", story.where(fact))
                whole.add(body.turn)
            elif isinstance(body, f.ModelCalled):
                if body.turn in whole:
                    what = f"turn {body.turn} of {run.run_id} is made again, and was complete"
                    yield Violation(3, what, story.where(fact))
                if body.attempt != attempts.get(body.turn, 0) + 1:
                    what = f"attempt {body.attempt} of turn {body.turn} after {attempts.get(body.turn, 0)}"
                    yield Violation(3, what, story.where(fact))
                attempts[body.turn] = body.attempt


def _executions(story: Story, called: dict[Place, tuple[Fact, f.ToolCalled]]) -> Iterator[Violation]:
    """What the tool server did, against what was meant."""
    by_key = {body.effect_key: (fact, body) for fact, body in called.values()}
    done: dict[str, list[Execution]] = {}
    for execution in story.evidence.ledger:
        if execution.effect != "read_only":
            done.setdefault(execution.effect_key, []).append(execution)
    for key, executions in done.items():
        first = executions[0]
        where = f"effect key {key}, {first.tool} at {first.wall_ms} ms"
        applied = [execution for execution in executions if execution.applied]
        if len(applied) > 1:
            yield Violation(3, f"{first.effect} {first.tool} had its effect {len(applied)} times", where)
        if first.effect == "unsafe" and len(executions) > 1:
            yield Violation(3, f"unsafe {first.tool} was called {len(executions)} times for one call", where)
        if any(execution.arguments != first.arguments for execution in executions):
            yield Violation(3, f"{first.tool} was called again with other arguments", where)
        if key not in by_key:
            yield Violation(3, f"{first.tool} was run, and no tool.called that counts has its key", where)
            continue
        fact, body = by_key[key]
        if (body.name, body.arguments) != (first.tool, first.arguments):
            what = f"the log means {body.name}, and {first.tool} was run, or with other arguments"
            yield Violation(3, what, story.where(fact))


def _results_and_ledger(
    story: Story,
    called: dict[Place, tuple[Fact, f.ToolCalled]],
    returned: dict[Place, tuple[Fact, f.ToolReturned]],
) -> Iterator[Violation]:
    """What is recorded of a call is what happened, or `unknown`."""
    ledger: dict[str, list[Execution]] = {}
    for execution in story.evidence.ledger:
        ledger.setdefault(execution.effect_key, []).append(execution)
    for place, (fact, call) in called.items():
        result = returned.get(place)
        if result is None:
            yield from _open_call(story, story.runs.get(call.run_id), fact, call)
            continue
        told, body = result
        if call.name not in story.evidence.ledger_tools or "ledger" in story.evidence.without:
            continue
        happened = ledger.get(call.effect_key, [])
        if body.status == "ok" and not happened:
            yield Violation(3, f"{call.name} is said to be done, and is not in the ledger", story.where(told))
        if body.status == "ok" and call.effect != "checkable" and happened and not any(e.answered for e in happened):
            what = f"{call.name} is said to be done, and the tool server never gave an answer"
            yield Violation(3, what, story.where(told))
        if body.status in NOT_MADE and happened:
            yield Violation(3, f"{call.name} is said not to be made ({body.status}), and was run", story.where(told))
        doubtful = any(one.applied for one in happened) and not any(one.answered for one in happened)
        # An idempotent one is tried again first, and is then an error by its page: once more does nothing more.
        if body.status == "error" and doubtful and call.effect not in ("read_only", "idempotent"):
            what = f"{call.name} had its effect and gave no answer: that is unknown, and not an error"
            yield Violation(3, what, story.where(told))


def _open_call(story: Story, run: RunStory | None, fact: Fact, call: f.ToolCalled) -> Iterator[Violation]:
    """A call of a run that has ended has a result, `unknown` if need be, or its client's answer."""
    if run is None or not run.ends:
        return
    answered = any(
        isinstance(other.body, f.ToolAnswered)
        and other.body.tool_call_id == call.tool_call_id
        and other.body.call in (None, call.call)
        for other in run.facts
    )
    if not answered:
        yield Violation(
            3, f"{call.name} was called, its run has ended, and nothing says what came of it", story.where(fact)
        )
