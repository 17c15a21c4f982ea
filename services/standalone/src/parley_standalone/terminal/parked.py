"""What an answer in a chat waits for, by numbers that a person can type. Pure; `chat` sends what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from parley_standalone.errors import CommandError
from parley_standalone.terminal import story
from parley_standalone.terminal.watch import Open

One = TypeVar("One", story.ApprovalAsked, story.HandedOver)


class Parked(NamedTuple):
    """A run that waits: `last` is the id of the last frame that was seen of it."""

    run_id: str
    last: str | None
    open: tuple[Open, ...]

    def without(self, one: Open) -> Parked:
        """When this was answered."""
        return self._replace(open=tuple(other for other in self.open if other != one))


def chosen(open_: Sequence[Open], kind: type[One], rest: str, order: str) -> tuple[One, str]:
    """Which of them an order means, and what stands after its number. Raises CommandError."""
    named = [(number, one) for number, one in enumerate(open_, 1) if isinstance(one, kind)]
    if not named:
        raise CommandError("nothing in this thread waits for that (:open shows what does)")
    word, _, after = rest.partition(" ")
    if word.isascii() and word.isdecimal() and (len(named) > 1 or int(word[:9]) == named[0][0]):
        for number, one in named:
            if int(word[:9]) == number:
                return one, after.strip()
    elif len(named) == 1:
        return named[0][1], rest
    numbers = ", ".join(str(number) for number, _ in named)
    raise CommandError(f"say which one: {order} N, where N is one of {numbers} (:open shows them)")


def how(open_: Sequence[Open]) -> list[tuple[str, str, str]]:
    """Each with its number, its words, and the orders that answer it."""
    found = []
    for number, one in enumerate(open_, 1):
        handed = isinstance(one, story.HandedOver)
        orders = f":result {number} TEXT" if handed else f":approve {number}   :deny {number} WHY"
        found.append((str(number), f"{one.name} {one.arguments}".rstrip(), orders))
    return found
