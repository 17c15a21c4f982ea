"""5, in `org_chat`: the frames have no seqs, texts may come in several attempts, exactly one end comes last.

There is no word for a repeated attempt: where the new text begins with what was sent, the rest of it follows,
otherwise a blank line and the new text. So per block, all that was sent is the stored text, or ends in a blank line and
the stored text. Which block a text belongs to, its id says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from parley_events import facts as f
from parley_events.codec import Fact
from tests.faults.check.cursors import Id, parse_id
from tests.faults.check.story import Story, run_of
from tests.faults.check.violation import Violation
from tests.faults.evidence import Follower, Json

NOTES = {"decision": "decision", "milestone": "milestone", "skill": "skill_learned"}
Event = tuple[int, str, Json]
Block = tuple[int, int, str]
"""A block of the run: its turn, its index, its kind."""


def check_org_chat(story: Story, follower: Follower) -> list[Violation]:
    """Promise 5, for a follower of one run."""
    return [*_events(story, follower), *_texts(story, follower)]


def _events(story: Story, follower: Follower) -> Iterator[Violation]:
    """Everything but texts, in order."""
    facts = story.of_run(follower.run_id, follower.thread_id)
    wanted = list(_told(facts))
    known = {seq for seq, _, _ in wanted}
    silent = {fact.seq for fact in facts} - known
    got: list[Event] = []
    for frame in follower.frames:
        data = frame.data if isinstance(frame.data, dict) else {}
        if data.get("type") in ("text", "thought"):
            continue
        place = parse_id(frame.id or "")
        if place is None:
            yield Violation(5, f"a {data.get('type')} frame whose id is {frame.id!r}", follower.name)
        elif place.seq not in silent:  # facts of which the contract leaves open how they are told
            content = data.get("content")
            got.append((place.seq, str(data.get("type")), content if isinstance(content, dict) else {}))
    expected = wanted if follower.stayed else wanted[: len(got)]
    for number in range(max(len(got), len(expected))):
        saw = got[number] if number < len(got) else None
        should = expected[number] if number < len(expected) else None
        if saw is None or should is None or saw[:2] != should[:2] or not should[2].items() <= _plain(saw[2], should[2]):
            what = f"saw {_short(saw)}, where the facts go on with {_short(should)}"
            yield Violation(5, what, f"{follower.name}, event {number}")
            return


def _plain(saw: Json, should: Json) -> Any:
    return {name: value for name, value in saw.items() if name in should}.items()


def _short(event: Event | None) -> str:
    return "nothing more" if event is None else f"{event[1]} {event[0]} {str(event[2])[:120]}"


def _told(facts: list[Fact]) -> Iterator[Event]:
    """The events of a run's facts, with what each must say."""
    summary = ""
    for fact in facts:
        body, seq = fact.body, fact.seq or 0
        if isinstance(body, f.ModelReturned):
            summary = "".join(block.text for block in body.blocks if block.kind == "text")
        elif isinstance(body, f.ToolCalled):
            yield seq, "tool_call", {"tool": body.name, "args": body.arguments, "tool_call_id": body.tool_call_id}
        elif isinstance(body, f.ToolReturned):
            yield seq, "tool_result", {"tool": body.name, "tool_call_id": body.tool_call_id}
            if body.note is not None:
                yield seq, NOTES[body.note.kind], {"id": body.note.id}
        elif isinstance(body, f.RunCompleted):
            yield seq, "complete", {"summary": summary}
        elif isinstance(body, f.RunFailed):
            yield seq, "error", {"code": body.code}
        elif isinstance(body, f.RunCancelled):
            yield seq, "error", {"code": "cancelled", "message": "cancelled"}


def _texts(story: Story, follower: Follower) -> Iterator[Violation]:
    by_seq = {fact.seq: fact for fact in story.streams.get(follower.thread_id, ())}
    before = Id((0, 0), {})
    sent: dict[Block, str] = {}
    reached = 0
    for number, frame in enumerate(follower.frames):
        where = f"{follower.name}, frame {number}, id {frame.id}"
        now = parse_id(frame.id or "")
        if now is None:
            continue
        if now.at < before.at:
            yield Violation(5, f"ids go back, from {before.at[0]} to {now.at[0]}", where)
        data = frame.data if isinstance(frame.data, dict) else {}
        if data.get("type") in ("text", "thought"):
            place = _moved(before, now)
            called = by_seq.get(place[0]) if place is not None else None
            if place is None or called is None or not isinstance(called.body, f.ModelCalled):
                yield Violation(5, "a text whose id names no block that it belongs to", where)
            elif follower.run_id is not None and run_of(called) != follower.run_id:
                yield Violation(5, f"text of {run_of(called)}", where)
            else:
                block = (called.body.turn, place[1], str(data["type"]))
                text = str(data.get("content"))
                sent[block] = sent.get(block, "") + text
                if len(text) not in _lengths(before, now, place, text):
                    what = f"{len(text)} characters came, and the id counts {now.sent[place]} of the block"
                    yield Violation(5, what, where)
        before, reached = now, max(reached, now.seq)
    for fact in story.of_run(follower.run_id, follower.thread_id):
        if (fact.seq or 0) <= reached:
            yield from _whole(story, follower, fact, sent)


def _moved(before: Id, now: Id) -> tuple[int, int] | None:
    """The block of which the id counts more than before. Others may have gone over to the new attempt in silence,
    because it said the same: they count as much as the earlier attempt did."""
    moved = sorted(place for place, chars in now.sent.items() if chars > before.sent.get(place, 0))
    for call, block in moved[:-1]:
        same = [place for place in before.sent if place[1] == block and place[0] < call]
        if not any(before.sent[place] == now.sent[call, block] for place in same):
            return None
    return moved[-1] if moved else None


def _lengths(before: Id, now: Id, place: tuple[int, int], text: str) -> set[int]:
    """How long a text may be whose block the id counts so far: the rest of it, all of it from its beginning (after a
    blank line, perhaps), or what goes on from an earlier attempt at the block."""
    has = now.sent[place]
    if place in before.sent:
        return {has - before.sent[place]}
    earlier = {has - chars for (call, block), chars in before.sent.items() if block == place[1] and call < place[0]}
    return {has, *earlier} | ({has + 2} if text.startswith("\n\n") else set())


def _whole(story: Story, follower: Follower, fact: Fact, sent: dict[Block, str]) -> Iterator[Violation]:
    body = fact.body
    if isinstance(body, f.ModelReturned):
        turn = body.turn
    elif isinstance(body, f.RunCancelled) and body.call is not None:
        called = next((one for one in story.streams[fact.stream] if one.seq == body.call), None)
        if called is None or not isinstance(called.body, f.ModelCalled):
            return
        turn = called.body.turn
    else:
        return
    for index, block in enumerate(body.blocks):
        if block.kind not in ("text", "thought"):
            continue
        said = sent.get((turn, index, block.kind), "")
        # A text that turned out empty takes nothing back of an earlier attempt's.
        if said != block.text and block.text and not said.endswith("\n\n" + block.text):
            what = (
                f"block {index} of turn {turn} is {json.dumps(block.text)[:80]}, and {json.dumps(said)[:80]} was sent"
            )
            yield Violation(5, what, f"{follower.name}, {story.where(fact)}")
