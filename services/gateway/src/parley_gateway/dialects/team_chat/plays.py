"""From facts and pieces to the frames and answers of teams. Pure; `Story` remembers who said what.

Shown is the last round of a play alone: of a debate the second. Neighbours: `outbound` for single agents, `teams` for
the routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from parley_events import facts as f
from parley_events.body import Json, TeamPlay
from parley_events.codec import Fact
from parley_events.reads import RunView
from parley_gateway.dialects.team_chat.outbound import CANCELLED, DONE, accepted
from parley_gateway.errors import Problem
from parley_gateway.feed.follow import Shown, ShownFact, run_of
from parley_gateway.feed.frames import Frame
from parley_gateway.runs import text_of

Names = Mapping[str, str]
"""The names of agents, by their ids; of those that there are no more there is none."""


@dataclass(slots=True)
class Member:
    """What a member said in the last round. `end`: the type of the fact that ended it."""

    agent_id: str
    text: str = ""
    error: Json | None = None
    end: str | None = None


@dataclass(slots=True)
class Story:
    """What the facts of a run, and of the runs inside it, tell of a team's answer. Fold them in their order."""

    run_id: str
    play: TeamPlay | None = None
    lead: str = ""
    members: dict[int, Member] = field(default_factory=dict)
    summary: str = ""
    end: f.RunCompleted | f.RunFailed | f.RunCancelled | None = None
    _runs: dict[str, int] = field(default_factory=dict)

    def fold(self, fact: Fact) -> Member | None:
        """Take one more fact in; the member that came to nothing with it."""
        body = fact.body
        if isinstance(body, f.MessagePosted):
            self.play, self.lead = body.play, body.agent_id
        elif isinstance(body, f.ChildStarted):
            self._begin(body)
        elif run_of(fact) == self.run_id:
            self._own(body)
        elif (member := self.speaker(run_of(fact))) is not None:
            return _told(member, body)
        return None

    def speaker(self, run_id: str | None) -> Member | None:
        """The member that speaks in this run, if it is one of the last round."""
        at = self._runs.get(run_id or "")
        return None if at is None else self.members[at]

    @property
    def spoken(self) -> bool:
        """Whether every member has ended."""
        wanted = len(self.play.members) if self.play is not None else 0
        return len(self.members) == wanted and all(member.end is not None for member in self.members.values())

    def _begin(self, body: f.ChildStarted) -> None:
        last = self.play is not None and body.round == self.play.rounds - 1
        if last and body.member is not None and body.parent_run_id == self.run_id:
            self.members[body.member] = Member(body.agent_id)
            self._runs[body.run_id] = body.member

    def _own(self, body: f.FactBody) -> None:
        if isinstance(body, f.ModelReturned):
            self.summary += text_of(body.blocks)
        elif isinstance(body, f.RunCompleted | f.RunFailed | f.RunCancelled):
            self.end = body


def _told(member: Member, body: f.FactBody) -> Member | None:
    if isinstance(body, f.ModelReturned):
        member.text += text_of(body.blocks)
    elif isinstance(body, f.RunCompleted | f.RunFailed | f.RunCancelled):
        member.end = body.type
        if isinstance(body, f.RunCompleted):
            return None
        member.error = _error(body)
        return member
    return None


def _error(body: f.RunFailed | f.RunCancelled) -> Json:
    if isinstance(body, f.RunFailed):
        return {"code": body.code, "message": body.message}
    return {"code": "cancelled", "message": CANCELLED}


def failed(story: Story) -> Json | None:
    """Why there is nothing to show of a run that has ended: it was stopped, or broke before all had spoken."""
    end = story.end
    if isinstance(end, f.RunCancelled) or (isinstance(end, f.RunFailed) and not story.spoken):
        return _error(end)
    return None


class Frames:
    """The frames of one run."""

    def __init__(self, run_id: str) -> None:
        self._story = Story(run_id)
        self.kind = "team_play"

    def __call__(self, shown: Shown) -> list[Frame]:
        """All frames of one thing shown."""
        story = self._story
        if not isinstance(shown, ShownFact):
            member = story.speaker(shown.run_id)
            if member is None or shown.kind != "text":
                return []
            return [Frame({"type": "text", "agent_id": member.agent_id, "content": shown.text})]
        wrong = story.fold(shown.fact)
        if wrong is not None and wrong.error is not None:
            return [Frame({"type": "member_error", "agent_id": wrong.agent_id, "content": wrong.error["message"]})]
        if run_of(shown.fact) != story.run_id or story.end is None:
            return []
        error = failed(story)
        if error is not None:
            return [Frame({"type": "error", "content": error["message"]}), DONE]
        summary = {"type": "summary", "agent_id": story.lead, "content": story.summary}
        summed = [Frame(summary)] if isinstance(story.end, f.RunCompleted) else []
        return [*summed, Frame({"type": "done", "content": ""}), DONE]


def run(view: RunView, story: Story, names: Names, events_url: str) -> Json:
    """A run that is looked at; with what the waiting call would have had, once it has ended."""
    found = accepted(view.id, view.thread_id, view.status, events_url)
    error = failed(story)
    if story.end is None or error is not None:
        return {**found, "responses": None, "summary": None, "mode": _mode(story), "error": error}
    return {**found, **answered(story, view.thread_id, names, {}), "error": None}


def _mode(story: Story) -> str | None:
    return story.play.mode if story.play is not None else None


def answered(story: Story, conversation_id: str, names: Names, headers: dict[str, str]) -> Json:
    """The answer of a run that has ended; a Problem 500 when it came to nothing. A summary that failed is null."""
    error = failed(story)
    if error is not None:
        raise Problem("agent_failed", error["message"], 500, {"code": error["code"]}, headers)
    return {
        "responses": [_response(story.members[at], names) for at in sorted(story.members)],
        "summary": story.summary if isinstance(story.end, f.RunCompleted) else None,
        "mode": _mode(story),
        "conversation_id": conversation_id,
    }


def _response(member: Member, names: Names) -> Json:
    said: Json = {
        "agent_id": member.agent_id,
        "agent_name": names.get(member.agent_id, member.agent_id),
        "content": member.text if member.error is None else "",
    }
    return said if member.error is None else said | {"error": member.error}


def told(shown: Iterable[Shown], run_id: str) -> Story:
    """What was shown of a run, told."""
    story = Story(run_id)
    for item in shown:
        if isinstance(item, ShownFact):
            story.fold(item.fact)
    return story
