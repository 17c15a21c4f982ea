"""Promise 5 in the frames of both contracts, byte for byte: a client leaves after any frame, and comes back to a
gateway that has all of the pieces, or none. What it has then is what one has that never left."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parley_events.body import Block
from parley_events.codec import Fact
from parley_events.pieces import Piece
from parley_gateway.dialects.org_chat.outbound import Events
from parley_gateway.dialects.threads.outbound import Frames
from parley_gateway.feed.cursor import START, parse_cursor
from parley_gateway.feed.follow import Follow, Shown, ShownFact, merged, run_of
from parley_gateway.feed.frames import Frame as Made
from parley_gateway.feed.frames import encode
from tests.support.sse import Frame, frame_of
from tests.unit.gateway.feed.stories import THREAD, Story, stories
from tests.unit.gateway.feed.test_texts import check_shape, final_turns, stored_text

EXAMPLES = 80
Show = Callable[[Shown], list[Made]]


class _Shape:
    """What `check_shape` asks of a client, for one that has frames."""

    def __init__(self, turns: dict[tuple[int, int], str]) -> None:
        self._turns = turns

    def turns(self, story: Story, run: str) -> dict[tuple[int, int], str]:
        return self._turns


@dataclass(frozen=True, slots=True)
class Sent(Frame):
    """A frame, and the (call, block) that it is a text of."""

    of: tuple[int, int] | None


def frames_of(follow: Follow, show: Show, items: Iterable[Fact | Piece]) -> list[Sent]:
    """What a client is sent, frame by frame."""
    found: list[Sent] = []
    for item in items:
        for shown in merged(follow.piece(item) if isinstance(item, Piece) else follow.fact(item)):
            for data in encode(shown, show(shown)):
                frame = frame_of(data)
                of = None if isinstance(shown, ShownFact) else (shown.call, shown.block)
                found.append(Sent(frame.id, frame.data, of))
    return found


def live(story: Story) -> list[Fact | Piece]:
    """Each piece right after its call's fact."""
    pieces: dict[int, list[Piece]] = defaultdict(list)
    for piece in story.pieces:
        pieces[piece.call].append(piece)
    items: list[Fact | Piece] = []
    for fact in story.facts:
        items += [fact, *pieces[fact.seq or 0]]
    return items


def resumed(story: Story, run: str | None, frame: Sent, show: Show, restarts: bool, pieces: list[Piece]) -> list[Sent]:
    """What comes after a frame, from a gateway that has these pieces."""
    cursor = parse_cursor(str(frame.id))
    follow = Follow(run, cursor, restarts=restarts)
    for fact in story.facts[: cursor.done]:
        follow.recall(fact)
        if run is None or run_of(fact) == run:
            show(ShownFact(fact, "", again=True))
    if follow.ended:
        return []
    return frames_of(follow, show, [*pieces, *story.facts[cursor.done :]])


def facts_of(frames: list[Sent]) -> list[object]:
    return [
        frame.data for frame in frames if not frame.type.endswith(".delta") and frame.type not in ("text", "thought")
    ]


def native_text(frames: list[Sent], run: str) -> str:
    """The text of a run, as the contract says that a client is to read it."""
    kept = since = ""
    for frame in frames:
        if frame.data["run_id"] != run:
            continue
        if frame.type == "text.delta":
            since += frame.data["delta"]
        elif frame.type == "run.restarted":
            since = ""
        elif frame.type == "model.returned":
            kept, since = kept + since, ""
    return kept + since


@given(st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_in_the_native_contract_every_cut_gives_the_same_facts_and_the_stored_text(data: st.DataObject) -> None:
    story = data.draw(stories(side_by_side=data.draw(st.booleans())))
    run = data.draw(st.sampled_from([None, *story.runs]))
    stayed = frames_of(Follow(run, START), Frames(THREAD), live(story))
    runs = [run] if run else story.runs
    for one in runs:
        assert native_text(stayed, one) == stored_text(story, one)
    for place, frame in enumerate(stayed):
        for pieces in ([], story.pieces):
            both = stayed[: place + 1] + resumed(story, run, frame, Frames(THREAD), True, pieces)
            assert facts_of(both) == facts_of(stayed), frame.id
            assert [native_text(both, one) for one in runs] == [stored_text(story, one) for one in runs], frame.id


def events() -> Events:
    return Events(lambda: 0)


def turns_of(story: Story, frames: list[Sent]) -> dict[tuple[int, int], str]:
    """(turn, block) → all that came for it."""
    turns = {fact.seq: fact.body.turn for fact in story.facts if fact.type == "model.called"}  # type: ignore[attr-defined]
    found: dict[tuple[int, int], str] = defaultdict(str)
    for frame in frames:
        if frame.of is not None:
            found[turns[frame.of[0]], frame.of[1]] += frame.data["content"]
    return dict(found)


@given(st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_in_org_chat_every_cut_gives_the_same_events_and_ends_every_text_as_it_is_stored(data: st.DataObject) -> None:
    story = data.draw(stories())
    run = data.draw(st.sampled_from(story.runs))
    stayed = frames_of(Follow(run, START, restarts=False), events(), live(story))
    check_shape(story, run, _Shape(turns_of(story, stayed)))  # type: ignore[arg-type]
    for place, frame in enumerate(stayed):
        for pieces in ([], story.pieces):
            both = stayed[: place + 1] + resumed(story, run, frame, events(), False, pieces)
            assert facts_of(both) == facts_of(stayed), frame.id
            check_shape(story, run, _Shape(turns_of(story, both)))  # type: ignore[arg-type]


@given(st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_in_org_chat_an_attempt_with_the_same_words_is_seen_by_nobody(data: st.DataObject) -> None:
    """Neither by one that stays nor by one that leaves, where the gateway knows what was said."""
    story = data.draw(stories(same_words=True))
    run = data.draw(st.sampled_from(story.runs))
    stayed = frames_of(Follow(run, START, restarts=False), events(), live(story))
    whole = final_turns(story, run)
    assert turns_of(story, stayed) == whole
    for place, frame in enumerate(stayed):
        both = stayed[: place + 1] + resumed(story, run, frame, events(), False, story.pieces)
        assert facts_of(both) == facts_of(stayed), frame.id
        assert turns_of(story, both) == whole, frame.id


@pytest.mark.parametrize("ending", ["failed", "taken over"])
def test_what_an_attempt_said_that_came_to_nothing_is_said_to_be_void(ending: str) -> None:
    """The model said something, its process died, and the run was ended: the stored message has no word of it."""
    story = Story()
    run = story.post(0)
    call = story.call(run, 0, 1)
    story.speak(call, 0, "text", "Half a", [])
    if ending == "failed":
        story.failed(run, call, 0, 1)
        story.fail(run)
    else:
        story.cancel(run, None, [])
    stayed = frames_of(Follow(run, START), Frames(THREAD), live(story))
    assert [frame.type for frame in stayed[-2:]] == ["run.restarted", stayed[-1].data["type"]]
    assert stayed[-2].data["attempt"] is None and stayed[-2].id == f"{len(story.facts)}-1"
    assert native_text(stayed, run) == ""


@pytest.mark.parametrize("ending", ["returned", "cancelled"])
@pytest.mark.parametrize(
    ("before", "after"),
    [("Hello wor", "Hello world."), ("Hello world.", "Hello"), ("Hello", "Good day."), ("Hello", "Hello"), ("Hi", "")],
    ids=["longer", "shorter", "other", "same", "nothing"],
)
def test_a_takeover_in_the_middle_of_a_text_leaves_every_client_with_the_text_on_record(
    before: str, after: str, ending: str
) -> None:
    """The process died in the middle; who took over says more, less, something else, the same or nothing, to the end or
    until it is stopped. Cut after every frame, in both contracts."""
    story = Story()
    run = story.post(0)
    first = story.call(run, 0, 1)
    story.speak(first, 0, "text", before, [2, 4])
    second = story.call(run, 0, 2)
    story.speak(second, 0, "text", after, [1, 3])
    block = Block(kind="text", text=after)
    if ending == "returned":
        story.returned(run, second, 0, [block])
        story.end(run)
    else:
        story.cancel(run, second, [block])
    for show, restarts in ((lambda: Frames(THREAD), True), (events, False)):
        stayed = frames_of(Follow(run, START, restarts=restarts), show(), live(story))
        for place, frame in enumerate(stayed):
            for pieces in ([], story.pieces):
                both = stayed[: place + 1] + resumed(story, run, frame, show(), restarts, pieces)
                assert facts_of(both) == facts_of(stayed), frame.id
                if restarts:
                    assert native_text(both, run) == after, frame.id
                else:
                    had = turns_of(story, both).get((0, 0), "")
                    shown = [f"{before[:n]}\n\n{after}" for n in range(1, len(before) + 1)]
                    assert had in (after, *shown) or after == "", (frame.id, had)
