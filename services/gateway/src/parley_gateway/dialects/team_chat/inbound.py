"""From what clients of `team_chat` send to commands. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, cast, get_args

from parley_events.body import TeamMode, TeamPlay, ThreadSeed
from parley_events.commands import CreateThread, PostMessage, UpdateThread
from parley_events.ids import derived_uuid, is_uuid, thread_of
from parley_events.reads import AgentView, TeamView, ThreadView
from parley_gateway.auth import Principal
from parley_gateway.dialects.team_chat.wire import NewConversation, NewMessage, NewTeamMessage
from parley_gateway.errors import Problem, invalid, not_found
from parley_gateway.http import check_text
from parley_gateway.workspaces import Workspace

CHANNEL = "team_chat"
"""Of conversations that clients made."""
DEFAULT = "team_chat.default"
"""Of the one in which a message goes that names none: one per user and agent."""
OPENED_BELOW_API = "tool_chat"
"""Below `/api` a message that is sent to `…/chat` opens a conversation of this channel, since the address is that
contract's."""

_MESSAGE_ID = re.compile(r"[0-9a-f-]{36}\.[amt][0-9a-f]{1,40}")


class Default(NamedTuple):
    """Somebody's default conversation with `whom` (`agent` or `team`). `nth` gives its id after so many were deleted;
    `mine` is what those have in common."""

    whom: str
    nth: Callable[[int], str]
    mine: dict[str, Any]


def agent(workspace: Workspace, asked: str) -> AgentView:
    """The agent with this id or UUID; a Problem 404."""
    found = workspace.named(asked)
    if found is None:
        raise Problem("unknown_agent", f"there is no agent {asked!r} in this workspace", 404)
    return found


def team(workspace: Workspace, asked: str) -> TeamView:
    """The team with this id or UUID; a Problem 404."""
    found = workspace.team_named(asked)
    if found is None:
        raise Problem("unknown_team", f"there is no team {asked!r} in this workspace", 404)
    return found


def default_conversation(principal: Principal, asked: AgentView | TeamView) -> Default:
    """The user's default conversation with the agent or the team."""
    whom = "team" if isinstance(asked, TeamView) else "agent"
    parts = (CHANNEL, whom, principal.workspace_id, principal.user_id, asked.id)

    def nth(renewed: int) -> str:
        return derived_uuid(*parts, *((str(renewed),) if renewed else ()))

    return Default(whom, nth, {f"{whom}_id": asked.id, "channel": DEFAULT})


def conversation_id(asked: str) -> str:
    """The id of a conversation, as it was asked with; a Problem 404 when none can have it."""
    if not is_uuid(asked):
        raise not_found("conversation")
    return asked


def conversation(view: ThreadView, asked: AgentView) -> ThreadView:
    """A conversation that may be had with the agent; a Problem 404."""
    if view.agent_id not in (None, asked.id):
        raise not_found("conversation with this agent")
    return view


def conversation_of(message_id: str, within: str | None, name: str) -> str:
    """The id of the conversation in which the message is; a Problem 400 when it is in none, or not `within` it."""
    found = thread_of(message_id) if _MESSAGE_ID.fullmatch(message_id) else None
    if found is None or within not in (None, found):
        raise no_message(name)
    return found


def no_message(name: str) -> Problem:
    code = "bad_cursor" if name == "before" else "invalid_request"
    return invalid(f"{name} names no message of the conversation", code)


def post_message(principal: Principal, asked: NewMessage, answering: AgentView) -> PostMessage:
    """Opens the default conversation where the message names none."""
    seed = ThreadSeed(user_id=principal.user_id, agent_id=answering.id, channel=DEFAULT)
    return PostMessage(
        principal=principal.asker,
        text=check_text(asked.message, "message"),
        agent_id=answering.id,
        agent_version=answering.version,
        open=seed if asked.conversation_id is None else None,
    )


def post_to_team(principal: Principal, asked: NewTeamMessage, answering: TeamView, workspace: Workspace) -> PostMessage:
    """The same, to a team, which plays as it is now."""
    spec = answering.spec
    lead = spec.lead or spec.members[0]
    known = workspace.agents.get(lead)
    seed = ThreadSeed(user_id=principal.user_id, team_id=answering.id, channel=DEFAULT)
    return PostMessage(
        principal=principal.asker,
        text=check_text(asked.message, "message"),
        agent_id=lead,
        agent_version=known.version if known is not None else None,
        open=seed if asked.conversation_id is None else None,
        play=TeamPlay(
            team_id=answering.id,
            team_version=answering.version,
            name=spec.name,
            members=spec.members,
            mode=_mode(asked.mode, spec.mode),
        ),
    )


def _mode(asked: str | None, usual: TeamMode) -> TeamMode:
    """How the team plays; a Problem 422 where it cannot play so."""
    if asked is None or asked == "auto":
        return usual
    for mode in get_args(TeamMode):
        if asked == mode:
            return cast(TeamMode, mode)
    modes = ", ".join((*get_args(TeamMode), "auto"))
    raise Problem("unknown_mode", f"mode must be one of {modes}", 422)


def create_conversation(principal: Principal, asked: NewConversation, with_: AgentView) -> CreateThread:
    seed = ThreadSeed(user_id=principal.user_id, agent_id=with_.id, title=title(asked), channel=CHANNEL)
    return CreateThread(principal=principal.asker, seed=seed)


def rename_conversation(principal: Principal, asked: NewConversation) -> UpdateThread:
    if title(asked) is None:
        raise invalid("title is missing")
    return UpdateThread(principal=principal.asker, title=title(asked), changes=("title",))


def title(asked: NewConversation) -> str | None:
    return asked.name if asked.title is None else asked.title
