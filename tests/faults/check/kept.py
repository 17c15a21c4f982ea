"""7. Nothing that was shown to a client is missing from the log once its block is finished.

For every follower, also one that left in the middle: each fact it saw is on the log, and each text it saw of a block
that is finished is the beginning of what is stored. What an answer told (a message's text, a run's end) is so, too.
"""

from __future__ import annotations

from collections.abc import Iterator

from parley_events import facts as f
from tests.faults.check.story import Story
from tests.faults.check.transcripts import DELTAS, RESTARTED
from tests.faults.check.violation import Violation
from tests.faults.evidence import Follower, Request

ENDED = {"run.completed": "completed", "run.failed": "failed", "run.cancelled": "cancelled"}


def check_kept(story: Story) -> list[Violation]:
    """Promise 7."""
    found: list[Violation] = []
    for follower in story.evidence.followers:
        if follower.contract == "threads":
            found += [*_facts(story, follower), *_texts(story, follower)]
    for request in story.evidence.requests:
        if request.accepted and request.answer is not None:
            found += _answer(story, request)
    return found


def _facts(story: Story, follower: Follower) -> Iterator[Violation]:
    known = {(fact.seq, fact.type) for fact in story.streams.get(follower.thread_id, ())}
    for number, frame in enumerate(follower.frames):
        data = frame.data if isinstance(frame.data, dict) else {}
        kind, seq = str(data.get("type")), data.get("seq")
        if kind in DELTAS or kind == RESTARTED:
            ends = kind == RESTARTED and {(seq, f.RunFailed.type), (seq, f.RunCancelled.type)} & known
            if (seq, f.ModelCalled.type) not in known and not ends:
                yield Violation(7, f"{kind} of call {seq}, which is not on the log", f"{follower.name}, frame {number}")
        elif (seq, kind) not in known:
            yield Violation(7, f"{kind} {seq} was shown, and is not on the log", f"{follower.name}, frame {number}")


def _texts(story: Story, follower: Follower) -> Iterator[Violation]:
    shown: dict[tuple[int, str], str] = {}
    for frame in follower.frames:
        data = frame.data if isinstance(frame.data, dict) else {}
        if data.get("type") in DELTAS:
            place = (int(data.get("seq") or 0), DELTAS[str(data["type"])])
            shown[place] = shown.get(place, "") + str(data.get("delta"))
    resumed = follower.legs[0].cursor if follower.legs else None
    for fact in story.streams.get(follower.thread_id, ()):
        body = fact.body
        if not isinstance(body, f.ModelReturned | f.RunCancelled) or body.call is None:
            continue
        for kind in ("text", "thought"):
            stored = "".join(block.text for block in body.blocks if block.kind == kind)
            saw = shown.get((body.call, kind), "")
            # One that began in the middle of a block saw what is within it, and not its beginning.
            if not (stored.startswith(saw) or (resumed and saw in stored)):
                what = f"the {kind} of call {body.call} was shown as {saw[-60:]!r}, and is not stored so"
                yield Violation(7, what, f"{follower.name}, {story.where(fact)}")


def _answer(story: Story, request: Request) -> Iterator[Violation]:
    """An answer that has the run's end, and its message."""
    answer = request.answer or {}
    where = f"{request.client}: {request.method} {request.path} at {request.sent_ms} ms"
    run, message = answer.get("run"), answer.get("message")
    if not isinstance(run, dict):
        return
    known = story.runs.get(str(run.get("id")))
    if known is None:
        yield Violation(7, f"an answer tells of the run {run.get('id')}, which is not on the log", where)
        return
    if run.get("status") in ENDED.values():
        ends = [ENDED[end.type] for end in known.ends]
        if ends != [run["status"]]:
            yield Violation(7, f"{known.run_id} was told to be {run['status']}, and is {ends}", where)
    if isinstance(message, dict) and known.ends:
        stored = "".join(
            block.text
            for fact in known.facts
            if isinstance(fact.body, f.ModelReturned | f.RunCancelled)
            for block in fact.body.blocks
            if block.kind == "text"
        )
        if message.get("content") != stored:
            yield Violation(7, f"the message of {known.run_id} was told as {message.get('content')!r}", where)
