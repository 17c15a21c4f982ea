"""1. An accepted command has exactly one outcome, an accepted message exactly one terminal fact.

Accepted is what a client was told so (2xx), and everything that is on `parley.commands`. A command that was read twice
(its owner died before its offset was committed) is answered again, by `command.repeated`, or by the same refusal: that
is one outcome still. What cannot be decoded has no outcome, and lies in `parley.rejected` once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from parley_events import facts as f
from parley_events.codec import Fact
from parley_events.errors import Undecodable
from parley_events.positions import StreamPosition, parse_position
from tests.faults.check.story import AFTER_THE_END, Story
from tests.faults.check.violation import Violation
from tests.faults.evidence import Request

TIMERS = frozenset(
    {f.ApprovalExpired.type, f.ToolExpired.type, f.ThreadExpired.type, f.RunCancelling.type, f.RunFailed.type}
)
"""Outcomes of what nobody asked: an owner's timer, whose command is on no topic."""
SAME = ("id", "thread_id", "run_id", "message_id", "question_id", "conversation_id", "position")
"""What every answer to one key says alike."""


def check_outcomes(story: Story) -> list[Violation]:
    """Promise 1."""
    return [
        *_commands(story),
        *_strays(story),
        *_rejected(story),
        *_runs(story),
        *_answers(story),
        *_keys(story),
    ]


def _commands(story: Story) -> Iterator[Violation]:
    outcomes: dict[str, list[Fact]] = {}
    for fact in story.outcomes:
        outcomes.setdefault(str(fact.causation_id), []).append(fact)
    records = Counter(asked.head.id for asked in story.asked if asked.head and not asked.problem)
    for asked in story.asked:
        if asked.head is None or asked.problem:
            continue
        own = outcomes.get(asked.head.id, [])
        if not own:
            yield Violation(1, f"{asked.head.type} {asked.head.id} has no outcome", asked.place)
            continue
        took = [fact for fact in own if fact.seq is not None]
        if len(took) > 1:
            yield Violation(1, f"{asked.head.type} {asked.head.id} took effect {len(took)} times", story.where(took[1]))
        if records[asked.head.id] > 1:
            continue  # a retry may be refused although the first one was not: with another body, for instance
        refusals = [fact for fact in own if isinstance(fact.body, f.CommandRejected)]
        if took and refusals:
            yield Violation(1, f"{asked.head.id} was refused, and took effect", story.where(took[0]))
        codes = {getattr(fact.body, "code", "") for fact in refusals}
        if len(codes) > 1 or len({fact.epoch for fact in refusals}) < len(refusals):
            yield Violation(1, f"{asked.head.id} was refused {len(refusals)} times: {sorted(codes)}", asked.place)
        if not took and not refusals and not _unchanged(own):
            yield Violation(1, f"{asked.head.id} is said to be repeated, and was never decided", asked.place)


def _unchanged(own: list[Fact]) -> bool:
    """A file that is applied at each start says the same as before: its outcome is `command.repeated` at once."""
    return any(isinstance(fact.body, f.CommandRepeated) and not fact.body.first for fact in own)


def _strays(story: Story) -> Iterator[Violation]:
    known = {asked.head.id for asked in story.asked if asked.head}
    for fact in story.outcomes:
        if fact.causation_id not in known and fact.type not in TIMERS:
            yield Violation(1, f"the outcome of {fact.causation_id}, which nobody asked", story.where(fact))


def _rejected(story: Story) -> Iterator[Violation]:
    found: Counter[tuple[int, int]] = Counter()
    reasons: dict[tuple[int, int], str] = {}
    for record in story.evidence.rejected:
        headers = dict(record.headers)
        try:
            place = (int(headers["rejected_partition"]), int(headers["rejected_offset"]))
        except (KeyError, ValueError):
            where = f"parley.rejected[{record.partition}]@{record.offset}"
            yield Violation(1, "a rejected record does not say where it comes from", where)
            continue
        found[place] += 1
        reasons[place] = headers.get("rejected_reason", b"").decode("utf-8", "replace")
    poisoned = {
        fact.causation_id
        for fact in story.outcomes
        if isinstance(fact.body, f.CommandRejected) and fact.body.code == "poison"
    }
    for asked in story.asked:
        place = (asked.record.partition, asked.record.offset)
        times, reason = found.pop(place, 0), reasons.get(place, "")
        # Who dies between putting it there and committing its offset leaves it to the next owner, who cannot know.
        owners = max(len(story.claims.get(asked.record.partition, ())), 1)
        if asked.problem and not 1 <= times <= owners:
            yield Violation(1, f"unreadable ({asked.problem}), and {times} times in parley.rejected", asked.place)
        if not asked.problem and times and reason != "poison":
            yield Violation(1, f"a sound command was rejected: {reason}", asked.place)
        if reason == "poison" and times > 1:
            yield Violation(1, f"poison is {times} times in parley.rejected", asked.place)
        if reason == "poison" and asked.head is not None and asked.head.id not in poisoned:
            yield Violation(1, "poison was rejected, and who asked was not told", asked.place)
    for partition, offset in found:
        yield Violation(1, "what was rejected is not on the topic", f"parley.commands[{partition}]@{offset}")


def _runs(story: Story) -> Iterator[Violation]:
    for run in story.runs.values():
        ends = run.ends
        if len(ends) > 1:
            yield Violation(1, f"{run.run_id} ended {len(ends)} times", story.where(ends[1]))
        if not ends and run.run_id not in story.evidence.left_open:
            yield Violation(1, f"{run.run_id} never ended", story.where(run.facts[-1]))
        for end in ends[:1]:
            for fact in run.facts:
                if (fact.seq or 0) > (end.seq or 0) and fact.type not in AFTER_THE_END and fact not in ends:
                    yield Violation(1, f"a fact of {run.run_id} after its end", story.where(fact))


def _answers(story: Story) -> Iterator[Violation]:
    """What a client was told is so."""
    owners: dict[str, Request] = {}
    for request in story.evidence.requests:
        if not request.accepted:
            continue
        answer = request.answer or {}
        where = f"{request.client}: {request.method} {request.path} at {request.sent_ms} ms"
        position = answer.get("position")
        if isinstance(position, str) and not _there(story, position):
            yield Violation(1, f"{request.status}, and nothing is at {position}", where)
        run_id = request.run_id or answer.get("run_id")
        if isinstance(run_id, str) and run_id not in story.runs:
            yield Violation(1, f"{request.status}, and there is no run {run_id}", where)
        elif isinstance(run_id, str) and _posts(request):
            first = owners.setdefault(run_id, request)
            if (first.who, first.path, first.key) != (request.who, request.path, request.key) or (
                request.key is None and first is not request
            ):
                yield Violation(1, f"two messages were answered with one run, {run_id}", where)
        if request.method == "POST" and request.path.endswith("/messages") and not isinstance(run_id, str):
            yield Violation(1, f"{request.status} to a message, without a run", where)
        run = story.runs.get(str(run_id))
        named = answer.get("message_id")
        if run is not None and _posts(request) and named not in (None, getattr(run.origin.body, "message_id", named)):
            yield Violation(1, f"{run_id} was told to answer {named}, and answers another message", where)


def _posts(request: Request) -> bool:
    return request.method == "POST" and request.path.endswith(("/messages", "/message", "/message/sync"))


def _there(story: Story, text: str) -> bool:
    try:
        position = parse_position(text)
    except Undecodable:
        return False
    if isinstance(position, StreamPosition):
        return position.seq == 0 or any(fact.seq == position.seq for fact in story.streams.get(position.stream, ()))
    return position.next_offset <= story.evidence.ends.get("parley.events", {}).get(position.partition, 0)


def _keys(story: Story) -> Iterator[Violation]:
    """Requests of one key got the same ids, however often and wherever they were tried; once one was accepted, none
    with the same body is refused."""
    said: dict[tuple[str, str, str, str], tuple[dict[str, Any], Request]] = {}
    for request in story.evidence.requests:
        if request.key is None or request.status is None:
            continue
        place = (request.who, request.method, request.path, request.key)
        where = f"{request.client}: {request.method} {request.path}, key {request.key}"
        if request.accepted:
            answer = {name: value for name, value in (request.answer or {}).items() if name in SAME}
            if request.run_id is not None:
                answer.setdefault("run_id", request.run_id)
            if str(answer.get("position", "")).endswith("@0"):
                del answer["position"]  # it was answered before its outcome, of which no position is known
            known = said.setdefault(place, (answer, request))[0]
            for name, value in answer.items():
                if known.setdefault(name, value) != value:
                    yield Violation(1, f"a retry was told another {name}: {value}, before {known[name]}", where)
        elif place in said and request.body == said[place][1].body and request.status in (400, 404, 409):
            yield Violation(1, f"a retry of what was accepted was refused with {request.status}", where)
