"""The operations of `team_chat`, for its OpenAPI document: each of them at its address, and below `/api`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from parley_gateway.dialects.team_chat import shapes, wire
from parley_gateway.dialects.team_chat.access import AGENT, API
from parley_gateway.dialects.team_chat.teams import TEAM
from parley_gateway.openapi.operation import (
    GONE,
    LIMIT,
    LINK,
    PAGE,
    RESUME,
    RUN_ID,
    WAIT,
    Answer,
    Contract,
    Operation,
    Parameter,
)

CONVERSATION = "0190b6f4-7c1e-7cc3-98c4-dc0c0c07398f"
RUN = f"{CONVERSATION}.r1f0c2a9d4b5e6f70"
ANSWER = f"{CONVERSATION}.a1f0c2a9d4b5e6f70"
AT = "2026-02-14T10:00:00Z"
SAID = {"message": "What's the weather like today?"}
ANSWERED = {
    "response": "I can help you find weather information.",
    "agent_id": "assistant",
    "agent_name": "Assistant",
    "conversation_id": CONVERSATION,
}
OPEN = {
    "run_id": RUN,
    "conversation_id": CONVERSATION,
    "status": "running",
    "events_url": f"/agents/assistant/runs/{RUN}/events",
}
STREAM = (
    'id: 3/3.0:5\ndata: {"type":"text","content":"Hello"}',
    'id: 3/3.0:12\ndata: {"type":"text","content":" there!"}',
    'id: 5\ndata: {"type":"done","content":""}',
    "data: [DONE]",
)
SHOWN = {"id": CONVERSATION, "agent_id": "assistant", "title": "Weather", "created_at": AT, "updated_at": AT}
ACCEPTED = {"id": CONVERSATION, "status": "accepted"}
TEAM_SAID = {"message": "Brainstorm startup ideas", "mode": "brainstorm"}
TEAM_ANSWERED = {
    "responses": [
        {"agent_id": "researcher", "agent_name": "Researcher", "content": "A library of tools."},
        {"agent_id": "analyst", "agent_name": "Analyst", "content": "A market for them."},
    ],
    "summary": "The team identified several promising ideas.",
    "mode": "brainstorm",
    "conversation_id": CONVERSATION,
}
TEAM_STREAM = (
    'id: 5/5.0:19\ndata: {"type":"text","agent_id":"researcher","content":"A library of tools."}',
    'id: 12-1\ndata: {"type":"summary","agent_id":"researcher","content":"The team has several ideas."}',
    'id: 12\ndata: {"type":"done","content":""}',
    "data: [DONE]",
)
_EVENTS = Parameter("events", str, "`all`: with tool calls and their results.")
_CONVERSATION = Parameter("conversation_id", str, "Of this conversation; else of the default one.")
_TWENTY = Parameter("limit", Annotated[int, Field(ge=1, le=200)], "How many at most; 20 when it is left out.")
_SAYING = (
    "unknown_agent",
    "invalid_message",
    "session_expired",
    "too_many",
    "deleted",
    "unsupported",
    "invalid",
)
_UNDER_WAY = Answer("It goes on: follow `events_url`.", shapes.UnderWay, OPEN, headers=(RUN_ID,))
_STREAM = Answer("The stream. It ends with `[DONE]`.", events=shapes.Event, stream=STREAM, done=True, headers=(RUN_ID,))
_TEAM_STREAM = Answer(
    "The stream: texts with their `agent_id`, of a debate the second round alone. It ends with `[DONE]`.",
    events=shapes.TeamEvent,
    stream=TEAM_STREAM,
    done=True,
    headers=(RUN_ID,),
)
_LATER = Answer("It is on the log.", shapes.Accepted, ACCEPTED)


def _chat() -> Operation:
    return Operation(
        "chat",
        "POST",
        f"{AGENT}/chat",
        "chat",
        "Send a message to an agent and receive its response.",
        {200: Answer("The response.", shapes.Answered, ANSWERED, headers=(RUN_ID,)), 202: _UNDER_WAY},
        more="Below `/api` the address is that of `tool_chat`, whose answers have these fields, too.",
        request=wire.NewMessage,
        example=SAID,
        parameters=(WAIT,),
        errors=(*_SAYING, "agent_failed"),
    )


def _below(base: str, name: str) -> Iterator[Operation]:
    """Everything else, at one of its two addresses."""
    agent = f"{base}{AGENT}"
    yield Operation(
        f"stream{name}",
        "POST",
        f"{agent}/chat/stream",
        "chat",
        "Send a message and receive a streaming response.",
        {200: _STREAM, 202: _UNDER_WAY},
        request=wire.NewMessage,
        example=SAID,
        parameters=(_EVENTS, WAIT),
        errors=_SAYING,
    )
    yield Operation(
        f"getRun{name}",
        "GET",
        f"{agent}/runs/{{run_id}}",
        "chat",
        "A run, as it stands.",
        {
            200: Answer(
                "The run.",
                shapes.Run,
                {**OPEN, **ANSWERED, "status": "completed", "error": None},
                headers=(RUN_ID,),
            )
        },
        errors=("unknown_agent",),
    )
    yield Operation(
        f"runEvents{name}",
        "GET",
        f"{agent}/runs/{{run_id}}/events",
        "chat",
        "The stream of a run, from its beginning or a cursor on. It closes after the end.",
        {200: _STREAM},
        parameters=(_EVENTS, *RESUME),
        errors=("unknown_agent",),
    )
    yield Operation(
        f"history{name}",
        "GET",
        f"{agent}/history",
        "chat",
        "The newest messages of a conversation, ascending.",
        {
            200: Answer(
                "The messages.",
                shapes.Messages,
                {"messages": [{"id": ANSWER, "role": "assistant", "content": "Hi there!", "created_at": AT}]},
            )
        },
        parameters=(_TWENTY, _CONVERSATION, Parameter("before", str, "Those before the message with this id.")),
        errors=("unknown_agent", "bad_cursor"),
    )
    yield Operation(
        f"listConversations{name}",
        "GET",
        f"{agent}/conversations",
        "conversations",
        "The conversations with the agent, newest activity first.",
        {200: Answer("The conversations.", shapes.Conversations, {"conversations": [SHOWN]}, headers=(LINK,))},
        parameters=PAGE,
        errors=("unknown_agent",),
    )
    yield Operation(
        f"createConversation{name}",
        "POST",
        f"{agent}/conversations",
        "conversations",
        "Begin a conversation.",
        {201: Answer("The conversation.", shapes.Conversation, SHOWN), 202: _LATER},
        request=wire.NewConversation,
        example={"title": "Weather"},
        optional=True,
        errors=("unknown_agent", "exists"),
    )
    yield Operation(
        f"renameConversation{name}",
        "PUT",
        f"{agent}/conversations/{{conversation_id}}",
        "conversations",
        "Rename a conversation.",
        {200: Answer("The conversation.", shapes.Conversation, SHOWN), 202: _LATER},
        request=wire.NewConversation,
        example={"title": "Weather"},
        errors=("unknown_agent", "deleted", "session_expired"),
    )
    yield Operation(
        f"deleteConversation{name}",
        "DELETE",
        f"{agent}/conversations/{{conversation_id}}",
        "conversations",
        "Delete a conversation and its messages; what runs in it is cancelled.",
        {**GONE, 202: _LATER},
        errors=("unknown_agent", "deleted"),
    )
    yield Operation(
        f"inbox{name}",
        "GET",
        f"{agent}/inbox",
        "inbox",
        "What the agent has said beyond what was read.",
        {
            200: Answer(
                "The messages.",
                shapes.Inbox,
                {
                    "messages": [
                        {"id": ANSWER, "conversation_id": CONVERSATION, "content": "Hi there!", "created_at": AT}
                    ],
                    "unread": 1,
                },
            )
        },
        parameters=(LIMIT,),
        errors=("unknown_agent",),
    )
    yield Operation(
        f"markRead{name}",
        "POST",
        f"{agent}/mark-read",
        "inbox",
        "Mark messages as read: all, a conversation's, or those up to one.",
        {
            200: Answer("What is left.", shapes.Marked, {"unread": 0}),
            202: Answer("It is on the log.", shapes.Accepted, {"status": "accepted"}),
        },
        request=wire.Mark,
        example={"conversation_id": CONVERSATION},
        optional=True,
        errors=("unknown_agent", "deleted", "bad_position", "behind", "session_expired", "invalid"),
    )


def _teams(base: str, name: str) -> Iterator[Operation]:
    """Teams, at one of their two addresses."""
    team = f"{base}{TEAM}"
    yield Operation(
        f"teamChat{name}",
        "POST",
        f"{team}/chat",
        "teams",
        "Send a message to a team of agents. All of them answer, as the mode says.",
        {200: Answer("The responses.", shapes.TeamAnswered, TEAM_ANSWERED, headers=(RUN_ID,)), 202: _UNDER_WAY},
        request=wire.NewTeamMessage,
        example=TEAM_SAID,
        parameters=(WAIT,),
        errors=(*_SAYING, "unknown_team", "unknown_mode", "agent_failed"),
    )
    yield Operation(
        f"teamStream{name}",
        "POST",
        f"{team}/chat/stream",
        "teams",
        "The same as a stream.",
        {200: _TEAM_STREAM, 202: _UNDER_WAY},
        request=wire.NewTeamMessage,
        example=TEAM_SAID,
        errors=(*_SAYING, "unknown_team", "unknown_mode"),
    )
    yield Operation(
        f"getTeamRun{name}",
        "GET",
        f"{team}/runs/{{run_id}}",
        "teams",
        "A team's run, as it stands.",
        {
            200: Answer(
                "The run.",
                shapes.TeamRun,
                {**OPEN, **TEAM_ANSWERED, "status": "completed", "error": None},
                headers=(RUN_ID,),
            )
        },
        errors=("unknown_team",),
    )
    yield Operation(
        f"teamRunEvents{name}",
        "GET",
        f"{team}/runs/{{run_id}}/events",
        "teams",
        "The stream of a team's run, from its beginning or a cursor on. It closes after the end.",
        {200: _TEAM_STREAM},
        parameters=RESUME,
        errors=("unknown_team",),
    )


CONTRACT = Contract(
    "team_chat",
    "Parley: team_chat",
    "Chats with agents and teams in conversations, with an inbox of what was not read yet. A stream is `text` frames, "
    "one `done` or `error`, and the word `[DONE]`. Everything is served below `/` and below `/api`.",
    False,
    (_chat(), *_below("", ""), *_below(API, "BelowApi"), *_teams("", ""), *_teams(API, "BelowApi")),
)
"""The contract, for its document."""
