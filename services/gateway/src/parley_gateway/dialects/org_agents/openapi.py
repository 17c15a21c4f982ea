"""The operations of `org_agents`, for its OpenAPI document."""

from __future__ import annotations

from parley_gateway.dialects.org_agents import outbound, shapes, wire
from parley_gateway.dialects.org_agents.routes import AI, CHAT, POLLED
from parley_gateway.openapi.operation import RESUME, RUN_ID, WAIT, Answer, Contract, Operation, Parameter

SESSION = "0190b6f4-7c1e-7cc3-98c4-dc0c0c07398f"
RUN = f"{SESSION}.r1f0c2a9d4b5e6f70"
AGENT = "5b0c2e6e-52a0-5c1c-8f0f-0d6c5ad1f0aa"
AT = "2026-04-20T14:30:00Z"
RESPONSE = {
    "text": "It is sunny.",
    "stopReason": "end_turn",
    "usage": {"inputTokens": 12, "outputTokens": 5},
    "toolResults": [
        {
            "toolUseId": "toolu_1",
            "name": "get_weather",
            "input": {"city": "Oslo"},
            "output": "sunny",
            "isError": False,
            "durationMs": 12,
        }
    ],
}
STREAM = (
    f'id: 2\ndata: {{"type":"start","sessionId":"{SESSION}","requestId":"{RUN}"}}',
    'id: 3/3.0:12\ndata: {"type":"text","text":"It is sunny."}',
    f'id: 5\ndata: {{"type":"complete","sessionId":"{SESSION}","response":{{"text":"It is sunny.",'
    '"stopReason":"end_turn","usage":{"inputTokens":12,"outputTokens":5},"toolResults":[]}}',
)
ACCEPTED = outbound.accepted("assistant", "Assistant", SESSION, RUN, None)
_USER = Parameter("userId", str, "For whom the session was made, where it was made for somebody.")
_EXECUTION = {
    200: Answer(
        "How it stands.",
        shapes.Execution,
        {"requestId": RUN, "agentId": AGENT, "sessionId": SESSION, "status": "complete", "response": RESPONSE},
        headers=(RUN_ID,),
    )
}
_SESSION = {
    200: Answer(
        "The session.",
        shapes.Session,
        {
            "sessionId": SESSION,
            "agentId": AGENT,
            "userId": None,
            "messages": [{"role": "user", "content": "How is the weather?", "createdAt": AT}],
        },
    )
}

CONTRACT = Contract(
    "org_agents",
    "Parley: org_agents",
    "Chats with the agents of an organisation, in sessions, in three modes: an answer, a stream, or a run that is "
    "polled. A stream is `start`, texts and tool results, and one `complete` or `error`, last.",
    False,
    (
        Operation(
            "chat",
            "POST",
            CHAT,
            "chat",
            "Chat with an agent.",
            {
                200: Answer(
                    "The answer; with `stream` its stream.",
                    shapes.Answered,
                    {"sessionId": SESSION, "response": RESPONSE},
                    shapes.Event,
                    STREAM,
                    headers=(RUN_ID,),
                ),
                202: Answer(
                    "With `async`, or where the wait is over: poll it, or follow it.",
                    shapes.Accepted,
                    ACCEPTED,
                    headers=(RUN_ID,),
                ),
            },
            request=wire.NewMessage,
            example={"message": "How is the weather?"},
            parameters=(WAIT,),
            errors=(
                "unknown_agent",
                "session_expired",
                "invalid_message",
                "agent_failed",
                "too_many",
                "deleted",
                "unsupported",
            ),
        ),
        Operation(
            "runEvents",
            "GET",
            f"{CHAT}/runs/{{run_id}}/events",
            "chat",
            "The stream of a run, from its beginning or a cursor on. It closes after the end.",
            {200: Answer("The stream.", events=shapes.Event, stream=STREAM, headers=(RUN_ID,))},
            parameters=(_USER, *RESUME),
            errors=("unknown_agent",),
        ),
        *(
            Operation(
                f"getExecution{name}",
                "GET",
                f"{below}{POLLED}",
                "executions",
                "Poll a run.",
                _EXECUTION,
                parameters=(_USER,),
            )
            for name, below in (("", ""), ("Versioned", "/api/v3"), ("OfOrganisation", AI.removesuffix("/ai")))
        ),
        Operation(
            "getSession",
            "GET",
            f"{AI}/sessions/{{session_id}}",
            "sessions",
            "A session with its whole history, also one that has expired.",
            _SESSION,
            parameters=(_USER,),
        ),
        Operation(
            "getSessionOfAgent",
            "GET",
            f"{AI}/agents/{{agent_id}}/sessions/{{session_id}}",
            "sessions",
            "The same, below its agent.",
            _SESSION,
            parameters=(_USER,),
            errors=("unknown_agent",),
        ),
    ),
)
"""The contract, for its document."""
