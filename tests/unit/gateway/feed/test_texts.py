"""Texts, whatever happens on the way: pieces lost, doubled, late and out of order, attempts that fail, a client that
leaves at any frame and comes back to another gateway at any moment. What it has is what one has that never left."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field

from hypothesis import event, given, settings
from hypothesis import strategies as st

from parley_events.codec import Fact
from parley_events.facts import RUN_ENDS, ModelCalled, ModelReturned, RunCancelled
from parley_events.pieces import Piece
from parley_gateway.feed.cursor import START, parse_cursor
from parley_gateway.feed.follow import Follow, Shown, ShownText, merged
from tests.unit.gateway.feed.stories import Story, stories

Item = Fact | Piece
EXAMPLES = 300


@dataclass
class Client:
    """What was shown, with the cursor after each frame. Two frames have the fact of a further attempt, and an end that
    leaves nothing of the last one: the first of them says that what came is void."""

    story: Story
    seen: list[tuple[Shown, str]] = field(default_factory=list)

    def take(self, shown: Shown) -> None:
        if isinstance(shown, ShownText):
            self.seen.append((shown, shown.cursor))
            return
        count = frames_of(self.story, shown.fact)
        for k in range(shown.skip + 1, count + 1):
            place = f"{shown.fact.seq}" if k == count else f"{shown.fact.seq}-{k}"
            self.seen.append((shown, place + shown.tail))

    def facts(self) -> list[tuple[int | None, str]]:
        """Each fact's frames."""
        return [
            (shown.fact.seq, cursor.split("/")[0]) for shown, cursor in self.seen if not isinstance(shown, ShownText)
        ]

    def text(self, run: str) -> str:
        """The text of a run for a client that knows the word for a new attempt."""
        kept = since = ""
        for shown, _ in self.seen:
            if isinstance(shown, ShownText):
                since += shown.text if shown.run_id == run and shown.kind == "text" else ""
            elif shown.fact.run_id == run and frames_of(self.story, shown.fact) == 2:
                since = ""
            elif shown.fact.run_id == run and isinstance(shown.fact.body, ModelReturned):
                kept, since = kept + since, ""
        return kept + since

    def turns(self, story: Story, run: str) -> dict[tuple[int, int], str]:
        """(turn, block) → all that came for it, for a client that knows no such word."""
        turn_of = {fact.seq: fact.body.turn for fact in story.facts if isinstance(fact.body, ModelCalled)}
        found: dict[tuple[int, int], str] = defaultdict(str)
        for shown, _ in self.seen:
            if isinstance(shown, ShownText) and shown.run_id == run:
                found[turn_of[shown.call], shown.block] += shown.text
        return dict(found)


def frames_of(story: Story, fact: Fact) -> int:
    again = isinstance(fact.body, ModelCalled) and fact.body.attempt > 1
    return 2 if again or fact.seq in story.void else 1


def log_of(chance: random.Random, story: Story) -> list[Piece]:
    """The pieces as they stand on their topic: some lost, some doubled, some of a call out of order."""
    pieces = [p for p in story.pieces for _ in range(chance.choice([0, 1, 1, 1, 1, 2]))]
    for _ in range(chance.randint(0, 3) if len(pieces) > 1 else 0):
        place = chance.randint(0, len(pieces) - 2)
        if pieces[place].call == pieces[place + 1].call:
            pieces[place], pieces[place + 1] = pieces[place + 1], pieces[place]
    return pieces


def reading_of(chance: random.Random, story: Story, pieces: list[Piece]) -> list[Item]:
    """What one gateway reads: both topics in their order, one before the other as chance has it."""
    honest = chance.random() < 0.5
    items: list[Item] = []
    left = list(pieces)
    for fact in story.facts:
        while left and (left[0].call < (fact.seq or 0) if honest else chance.random() < 0.5):
            items.append(left.pop(0))
        items.append(fact)
    return items + left


class Gateway:
    """A hub as far as followers see it: what it has read, and the pieces that it keeps."""

    def __init__(self, reading: list[Item]) -> None:
        self.reading = reading

    def stored(self, at: int) -> list[Fact]:
        return [item for item in self.reading[:at] if isinstance(item, Fact)]

    def kept(self, at: int) -> list[Piece]:
        """The pieces of calls whose turn is not on record."""
        kept: list[Piece] = []
        closed: set[int] = set()
        calls: dict[str, list[int]] = defaultdict(list)
        for item in self.reading[:at]:
            if isinstance(item, Piece):
                kept += [item] if item.call not in closed else []
            elif isinstance(item.body, ModelCalled):
                calls[item.body.run_id].append(item.seq or 0)
            elif isinstance(item.body, ModelReturned) or item.type in RUN_ENDS:
                closed |= set(calls.pop(str(item.run_id), []))
                kept = [piece for piece in kept if piece.call not in closed]
        return kept

    def join(self, follow: Follow, client: Client, done: int, start: int, stop: int) -> None:
        """As a feed does: what lies before the cursor, kept pieces, stored facts, then live until `stop`."""
        facts = self.stored(start)
        for fact in facts[:done]:
            follow.recall(fact)
        first = [shown for piece in self.kept(start) for shown in follow.piece(piece)]
        replay = [shown for fact in facts[done:] for shown in follow.fact(fact)]
        for shown in merged([*first, *replay]):
            client.take(shown)
        for item in self.reading[start:stop]:
            for shown in merged(follow.piece(item) if isinstance(item, Piece) else follow.fact(item)):
                client.take(shown)


def journey(
    chance: random.Random, story: Story, run: str | None, pieces: list[Piece], restarts: bool
) -> tuple[Client, bool]:
    """A client that leaves and comes back up to three times. Also: whether it came back with part of a block whose
    pieces that gateway does not have, so that nobody can compare it with what follows."""
    client, forgotten = Client(story), False
    visits = chance.randint(1, 4)
    for visit in range(visits):
        gateway = Gateway(reading_of(chance, story, pieces))
        last = visit == visits - 1
        if client.seen:
            keep = chance.randint(1, len(client.seen))
            client.seen = client.seen[:keep]
            cursor = parse_cursor(client.seen[-1][1])
        else:
            cursor = START
        # A gateway answers only when it has read, or history has, all up to the cursor.
        earliest = next(n for n in range(len(gateway.reading) + 1) if len(gateway.stored(n)) >= cursor.seq)
        start = chance.randint(earliest, len(gateway.reading))
        stop = len(gateway.reading) if last else chance.randint(start, len(gateway.reading))
        forgotten = forgotten or any(
            _known(gateway.kept(start), place) < chars for place, chars in cursor.blocks.items()
        )
        gateway.join(Follow(run, cursor, restarts=restarts), client, cursor.done, start, stop)
    return client, forgotten


def _known(pieces: list[Piece], place: tuple[int, int]) -> int:
    """How many characters of a block these pieces tell, from its beginning and without a gap."""
    known = 0
    for piece in sorted((p for p in pieces if (p.call, p.block) == place), key=lambda p: p.at):
        known = max(known, piece.at + len(piece.text)) if piece.at <= known else known
    return known


def stored_text(story: Story, run: str) -> str:
    """The text of the run's message."""
    said = [fact.body for fact in story.facts if isinstance(fact.body, ModelReturned | RunCancelled)]
    return "".join(block.text for body in said if body.run_id == run for block in body.blocks if block.kind == "text")


def shown_facts(story: Story, run: str | None) -> list[tuple[int | None, str]]:
    mine = [fact for fact in story.facts if run is None or fact.run_id == run]
    return [
        (fact.seq, f"{fact.seq}-{k}" if k < frames_of(story, fact) else f"{fact.seq}")
        for fact in mine
        for k in range(1, frames_of(story, fact) + 1)
    ]


@given(st.data(), st.randoms(use_true_random=True))
@settings(max_examples=EXAMPLES, deadline=None)
def test_with_a_word_for_a_new_attempt_every_client_has_the_stored_text(
    data: st.DataObject, chance: random.Random
) -> None:
    story = data.draw(stories(side_by_side=data.draw(st.booleans())))
    run = data.draw(st.sampled_from([None, *story.runs]))
    pieces = log_of(chance, story)
    stayed = Client(story)
    gateway = Gateway(reading_of(chance, story, pieces))
    gateway.join(Follow(run, START), stayed, 0, 0, len(gateway.reading))
    left, _ = journey(chance, story, run, pieces, restarts=True)
    for one in [run] if run else story.runs:
        assert left.text(one) == stayed.text(one) == stored_text(story, one)
    assert left.facts() == stayed.facts() == shown_facts(story, run)


@given(st.data(), st.randoms(use_true_random=True))
@settings(max_examples=EXAMPLES, deadline=None)
def test_without_one_an_attempt_with_the_same_words_is_never_seen(data: st.DataObject, chance: random.Random) -> None:
    story = data.draw(stories(same_words=True))
    run = data.draw(st.sampled_from(story.runs))
    pieces = log_of(chance, story)
    stayed = Client(story)
    gateway = Gateway(reading_of(chance, story, pieces))
    gateway.join(Follow(run, START, restarts=False), stayed, 0, 0, len(gateway.reading))
    left, forgotten = journey(chance, story, run, pieces, restarts=False)
    whole = final_turns(story, run)
    assert stayed.turns(story, run) == whole
    event(f"forgotten: {forgotten}")
    if forgotten:
        check_shape(story, run, left)
    else:
        assert left.turns(story, run) == whole
    assert left.facts() == stayed.facts() == shown_facts(story, run)


@given(st.data(), st.randoms(use_true_random=True))
@settings(max_examples=EXAMPLES, deadline=None)
def test_without_one_other_words_come_after_a_blank_line_and_the_last_attempt_is_whole(
    data: st.DataObject, chance: random.Random
) -> None:
    story = data.draw(stories())
    run = data.draw(st.sampled_from(story.runs))
    pieces = log_of(chance, story)
    left, _ = journey(chance, story, run, pieces, restarts=False)
    check_shape(story, run, left)
    assert left.facts() == shown_facts(story, run)


def final_turns(story: Story, run: str) -> dict[tuple[int, int], str]:
    turn_of = {f.seq: f.body.turn for f in story.facts if isinstance(f.body, ModelCalled) and f.body.run_id == run}
    return {(turn_of[call], block): text for (call, block), text in story.texts.items() if call in turn_of and text}


def check_shape(story: Story, run: str, client: Client) -> None:
    """Per block: beginnings of attempts that came to nothing, each followed by a blank line, then the stored text."""
    calls = [f for f in story.facts if isinstance(f.body, ModelCalled) and f.body.run_id == run]
    found = client.turns(story, run)
    whole = final_turns(story, run)
    for (turn, block), text in whole.items():
        spoken = [
            story.spoken.get((f.seq or 0, block), "")
            for f in calls
            if isinstance(f.body, ModelCalled) and f.body.turn == turn
        ]
        assert may_be(found.get((turn, block), ""), spoken, text), (found, spoken, text)


def may_be(had: str, spoken: list[str], text: str) -> bool:
    if had == text:
        return True
    return any(
        had.startswith(attempt[:length] + "\n\n") and may_be(had[length + 2 :], spoken[place + 1 :], text)
        for place, attempt in enumerate(spoken)
        for length in range(1, len(attempt) + 1)
    )
