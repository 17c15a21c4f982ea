"""Whoever follows, in whatever words, however often it leaves and comes back, at whichever gateway, however slow it or
history or the log may be: in the end it has what one has that never left, and what is stored.

The hubs, feeds, channels and streams are the real ones. Stories are recorded with all that may become of records
(`recorded`), told in the words of a dialect (`spoken`), or many threads in one stream (`many_follower`), and a script
says what happens when (`stage`); nothing depends on time. `PARLEY_FOLLOWERS`: how many stories are tried, for a long
run.
"""

from __future__ import annotations

import logging
import os
import random
from collections import defaultdict
from unittest.mock import patch

from hypothesis import given, note, settings
from hypothesis import strategies as st

from parley_events.facts import ModelCalled, ModelReturned, RunCancelled
from parley_gateway.feed import outlet, recall
from tests.unit.gateway.feed.clients import Follower
from tests.unit.gateway.feed.many_follower import Wish
from tests.unit.gateway.feed.recorded import ELSEWHERE, NEIGHBOUR, STALE
from tests.unit.gateway.feed.spoken import WORDS, Sent, Words
from tests.unit.gateway.feed.stage import Stage
from tests.unit.gateway.feed.stories import Story, small_stories, stories, team_stories
from tests.unit.gateway.feed.test_texts import may_be, stored_text

EXAMPLES = int(os.environ.get("PARLEY_FOLLOWERS", "600"))
BEHIND = (0, 150, 64 * 1024)
"""How many bytes may wait for a member of a channel: here mostly so few that some fall behind."""
AT_A_TIME = 3
"""How many facts are read at a time to find what is open: here so few that most have to read on."""

scripts = st.binary(min_size=150, max_size=600).map(lambda told: list(zip(*[iter(told)] * 3, strict=False)))
"""Lines of three numbers: what is done, and how."""


wishes = st.builds(Wish, st.integers(0, 2), st.sampled_from([True, True, False]), st.booleans())
Play = tuple[list[Story], list[tuple[Words, str]], list[Wish]]


@st.composite
def played(draw: st.DrawFn) -> Play:
    """Stories, who follows what of the first, and who follows many at once."""
    story = draw(st.one_of(stories(), stories(queued=True), team_stories()))
    tops = {fact.run_id for fact in story.facts if fact.type == "message.posted"}
    runs = [run for run in story.runs if run in tops]
    few = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=2))
    ways = draw(st.lists(st.tuples(st.sampled_from(few), st.sampled_from(runs[:2])), min_size=2, max_size=5))
    beside = draw(st.sampled_from([(), (), (NEIGHBOUR,), (ELSEWHERE,), (NEIGHBOUR, ELSEWHERE)]))
    many = draw(st.lists(wishes, min_size=1, max_size=3)) if beside else []
    return [story, *(draw(small_stories(thread)) for thread in beside)], ways, many


@given(played(), scripts, st.randoms(use_true_random=True))
@settings(max_examples=EXAMPLES, deadline=None, print_blob=True)
def test_every_follower_has_what_one_has_that_never_left(
    play: Play, script: list[tuple[int, int, int]], chance: random.Random
) -> None:
    told, ways, many = play
    note(f"{[[fact.type for fact in story.facts] for story in told]}, followed as {[words.name for words, _ in ways]}")
    note(f"and as {many}")
    stage = Stage(chance, told, ways, many)
    logged = Logged()
    try:
        behind = patch.object(outlet, "BEHIND_BYTES", chance.choice(BEHIND))
        with behind, patch.object(recall, "AT_A_TIME", AT_A_TIME):
            for line in script:
                stage.do(*line)
            stage.finish()
            for client in stage.followers:
                check(stage.story, client)
            for follower in stage.many_followers:
                follower.check()
            stage.close()
        assert not logged.errors, "something went wrong, though everybody could go on"
    finally:
        stage.end()
        logged.close()


class Logged(logging.Handler):
    """What a gateway says of errors of its own; of what it only warns it says nothing."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []
        self._logger = logging.getLogger("parley_gateway")
        self._level = self._logger.level
        self._logger.setLevel(logging.ERROR)
        self._logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """As of the handler."""
        self.errors.append(f"{record.getMessage()}: {record.exc_info}")

    def close(self) -> None:
        """Listen no more."""
        self._logger.removeHandler(self)
        self._logger.setLevel(self._level)
        super().close()


def check(story: Story, client: Follower) -> None:
    """Whether a client has every fact, once and in order, and every text, whole."""
    words, frames = client.words, client.frames
    assert facts_of(frames) == facts_of(client.reference), words.name
    seqs = [int(frame.place.partition("-")[0]) for frame in frames if frame.id is not None]
    assert seqs == sorted(seqs), "its ids never go back"
    said: dict[tuple[int, int], str] = defaultdict(str)
    last: dict[int, int] = {}
    for frame in frames:
        if frame.of is not None:
            said[frame.of] += frame.text
            assert last.get(frame.of[0], 0) <= frame.of[1], "a turn's blocks come in its order"
            last[frame.of[0]] = frame.of[1]
    assert not any(STALE in text for text in said.values()), "a superseded writer was believed"
    if words.restarts:
        check_restarting(story, client, said)
    else:
        check_joined(story, client, said)


def facts_of(frames: list[Sent]) -> list[tuple[str, object]]:
    return [(frame.place, frame.data) for frame in frames if frame.of is None and frame.id is not None]


def family_of(story: Story, client: Follower) -> set[str]:
    """The runs whose texts it is told. A team's summary is told whole, with its end."""
    if client.words.of_thread:
        return set(story.runs)
    inside = {
        fact.body.run_id  # type: ignore[attr-defined]
        for fact in story.facts
        if fact.type == "child.started" and fact.body.parent_run_id == client.run  # type: ignore[attr-defined]
    }
    return inside if client.words.inside else {client.run}


def check_restarting(story: Story, client: Follower, said: dict[tuple[int, int], str]) -> None:
    """With a word for a new attempt every text is just what its call said, and a run's is the stored one."""
    runs = {fact.seq: fact.body.run_id for fact in story.facts if isinstance(fact.body, ModelCalled)}
    family = family_of(story, client)
    for (call, block), text in said.items():
        assert story.spoken.get((call, block), "").startswith(text), ((call, block), text)
    for (call, block), text in story.texts.items():
        if runs[call] in family:
            assert said.get((call, block), "") == text, (call, block)
    for run in family:
        assert _native_text(client.frames, run) == stored_text(story, run)


def _native_text(frames: list[Sent], run: str) -> str:
    kept = since = ""
    for frame in frames:
        if frame.data["run_id"] != run:
            continue
        if frame.data["type"] == "text.delta":
            since += frame.text
        elif frame.data["type"] == "run.restarted":
            since = ""
        elif frame.data["type"] == "model.returned":
            kept, since = kept + since, ""
    return kept + since


def check_joined(story: Story, client: Follower, said: dict[tuple[int, int], str]) -> None:
    """Without one: beginnings of attempts that came to nothing, each followed by a blank line, then the stored text."""
    family = family_of(story, client)
    calls = {
        fact.seq or 0: fact.body
        for fact in story.facts
        if isinstance(fact.body, ModelCalled) and fact.body.run_id in family
    }
    kinds = {
        (fact.body.call, index): block.kind
        for fact in story.facts
        if isinstance(fact.body, ModelReturned | RunCancelled)
        for index, block in enumerate(fact.body.blocks)
    }
    had: dict[tuple[str, int, int], str] = defaultdict(str)
    for (call, block), text in said.items():
        had[calls[call].run_id, calls[call].turn, block] += text
    whole = {
        (calls[call].run_id, calls[call].turn, block): text
        for (call, block), text in story.texts.items()
        if text and call in calls and kinds[call, block] in client.words.shows
    }
    for place, text in had.items():
        run, turn, block = place
        spoken = [
            story.spoken.get((call, block), "")
            for call, body in calls.items()
            if (body.run_id, body.turn) == (run, turn)
        ]
        if place in whole:
            assert may_be(text, spoken, whole[place]), (place, text, spoken, whole[place])
        else:
            assert text == "" or may_be(text + "\n\n", spoken, ""), (place, text, spoken)
    assert whole.keys() <= had.keys(), (whole, had)
