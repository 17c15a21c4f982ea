"""How a team answers a message: whose turn it is, and what each is shown of the others. Pure.

Asked of the run of the message, which has the team's `play` and the runs of its `members`; `steps` and `prompt` ask.
Everything follows from the journal, so a takeover in the middle of a round goes on with who has not spoken yet, and a
turn that is made anew is shown the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from parley_dispatcher.runs import Run
from parley_events import facts as f
from parley_events.body import Json, TeamMode

Place = tuple[int, int]
"""A round (from 0), and a member's place in the play (from 0)."""

_HOW: Mapping[TeamMode, str] = {
    "brainstorm": "The others answer at the same time, and none sees what another says.",
    "sequential": "The members answer one after the other; what those before you said stands in <answers>.",
    "debate": "Each answers twice; what all of you said in the first round stands in <answers> when you answer again.",
}


def due(run: Run) -> tuple[Place, ...] | None:
    """The members whose turn it is. None: all have spoken, in every round; (): those who have not wait for somebody."""
    play = run.play
    if play is None:
        return None
    for round in range(play.rounds):
        missing = [place for place in _round(run, round) if not _over(run, place)]
        if missing:
            turn = missing[:1] if play.mode == "sequential" else missing
            return tuple(place for place in turn if not _waits(run, place))
    return None


def spoke(run: Run) -> bool:
    """Whether any member has an answer, of those that the lead sums up."""
    return any(member.end == f.RunCompleted.type for member in _final(run))


def answers(run: Run, parent: Run | None) -> list[Json]:
    """What a turn of `run` is shown of what members said: a member of those before it, everyone else of the end."""
    heard: Iterable[Run] = _final(run)
    if parent is not None and parent.play is not None and run.place is not None:
        round, at = run.place
        if parent.play.mode == "sequential":
            heard = _runs(parent, (place for place in _round(parent, round) if place[1] < at))
        else:
            heard = _runs(parent, _round(parent, round - 1)) if round else ()
    return [{"agent": member.agent_id, "text": said(member)} for member in heard if said(member)]


def instructions(run: Run, parent: Run | None) -> str | None:
    """What an agent is told of its part, beside its own prompt."""
    if parent is not None and parent.play is not None and run.place is not None:
        others = ", ".join(dict.fromkeys(parent.play.members))
        named = parent.play.name or parent.play.team_id
        return f"You answer as a member of the team {named!r} ({others}). {_HOW[parent.play.mode]}"
    if run.play is not None:
        named = run.play.name or run.play.team_id
        return f"The members of the team {named!r} have answered; it stands in <answers>. Sum it up for the user."
    return None


def said(run: Run) -> str:
    """What a member answered, as far as it came."""
    return "".join(turn.text for turn in run.turns)


def _round(run: Run, round: int) -> list[Place]:
    return [(round, member) for member in range(len(run.play.members))] if run.play is not None else []


def _final(run: Run) -> list[Run]:
    return list(_runs(run, _round(run, run.play.rounds - 1))) if run.play is not None else []


def _runs(run: Run, places: Iterable[Place]) -> Iterable[Run]:
    return (run.members[place] for place in places if place in run.members)


def _over(run: Run, place: Place) -> bool:
    member = run.members.get(place)
    return member is not None and member.ended


def _waits(run: Run, place: Place) -> bool:
    member = run.members.get(place)
    return member is not None and member.status == "waiting"
