"""Following: whatever becomes of the pieces, the texts and facts are the same; so too from every cursor."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parley_events import ids
from parley_events.body import Block
from parley_events.codec import Fact
from parley_events.pieces import Piece
from parley_gateway.feed.cursor import START, Cursor, parse_cursor
from parley_gateway.feed.follow import Follow, HoleError, Shown, ShownFact, ShownText, merged
from tests.unit.gateway.feed.stories import THREAD, Story, stories, team_stories


def frames_of(shown: Shown) -> int:
    """A made-up dialect: every third fact has three frames."""
    return 3 if isinstance(shown, ShownFact) and (shown.fact.seq or 0) % 3 == 0 else 1


def cursors_of(shown: Shown) -> list[str]:
    """The cursor after each frame of what is shown."""
    if isinstance(shown, ShownText):
        return [shown.cursor]
    count = frames_of(shown)
    seq = shown.fact.seq
    return [*(f"{seq}-{k}{shown.tail}" for k in range(1, count)), f"{seq}{shown.tail}"][shown.skip :]


Seen = tuple[str, Any]
"""A frame as a client keeps it: ("text", (call, block, text)) or ("fact", (seq, number of the frame))."""


def seen_of(shown: Shown) -> list[Seen]:
    if isinstance(shown, ShownText):
        return [("text", (shown.call, shown.block, shown.text))]
    return [("fact", (shown.fact.seq, k)) for k in range(shown.skip, frames_of(shown))]


class Client:
    """Someone who keeps what it is sent, and the cursor."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.cursors: list[str] = []

    def take(self, shown: Shown) -> None:
        self.seen += seen_of(shown)
        self.cursors += cursors_of(shown)

    def facts(self) -> list[Any]:
        return [what for kind, what in self.seen if kind == "fact"]

    def texts(self) -> dict[tuple[int, int], str]:
        found: dict[tuple[int, int], str] = defaultdict(str)
        for kind, what in self.seen:
            if kind == "text":
                call, block, text = what
                found[call, block] += text
        return found


Delivery = list[Fact | Piece]


@st.composite
def deliveries(draw: st.DrawFn, story: Story) -> Delivery:
    """All facts in order; pieces lost, doubled, and at any place, early and late."""
    pieces = [p for p in story.pieces for _ in range(draw(st.sampled_from([0, 1, 1, 1, 1, 2])))]
    order: list[tuple[float, int, Fact | Piece]] = []
    for n, fact in enumerate(story.facts):
        order.append((fact.seq or 0, n, fact))
    honest = draw(st.booleans())
    for n, piece in enumerate(pieces):
        shift = 0.5 if honest else draw(st.sampled_from([-1.5, -0.5, 0.2, 0.4, 0.6, 1.5, 3.5]))
        order.append((piece.call + shift, n, piece))
    return [item for _, _, item in sorted(order, key=lambda entry: entry[:2])]


def feed(follow: Follow, delivery: Delivery, client: Client) -> None:
    for item in delivery:
        for shown in follow.piece(item) if isinstance(item, Piece) else follow.fact(item):
            client.take(shown)


def check_restarting(story: Story, client: Client, run: str | None) -> None:
    """What a client of a contract with `run.restarted` must have in the end."""
    mine = [f for f in story.facts if run is None or f.run_id == run]
    assert client.facts() == [(f.seq, k) for f in mine for k in range(frames_of(ShownFact(f, "")))]
    texts = client.texts()
    calls = {f.seq for f in mine if f.type == "model.called"}
    for (call, block), text in story.texts.items():
        assert texts.pop((call, block), "") == (text if call in calls else "")
    for place, text in texts.items():
        assert place[0] in calls
        assert story.spoken[place].startswith(text), "an attempt that failed shows a beginning of what it said"


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_becomes_of_pieces_texts_and_facts_are_whole(data: st.DataObject) -> None:
    story = data.draw(stories(side_by_side=data.draw(st.booleans())))
    run = data.draw(st.sampled_from([None, *story.runs]))
    client = Client()
    feed(Follow(run, START), data.draw(deliveries(story)), client)
    check_restarting(story, client, run)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_from_every_cursor_comes_exactly_the_rest(data: st.DataObject) -> None:
    story = data.draw(stories(side_by_side=data.draw(st.booleans())))
    run = data.draw(st.sampled_from([None, *story.runs]))
    client = Client()
    feed(Follow(run, START), data.draw(deliveries(story)), client)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(client.cursors) - 1))
        client = resume(data, story, run, client, place, restarts=True)
    check_restarting(story, client, run)


def resume(
    data: st.DataObject,
    story: Story,
    run: str | None,
    before: Client,
    place: int,
    *,
    restarts: bool,
    kept: bool = False,
    inside: bool = False,
) -> Client:
    """Leave after the frame at `place`, and come back to a follower that knows nothing."""
    cursor = parse_cursor(before.cursors[place])
    after = Client()
    after.seen, after.cursors = before.seen[: place + 1], before.cursors[: place + 1]
    follow = Follow(run, cursor, restarts=restarts, inside=inside)
    for fact in story.facts[: cursor.done]:
        follow.recall(fact)
    rest: Delivery = [fact for fact in story.facts if (fact.seq or 0) > cursor.done]
    if kept:
        delivery: Delivery = [*story.pieces, *rest]
    else:
        first = [p for p in story.pieces if data.draw(st.booleans())]
        late = data.draw(deliveries(story))
        delivery = [*first, *(item for item in late if isinstance(item, Piece) or (item.seq or 0) > cursor.done)]
    feed(follow, delivery, after)
    return after


def final_text(story: Story, client: Client, run: str) -> dict[tuple[int, int], str]:
    """What a client of a contract without `run.restarted` has: (turn, block) → all that came for it."""
    turns = {f.seq: f.body.turn for f in story.facts if f.type == "model.called" and f.run_id == run}  # type: ignore[attr-defined]
    found: dict[tuple[int, int], str] = defaultdict(str)
    for (call, block), text in client.texts().items():
        found[turns[call], block] += text
    return found


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_an_attempt_that_goes_on_with_what_was_sent_is_not_seen(data: st.DataObject) -> None:
    """In a contract without a word for it: nothing is sent twice, and no blank line."""
    story = data.draw(stories(same_words=True))
    run = data.draw(st.sampled_from(story.runs))
    client = Client()
    feed(Follow(run, START, restarts=False), data.draw(deliveries(story)), client)
    check_quiet(story, client, run)
    place = data.draw(st.integers(0, len(client.cursors) - 1))
    client = resume(data, story, run, client, place, restarts=False, kept=True)
    check_quiet(story, client, run)


def check_quiet(story: Story, client: Client, run: str) -> None:
    facts = [f for f in story.facts if f.run_id == run]
    turns = {f.seq: f.body.turn for f in facts if f.type == "model.called"}  # type: ignore[attr-defined]
    expected = {(turns[call], block): text for (call, block), text in story.texts.items() if call in turns}
    assert {k: v for k, v in final_text(story, client, run).items() if v} == expected


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_an_attempt_with_other_words_comes_whole_after_a_blank_line(data: st.DataObject) -> None:
    story = data.draw(stories())
    run = data.draw(st.sampled_from(story.runs))
    client = Client()
    feed(Follow(run, START, restarts=False), data.draw(deliveries(story)), client)
    turns = {f.seq: f.body.turn for f in story.facts if f.type == "model.called" and f.run_id == run}  # type: ignore[attr-defined]
    found = final_text(story, client, run)
    for (call, block), text in story.texts.items():
        if call not in turns or not text:
            continue
        had = found[turns[call], block]
        assert had.endswith(text)
        before = had[: len(had) - len(text)]
        assert before == "" or before.endswith("\n\n") or had == text


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_run_with_those_inside_it_is_followed_whole_and_from_every_cursor(data: st.DataObject) -> None:
    story = data.draw(team_stories())
    run = story.runs[0]
    family = {run, *(one for one in story.runs if one in {ids.member_run_id(run, 0, at) for at in range(3)})}
    mine = [fact for fact in story.facts if fact.run_id in family]
    client = Client()
    feed(Follow(run, START, inside=True), data.draw(deliveries(story)), client)
    for _ in range(data.draw(st.integers(0, 2))):
        place = data.draw(st.integers(0, len(client.cursors) - 1))
        client = resume(data, story, run, client, place, restarts=True, inside=True)
    assert client.facts() == [(fact.seq, k) for fact in mine for k in range(frames_of(ShownFact(fact, "")))]
    calls = {fact.seq for fact in mine if fact.type == "model.called"}
    texts = client.texts()
    assert texts.keys() <= {place for place in story.spoken if place[0] in calls}
    for (call, block), text in story.texts.items():
        if call in calls:
            assert texts.get((call, block), "") == text


def story_of(text: str, sizes: int = 2) -> tuple[Story, str]:
    story = Story()
    run = story.post(0)
    call = story.call(run, 0, 1)
    story.speak(call, 0, "text", text, list(range(0, len(text), sizes)))
    return story, run


def test_pieces_are_shown_as_they_come_once_their_call_is_known() -> None:
    story, _ = story_of("abcdef")
    follow = Follow(None, START)
    client = Client()
    first, second, third = story.pieces
    feed(follow, [first, story.facts[0], story.facts[1]], client)
    assert client.seen == [("fact", (1, 0)), ("fact", (2, 0)), ("text", (2, 0, "ab"))]
    feed(follow, [third, first], client)
    assert len(client.seen) == 3, "beyond a gap is held, doubled is cut"
    feed(follow, [second], client)
    assert client.seen[-1] == ("text", (2, 0, "cdef"))
    assert client.cursors == ["1", "2", "2/2.0:2", "2/2.0:6"]


def test_pieces_of_another_writer_than_the_calls_own_are_never_shown() -> None:
    """Who was superseded, and does not know it, begins another call at the same seq; the claim may be read after its
    pieces. Also once the call has come to nothing, where its text is compared."""
    story, run = story_of("abcdef")
    story.failed(run, 2, 0, 1)
    again = story.call(run, 0, 2)
    story.speak(again, 0, "text", "abcdef", [2])
    facts = [fact._replace(epoch=7) for fact in story.facts]
    ours = [piece._replace(epoch=7) for piece in story.pieces]
    stale = [piece._replace(epoch=3, text="?" * 6, at=0) for piece in story.pieces]
    for restarts in (True, False):
        follow = Follow(None, START, restarts=restarts)
        client = Client()
        items: list[Fact | Piece] = [
            *stale,
            facts[0],
            facts[1],
            *stale,
            *ours[:3],
            facts[2],
            *stale,
            facts[3],
            *ours[3:],
        ]
        feed(follow, items, client)
        texts = {place: text for place, text in client.texts().items() if text}
        assert texts == ({(2, 0): "abcdef", (4, 0): "abcdef"} if restarts else {(2, 0): "abcdef"})
    follow, client = Follow(None, Cursor(3, 0, {(2, 0): 6}), restarts=False), Client()
    for fact in facts[:3]:
        follow.recall(fact)
    feed(follow, [*stale, *ours[:3], facts[3], *ours[3:]], client)
    assert client.texts() == {}, "the same words again"


def test_a_missing_beginning_is_silence_until_the_fact() -> None:
    story, run = story_of("abcdef")
    follow = Follow(None, START)
    client = Client()
    feed(follow, [*story.facts, *story.pieces[1:]], client)
    assert client.texts() == {}
    story.returned(run, 2, 0, [Block(kind="text", text="abcdef")])
    feed(follow, [story.facts[2]], client)
    assert client.seen[2:] == [("text", (2, 0, "abcdef")), ("fact", (3, 0)), ("fact", (3, 1)), ("fact", (3, 2))]
    assert client.cursors[-1] == "3"


def test_text_counts_in_code_points() -> None:
    story, run = story_of("😀é😀x", 1)
    client = Client()
    feed(Follow(None, START), [*story.facts, *story.pieces[:2]], client)
    assert client.cursors[-1] == "2/2.0:2"
    story.returned(run, 2, 0, [Block(kind="text", text="😀é😀x")])
    follow = Follow(None, parse_cursor(client.cursors[-1]))
    for fact in story.facts[:2]:
        follow.recall(fact)
    rest = Client()
    feed(follow, [story.facts[2]], rest)
    assert rest.texts() == {(2, 0): "😀x"}


def test_a_hole_in_the_facts_is_said_and_healed() -> None:
    story, run = story_of("ab")
    story.returned(run, 2, 0, [Block(kind="text", text="ab")])
    follow = Follow(None, START)
    client = Client()
    feed(follow, [story.facts[0]], client)
    with pytest.raises(HoleError) as hole:
        list(follow.fact(story.facts[2]))
    assert hole.value.after == 1
    feed(follow, [story.facts[1], story.facts[2]], client)
    assert client.texts() == {(2, 0): "ab"}


def test_a_cursor_alone_says_what_was_sent_of_an_unfinished_block() -> None:
    """A call that began long before the cursor may not be recalled; its closing fact still sends only the rest."""
    story, run = story_of("abcdef")
    story.returned(run, 2, 0, [Block(kind="text", text="abcdef")])
    client = Client()
    feed(Follow(None, parse_cursor("2/2.0:4")), [*story.pieces, story.facts[2]], client)
    assert client.texts() == {(2, 0): "ef"}


def test_held_text_is_bounded() -> None:
    story, _ = story_of("ab")
    follow = Follow(None, START)
    feed(follow, list(story.facts), Client())
    for n in range(50):
        assert not list(follow.piece(Piece(THREAD, 2, 0, "text", 10 + n * 100_000, "x" * 100_000)))
        assert not list(follow.piece(Piece(THREAD, 99 + n, 0, "text", 0, "x" * 100_000)))
    [call] = follow._calls.values()
    assert sum(len(text) for text in call.blocks[0].held.values()) <= 1_000_000
    assert sum(len(p.text) for pieces in follow._early.values() for p in pieces) <= 1_100_000


def test_a_runs_follower_is_over_at_its_end() -> None:
    story, run = story_of("ab")
    story.returned(run, 2, 0, [Block(kind="text", text="ab")])
    story.end(run)
    follow = Follow(run, START)
    feed(follow, list(story.facts), Client())
    assert follow.ended
    again = Follow(run, Cursor(len(story.facts)))
    for fact in story.facts:
        again.recall(fact)
    assert again.ended


def test_neighbouring_texts_are_merged() -> None:
    texts = [ShownText("r", 2, 0, "text", word, f"2/2.0:{n}") for n, word in enumerate(("a", "b", "c"), 1)]
    other = ShownText("r", 2, 1, "text", "d", "2/2.0:3/2.1:1")
    assert list(merged([*texts, other])) == [texts[2]._replace(text="abc"), other]
    assert list(merged([])) == []


def test_a_block_is_not_shown_while_text_of_an_earlier_one_is_missing() -> None:
    """A lost piece of the first would else come after the second, and the text would not be the message's."""
    story, run = story_of("abcdef")
    story.speak(2, 1, "text", "gh", [])
    first, _, third, second_block = story.pieces
    client = Client()
    follow = Follow(run, START)
    feed(follow, [*story.facts, first, third, second_block], client)
    assert client.texts() == {(2, 0): "ab"}
    story.returned(run, 2, 0, [Block(kind="text", text="abcdef"), Block(kind="text", text="gh")])
    feed(follow, [story.facts[2]], client)
    assert [what[2] for kind, what in client.seen if kind == "text"] == ["ab", "cdef", "gh"]


def test_a_block_is_shown_at_once_when_the_earlier_ones_are_whole() -> None:
    story, run = story_of("ab")
    story.speak(2, 2, "text", "gh", [1])
    client = Client()
    feed(Follow(run, START), [*story.facts, *story.pieces], client)
    assert client.texts() == {(2, 0): "ab", (2, 2): "gh"}, "a tool call between them has no text"


def test_a_resumed_attempt_is_compared_whatever_order_its_pieces_come_in() -> None:
    story, run = story_of("abcd")
    story.failed(run, 2, 0, 1)
    call = story.call(run, 0, 2)
    story.speak(call, 0, "text", "abcdef", [])
    client = Client()
    follow = Follow(run, parse_cursor("2/2.0:4"), restarts=False)
    for fact in story.facts[:2]:
        follow.recall(fact)
    first, second, again = story.pieces
    feed(follow, [second, first, *story.facts[2:], again], client)
    assert client.texts() == {(4, 0): "ef"}
