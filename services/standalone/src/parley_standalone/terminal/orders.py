"""What a line typed in a chat means: a message, or an order to the chat itself. Pure.

Orders begin with a colon, so that a message may begin with a slash (the scripted model's lines do). A message that
would be read as an order is sent with a second colon before it.
"""

from __future__ import annotations

import difflib
import re
from typing import NamedTuple

ORDERS = {
    ":attach": ("FILE", "send a file with the next message"),
    ":detach": ("", "forget the files that were attached"),
    ":save": ("NAME [PATH]", "fetch a file of this thread; never over one that is there"),
    ":agent": ("[ID]", "talk to another agent, in a new thread"),
    ":threads": ("", "list your threads"),
    ":thread": ("ID", "go on in another thread"),
    ":new": ("", "begin a new thread with this agent"),
    ":open": ("", "show what the answer waits for"),
    ":approve": ("[N] [COMMENT]", "let the tool be called; N where several wait"),
    ":deny": ("[N] [COMMENT]", "do not let it be called; the model is told, with the comment"),
    ":result": ("[N] TEXT", "give the result of a tool that runs here"),
    ":cancel": ("", "stop what still runs in this thread"),
    ":help": ("", "show this"),
    ":quit": ("", "leave; so does Ctrl-D"),
}
_FORM = re.compile(r"(:[a-z]+)(?:[ \t]+(.*))?[ \t]*", re.DOTALL)


class Order(NamedTuple):
    """An order and what follows it."""

    name: str
    rest: str


class Message(NamedTuple):
    """Something to send."""

    text: str


class Unclear(NamedTuple):
    """Not sent; the sentence says why."""

    why: str


def read(line: str) -> Order | Message | Unclear | None:
    """What a line means; None: nothing was typed."""
    if not line.strip():
        return None
    if line.startswith("::"):
        return Message(line[1:])
    found = _FORM.fullmatch(line)
    if found is None:
        return Message(line)
    name, rest = found[1], (found[2] or "").strip()
    if name not in ORDERS:
        near = difflib.get_close_matches(name, ORDERS, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        return Unclear(f"there is no {name}{meant} (:help lists all; :{name} sends it as a message)")
    if ORDERS[name][0][:1].isupper() and not rest:
        return Unclear(f"{name} needs {ORDERS[name][0]}")
    return Order(name, rest)


def help_lines() -> list[tuple[str, str]]:
    """Every order and key with its meaning."""
    orders = [(f"{name} {what}".rstrip(), meaning) for name, (what, meaning) in ORDERS.items()]
    return [
        *orders,
        ("Enter", "send; Alt-Enter, or a backslash at the line's end, begins another line"),
        ("Ctrl-X", "while an answer streams: cancel it"),
        ("Ctrl-C", "while an answer streams: leave; it goes on, and can be come back to"),
        ("::text", "send a message that begins with a colon and a word"),
    ]
