"""In whose words a story is followed, and what a client then has of it, frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from parley_gateway.dialects.org_agents import outbound as org_agents
from parley_gateway.dialects.org_chat import outbound as org_chat
from parley_gateway.dialects.team_chat import outbound as team_chat
from parley_gateway.dialects.team_chat import plays
from parley_gateway.dialects.threads import outbound as threads
from parley_gateway.dialects.tool_chat import outbound as tool_chat
from parley_gateway.feed.cursor import START
from parley_gateway.feed.follow import Follow, Shown, ShownText, merged
from parley_gateway.feed.frames import Frame, encode
from tests.support.sse import frame_of
from tests.unit.gateway.feed.stories import THREAD, Story

Show = Callable[[Shown], list[Frame]]


@dataclass(frozen=True, slots=True)
class Words:
    """A way of following: in whose words, what (`of_thread`: the thread, else a run), and how. `shows`: of which kinds
    it tells texts."""

    name: str
    show: Callable[[str], Show]
    restarts: bool = False
    of_thread: bool = False
    inside: bool = False
    parts: bool = False
    shows: tuple[str, ...] = ("text",)


WORDS = (
    Words("run", lambda run: threads.Frames(THREAD), restarts=True, shows=("text", "thought")),
    Words("thread", lambda run: threads.Frames(THREAD), restarts=True, of_thread=True, shows=("text", "thought")),
    Words("org_chat", lambda run: org_chat.Events(lambda: 0), shows=("text", "thought")),
    Words("team_chat", lambda run: team_chat.Frames()),
    Words("team_chat with tools", lambda run: team_chat.Frames(tools=True)),
    Words("team", plays.Frames, inside=True),
    Words("tool_chat", lambda run: tool_chat.Parts(THREAD), parts=True),
    Words("org_agents", lambda run: org_agents.Frames(THREAD, run)),
)


class Tagged:
    """A dialect's words, and in each text frame which (call, block) it is of."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self.kind = getattr(show, "kind", None)

    def __call__(self, shown: Shown) -> list[Frame]:
        frames = self._show(shown)
        if isinstance(shown, ShownText):
            return [frame._replace(data={**frame.data, "of": [shown.call, shown.block]}) for frame in frames]
        return frames


@dataclass(frozen=True, slots=True)
class Sent:
    """A frame as a client has it; `of`: the (call, block) that it is a text of."""

    id: str | None
    data: Any
    of: tuple[int, int] | None

    @property
    def place(self) -> str:
        """Its id without what follows of unfinished blocks."""
        return (self.id or "").partition("/")[0]

    @property
    def text(self) -> str:
        """What is said in it."""
        return str(self.data.get("delta", self.data.get("content", self.data.get("text"))))


def sent(part: bytes) -> Sent:
    if part.startswith(b"data: ["):
        return Sent(None, part.decode(), None)
    frame = frame_of(part)
    of = frame.data.pop("of", None)
    return Sent(frame.id, frame.data, None if of is None else (of[0], of[1]))


def undisturbed(story: Story, words: Words, run: str) -> list[Sent]:
    """What a client has that never left, at a gateway that reads all facts and no piece."""
    follow = Follow(None if words.of_thread else run, START, restarts=words.restarts, inside=words.inside)
    show = Tagged(words.show(run))
    return [
        sent(part)
        for fact in story.facts
        if not follow.ended
        for shown in merged(follow.fact(fact))
        for part in encode(shown, show(shown))
    ]
