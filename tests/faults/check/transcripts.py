"""5. What a client saw, whatever broke and wherever it came back, is what one that never left saw. `threads`.

One that never left sees every fact of its run or thread once, in order, and of each text every character once: so the
frames of all legs together are held against the facts. The other contract is in `org_transcripts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from parley_events import facts as f
from parley_events.body import Block
from parley_events.codec import Fact
from tests.faults.check.cursors import Id, parse_id
from tests.faults.check.org_transcripts import check_org_chat
from tests.faults.check.story import Story
from tests.faults.check.violation import Violation
from tests.faults.evidence import Follower, Frame, Json

DELTAS = {"text.delta": "text", "thought.delta": "thought"}
RESTARTED = "run.restarted"


def check_followers(story: Story) -> list[Violation]:
    """Promise 5, for every follower."""
    found: list[Violation] = []
    for follower in story.evidence.followers:
        found += _legs(story, follower)
        if follower.contract == "threads":
            found += [*_facts(story, follower), *_ids(follower), *_texts(story, follower), *_stored(story, follower)]
        else:
            found += check_org_chat(story, follower)
    return found


def _legs(story: Story, follower: Follower) -> Iterator[Violation]:
    """A cursor that was given out is taken by every gateway, and what ends stays ended."""
    over = False
    hidden = [leg for leg in follower.legs if leg.status == 404 and leg.over == "refused"]
    if hidden and (follower.run_id or follower.thread_id) in (*story.runs, *story.streams):
        gateways = sorted({leg.gateway for leg in hidden})
        what = f"what was accepted was answered with 404, {len(hidden)} times"
        yield Violation(5, what, f"{follower.name}, gateways {gateways}, from {hidden[0].opened_ms} ms")
    for number, leg in enumerate(follower.legs):
        where = f"{follower.name}, leg {number}, gateway {leg.gateway}"
        if leg.over == "refused" and 400 <= leg.status < 500 and leg.status not in (404, 429):
            yield Violation(5, f"the cursor {leg.cursor!r} was answered with {leg.status}", where)
        if over and leg.frames:
            yield Violation(5, f"{len(leg.frames)} frames after the end", where)
        ends = [place for place, frame in enumerate(leg.frames) if follower.run_id and _is_end(follower, frame)]
        if ends and ends[0] != len(leg.frames) - 1:
            yield Violation(5, f"{len(leg.frames) - 1 - ends[0]} frames after the end", where)
        over = over or bool(ends)
    run = story.runs.get(follower.run_id or "")
    if follower.stayed and run is not None and run.ends and not over:
        yield Violation(5, "the run has ended, and the one who stayed never saw it", follower.name)


def _is_end(follower: Follower, frame: Frame) -> bool:
    kind = frame.data.get("type") if isinstance(frame.data, dict) else None
    return kind in (f.RUN_ENDS if follower.contract == "threads" else ("complete", "error"))


def start_of(follower: Follower) -> int:
    """The seq after which the follower began."""
    cursor = parse_id(follower.legs[0].cursor or "0") if follower.legs else None
    return cursor.seq if cursor is not None else 0


def _data(frame: Frame) -> Json:
    return frame.data if isinstance(frame.data, dict) else {}


# ---- facts


def _facts(story: Story, follower: Follower) -> Iterator[Violation]:
    start = start_of(follower)
    wanted: list[tuple[int, str]] = []
    by_seq: dict[int, Fact] = {}
    for fact in story.of_run(follower.run_id, follower.thread_id):
        seq = fact.seq or 0
        if seq > start:
            by_seq[seq] = fact
            if isinstance(fact.body, f.ModelCalled) and fact.body.attempt > 1:
                wanted.append((seq, RESTARTED))
            wanted.append((seq, fact.type))
    shown = [frame for frame in follower.frames if _data(frame).get("type") not in DELTAS]
    # A run may end without a word of its last attempt: before that, followers are told to drop what they have of it.
    shown = [frame for frame in shown if not _drops_the_rest(_data(frame), by_seq)]
    got = [(_data(frame).get("seq"), str(_data(frame).get("type"))) for frame in shown]
    expected = wanted if follower.stayed else wanted[: len(got)]
    if got != expected:
        place = next((i for i, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b), None)
        if place is None:
            place = min(len(got), len(expected))
        saw = f"{got[place][1]} {got[place][0]}" if place < len(got) else "nothing more"
        should = f"{expected[place][1]} {expected[place][0]}" if place < len(expected) else "nothing more"
        yield Violation(5, f"saw {saw}, where the facts go on with {should}", f"{follower.name}, fact frame {place}")
    for frame in shown:
        told = by_seq.get(_data(frame).get("seq") or 0)
        if told is not None:
            for problem in _content(told, _data(frame)):
                yield Violation(5, f"{told.type} was shown with {problem}", f"{follower.name}, {story.where(told)}")


def _drops_the_rest(data: Json, by_seq: dict[int, Fact]) -> bool:
    told = by_seq.get(data.get("seq") or 0)
    return data.get("type") == RESTARTED and told is not None and told.type in (f.RunFailed.type, f.RunCancelled.type)


def _content(fact: Fact, data: Json) -> Iterator[str]:
    """What a frame says of its fact, as far as every version of the contract has it."""
    body = fact.body
    if data.get("type") != fact.type:
        return
    call = data.get("tool_call") or {}
    wanted: list[tuple[object, object]] = [(data.get("thread_id"), fact.stream)]
    if isinstance(body, f.ModelReturned):
        wanted.append((data.get("content"), _said(body.blocks, "text")))
    elif isinstance(body, f.MessagePosted):
        wanted.append((data.get("content"), body.text))
    elif isinstance(body, f.ToolCalled):
        wanted += [(call.get("id"), body.tool_call_id), (call.get("arguments"), body.arguments)]
    elif isinstance(body, f.ToolReturned):
        wanted += [(call.get("id"), body.tool_call_id), (call.get("result"), body.result)]
        wanted.append((call.get("status"), body.status))
    elif isinstance(body, f.RunFailed):
        wanted.append(((data.get("error") or {}).get("code"), body.code))
    for said, meant in wanted:
        if said != meant:
            yield f"{said!r} instead of {meant!r}"


# ---- ids


def _ids(follower: Follower) -> Iterator[Violation]:
    """Ids never go back, and count every character of each block that is being sent."""
    before = parse_id(follower.legs[0].cursor or "0") if follower.legs else None
    before = before or Id((0, 0), {})
    for number, frame in enumerate(follower.frames):
        where = f"{follower.name}, frame {number}, id {frame.id}"
        if frame.id is None:
            yield Violation(5, "a frame without an id", where)
            continue
        now = parse_id(frame.id)
        if now is None:
            yield Violation(5, "an id that is no cursor", where)
            continue
        data = _data(frame)
        if now.at < before.at:
            yield Violation(5, f"ids go back, from {before.at[0]} to {now.at[0]}", where)
        if data.get("type") in DELTAS:
            yield from _counted(before, now, data, where)
        elif now.seq != data.get("seq"):
            yield Violation(5, f"the frame of fact {data.get('seq')} has another's id", where)
        elif any(before.sent.get(place) != chars for place, chars in now.sent.items()):
            yield Violation(5, "a fact's id counts characters that were not sent", where)
        before = now


def _counted(before: Id, now: Id, data: Json, where: str) -> Iterator[Violation]:
    changed = [place for place in before.sent.keys() | now.sent.keys() if before.sent.get(place) != now.sent.get(place)]
    if len(changed) != 1 or changed[0][0] != data.get("seq"):
        yield Violation(5, f"a piece of call {data.get('seq')} moved the count of {changed}", where)
        return
    had, has = before.sent.get(changed[0], 0), now.sent.get(changed[0], 0)
    if has - had != len(str(data.get("delta"))):
        what = f"{len(str(data.get('delta')))} characters came, and the id went from {had} to {has}"
        yield Violation(5, what, where)


# ---- texts


@dataclass(slots=True)
class _Call:
    texts: dict[str, str] = field(default_factory=lambda: {"text": "", "thought": ""})
    over: str | None = None


def _texts(story: Story, follower: Follower) -> Iterator[Violation]:
    """Of each call: nothing before it begins, everything once it is whole, nothing after it is over."""
    start = start_of(follower)
    by_seq = {fact.seq: fact for fact in story.of_run(follower.run_id, follower.thread_id)}
    calls: dict[int, _Call] = {}
    for number, frame in enumerate(follower.frames):
        data = _data(frame)
        kind, seq = data.get("type"), int(data.get("seq") or 0)
        where = f"{follower.name}, frame {number}, id {frame.id}"
        if kind in DELTAS:
            call = calls.get(seq)
            if call is None:
                if seq > start:
                    yield Violation(5, f"text of call {seq} before its model.called", where)
                call = calls.setdefault(seq, _Call())
            if call.over is not None:
                yield Violation(5, f"text of call {seq} after its {call.over}", where)
            call.texts[DELTAS[str(kind)]] += str(data.get("delta"))
            continue
        fact = by_seq.get(seq)
        if fact is None or kind != fact.type:
            continue
        body = fact.body
        if isinstance(body, f.ModelCalled):
            for earlier in _of_run(calls, by_seq, body.run_id):
                earlier.over = earlier.over or f"next attempt, {seq}"
            calls[seq] = _Call()
        elif isinstance(body, f.ModelFailed) and body.call in calls:
            calls[body.call].over = fact.type
        elif isinstance(body, f.ModelReturned | f.RunCancelled) and body.call is not None and body.call > start:
            call = calls.setdefault(body.call, _Call())
            call.over = fact.type
            for part in ("text", "thought"):
                if call.texts[part] != _said(body.blocks, part):
                    what = f"the {part} of call {body.call} {_difference(call.texts[part], _said(body.blocks, part))}"
                    yield Violation(5, what, where)


def _of_run(calls: dict[int, _Call], by_seq: dict[int | None, Fact], run_id: str) -> list[_Call]:
    return [call for seq, call in calls.items() if seq in by_seq and getattr(by_seq[seq].body, "run_id", "") == run_id]


def _said(blocks: tuple[Block, ...], kind: str) -> str:
    return "".join(block.text for block in blocks if block.kind == kind)


def _difference(shown: str, stored: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(shown, stored, strict=False)) if a != b), min(len(shown), len(stored)))
    return (
        f"was shown with {len(shown)} characters and has {len(stored)}; they part at {at}: "
        f"{shown[at : at + 20]!r} instead of {stored[at : at + 20]!r}"
    )


def _stored(story: Story, follower: Follower) -> Iterator[Violation]:
    """As a client reads it: what it has put together of a run is the message that is stored."""
    run = story.runs.get(follower.run_id or "")
    if run is None or not run.ends or run.ends[0].type != "run.completed" or not follower.stayed or start_of(follower):
        return
    kept = since_turn = ""
    for frame in follower.frames:
        data = _data(frame)
        if data.get("type") == RESTARTED:
            since_turn = ""
        elif data.get("type") == "text.delta":
            since_turn += str(data.get("delta"))
        elif data.get("type") == "model.returned":
            kept, since_turn = kept + since_turn, ""
    for row in story.evidence.views.get("messages", ()):
        if (
            row.get("run_id") == run.run_id
            and row.get("role") == "assistant"
            and row.get("content") != kept + since_turn
        ):
            what = f"the text {_difference(kept + since_turn, str(row.get('content')))} in the stored message"
            yield Violation(5, what, f"{follower.name}, {run.run_id}")
