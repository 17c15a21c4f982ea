"""Followers that the gateway's own feed serves are found sound, wherever they left and came back."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from parley_events.body import Block
from parley_events.pieces import Kind
from tests.faults.check import Violation, check
from tests.faults.check.cursors import parse_id
from tests.faults.evidence import Contract
from tests.unit.faults.made import Made, partition, thread

STREAM = thread(3)
TURNS: tuple[tuple[tuple[Kind, str], ...], ...] = (
    (("text", "First I look. "), ("thought", "Hm."), ("text", "Then I see.")),
    (("thought", "Ünïcödé?"), ("text", "And now I think, and say ünïcödé. ")),
    (("text", "Done."),),
)


def story(seed: int) -> tuple[Made, str]:
    """A run with attempts that come to nothing, pieces that are lost or late, and blocks of two kinds."""
    chance = random.Random(seed)
    made = Made()
    made.claim(partition(STREAM))
    run = made.post(STREAM, "c1")
    for turn, blocks in enumerate(TURNS):
        failures = chance.randrange(3)
        for attempt in range(1, failures + 2):
            call = made.call(run, turn, attempt)
            before = 0
            # An attempt that comes to nothing says the same, or something else, as far as it comes.
            other = "Otherwise, " if attempt <= failures and chance.random() < 0.5 else ""
            ends = chance.randrange(len(blocks) + 1) if attempt <= failures else len(blocks)
            for index, (kind, text) in enumerate(blocks[: ends + 1]):
                said = other + text
                _say(made, chance, call, index, kind, said if index < ends else said[: len(said) // 2], before)
                before += len(said)
        made.returns(run, call, turn, *(Block(kind=kind, text=text) for kind, text in blocks))
    made.complete(run)
    return made, run


def _say(made: Made, chance: random.Random, call: int, index: int, kind: Kind, text: str, before: int) -> None:
    at = 0
    while at < len(text):
        size = chance.randrange(1, 9)
        if chance.random() < 0.95:  # a lost piece holds up what comes after it
            made.piece(STREAM, call, text[at : at + size], at, index, kind, before)
        at += size


def problems(made: Made, run: str, contract: Contract, cuts: tuple[int, ...]) -> list[Violation]:
    followers = (made.follow("someone", contract, run, STREAM, cuts),)
    evidence = made.evidence(followers=followers, without=("requests",))
    return check(replace(evidence, requests=()))


@pytest.mark.parametrize("contract", ["threads", "org_chat"])
@pytest.mark.parametrize("seed", range(8))
def test_whoever_comes_back_anywhere_saw_all_of_it(contract: Contract, seed: int) -> None:
    made, run = story(seed)
    whole = len(made.follow("someone", contract, run, STREAM).frames)
    for cut in range(1, whole + 1):
        assert problems(made, run, contract, (cut,)) == []
    chance = random.Random(seed)
    for _ in range(10):
        assert problems(made, run, contract, tuple(chance.randrange(4) for _ in range(8))) == []


def test_ids_are_read_as_they_are_written() -> None:
    whole, part, inside = (parse_id(text) for text in ("7", "7-1", "7/5.0:12/5.1:3"))
    assert whole is not None and part is not None and inside is not None
    assert part.at < whole.at == inside.at
    assert inside.sent == {(5, 0): 12, (5, 1): 3}
    assert parse_id("7/5") is parse_id("") is parse_id("x") is None
