"""The operations of `tool_chat`, for its OpenAPI document."""

from __future__ import annotations

from parley_gateway.dialects.tool_chat import shapes, wire
from parley_gateway.dialects.tool_chat.routes import CHAT
from parley_gateway.openapi.operation import (
    LIMIT,
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
AT = "2024-12-15T10:00:01Z"
MESSAGE = {
    "id": 1189567498266627,
    "role": "assistant",
    "content": "Hi there! How can I help you?",
    "conversation_id": CONVERSATION,
    "created_at": AT,
    "tool_calls": None,
}
ANSWERED = {**MESSAGE, "response": MESSAGE["content"], "agent_id": "assistant", "agent_name": "Assistant"}
STREAM = (
    'id: 2\ndata: {"type":"start","id":1189567498266627}',
    'id: 3/3.0:9\ndata: {"type":"delta","content":"Hi there!"}',
    f'id: 5\ndata: {{"type":"done","message":{{"id":1189567498266627,"role":"assistant","content":"Hi there!",'
    f'"conversation_id":"{CONVERSATION}","created_at":"{AT}","tool_calls":null}}}}',
)
_CONVERSATION = Parameter("conversation_id", str, "Of this conversation alone; else of all that the user has.")
_NUMBER = shapes.Number

CONTRACT = Contract(
    "tool_chat",
    "Parley: tool_chat",
    "Chats with an agent whose tools may run at the client. A stream is `start`, `delta`s, and `done` or "
    "`error`, last.",
    False,
    (
        Operation(
            "getMessages",
            "GET",
            CHAT,
            "chat",
            "The history, ascending.",
            {
                200: Answer(
                    "The messages.",
                    shapes.Messages,
                    {"messages": [MESSAGE], "meta": {"total": 100, "has_more": True}},
                )
            },
            parameters=(
                LIMIT,
                _CONVERSATION,
                Parameter("before", _NUMBER, "The newest below this id. Not with `after`."),
                Parameter("after", _NUMBER, "The oldest above this id."),
                Parameter("include", str, "`tools`: what server-side tools said, too."),
            ),
            errors=("unknown_agent",),
        ),
        Operation(
            "sendMessage",
            "POST",
            CHAT,
            "chat",
            "Send a message, or the result of a tool that the client ran.",
            {
                200: Answer(
                    "The answer; with `stream` its stream. With `tool_calls`: it is the client's turn, and each result "
                    "goes to the same address.",
                    shapes.Answered,
                    ANSWERED,
                    shapes.Event,
                    STREAM,
                    headers=(RUN_ID,),
                ),
                202: Answer(
                    "A result was taken and others are waited for, or the wait is over and the run goes on.",
                    shapes.Pending | shapes.UnderWay,
                    {"pending": ["call_2"]},
                    headers=(RUN_ID,),
                ),
            },
            request=wire.NewMessage,
            example={"message": "What's the weather like?", "context": {"user": {"plan": "premium"}}},
            parameters=(WAIT,),
            errors=(
                "unknown_agent",
                "invalid_message",
                "ai_service_error",
                "cancelled",
                "too_many",
                "deleted",
                "session_expired",
                "unsupported",
            ),
        ),
        Operation(
            "clearHistory",
            "DELETE",
            CHAT,
            "chat",
            "Cancel what runs, and clear a conversation, or all with the agent.",
            {
                200: Answer("It is cleared.", shapes.Cleared, {"success": True, "deleted": 150}),
                202: Answer("It will be.", shapes.Cleared, {"success": True, "deleted": 150}),
            },
            parameters=(_CONVERSATION,),
            errors=("unknown_agent", "deleted", "bad_position", "behind", "session_expired"),
        ),
        Operation(
            "runEvents",
            "GET",
            f"{CHAT}/runs/{{run_id}}/events",
            "chat",
            "The stream of a run, from its beginning or a cursor on, up to its end or the client's turn.",
            {200: Answer("The stream.", events=shapes.Event, stream=STREAM, headers=(RUN_ID,))},
            parameters=RESUME,
            errors=("unknown_agent",),
        ),
    ),
)
"""The contract, for its document."""
