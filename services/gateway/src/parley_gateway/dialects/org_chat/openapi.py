"""The operations of `org_chat`, for its OpenAPI document."""

from __future__ import annotations

from parley_gateway.dialects.org_chat import shapes, wire
from parley_gateway.dialects.org_chat.routes import BASE, ROOT
from parley_gateway.openapi.operation import (
    BYTES,
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
    Uuid,
)

STRUCTURE = "6f6c1f6e-0000-4000-8000-000000000001"
ROLE = "executive-office-cmo"
RUN = "0190b6f4-7c1e-7cc3-98c4-dc0c0c07398f.r1f0c2a9d4b5e6f70"
AT = "2026-04-20T14:30:00Z"
ASKED = {
    "structure_id": STRUCTURE,
    "role_id": ROLE,
    "message": "Launch this week's paid campaigns.",
    "attachments": [{"name": "plan.md", "content_base64": "IyBQbGFu", "content_type": "text/markdown"}],
}
COMPLETE = {"summary": "Launched 3 campaigns", "artifacts": ["campaign-config.json"]}
EVENTS = [
    {"type": "text", "content": "Launched 3 campaigns", "timestamp": AT},
    {"type": "complete", "content": COMPLETE, "timestamp": AT},
]
STREAM = (
    f'id: 3/3.0:20\ndata: {{"type":"text","content":"Launched 3 campaigns","timestamp":"{AT}"}}',
    'id: 5\ndata: {"type":"complete","content":{"summary":"Launched 3 campaigns","artifacts":["campaign-config.json"]},'
    f'"timestamp":"{AT}"}}',
)
OPEN = {
    "run_id": RUN,
    "status": "running",
    "poll_url": f"{BASE}/runs/{RUN}",
    "events_url": f"{BASE}/runs/{RUN}/events",
}
MESSAGE = {
    "id": f"{RUN}.a",
    "role": "assistant",
    "content": "Launched 3 campaigns",
    "author": {"kind": "agent", "id": "assistant", "name": "Assistant"},
    "run_id": RUN,
    "timestamp": AT,
}
ARTIFACT = {
    "name": "campaign-config.json",
    "content_type": "application/json",
    "size": 5,
    "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    "run_id": RUN,
    "timestamp": AT,
}
ENTRY = {
    "id": "6d1f1c0a-4b7e-5a55-9a53-0f5f5e1f7c11",
    "type": "decision",
    "title": "Spend less",
    "body": "Half of it.",
    "role_id": "assistant",
    "run_id": RUN,
    "timestamp": AT,
}
_STRUCTURE = Parameter("structure_id", Uuid, "The workspace that holds the node.", required=True, example=STRUCTURE)
_ROLE = Parameter("role_id", str, "The node's role, or its agent's id.", required=True, example=ROLE)
_NODE = (_STRUCTURE, _ROLE)
_UNDER_WAY = Answer(
    "It goes on: ask `poll_url` again, or follow `events_url`.", shapes.UnderWay, OPEN, headers=(RUN_ID,)
)
_WHOLE = Answer(
    "It has ended; one that failed has an `error` event, and `summary` null.",
    shapes.Whole,
    {"events": EVENTS, **COMPLETE},
    headers=(RUN_ID,),
)
_SAYING = (
    "invalid_structure_id",
    "not_found",
    "invalid_message",
    "invalid_attachment",
    "bad_wait",
    "deleted",
    "invalid",
    "too_many",
    "session_expired",
    "unsupported",
    "unknown_agent",
)
_NAMING = ("invalid_structure_id", "not_found", "invalid_request")

CONTRACT = Contract(
    "org_chat",
    "Parley: org_chat",
    "Chats with the nodes of an organisation. A stream is newline-delimited Server-Sent Events of "
    "`{type, content, timestamp}`; `complete` or `error` is always the last. Its `id:` is the cursor to resume from.",
    False,
    (
        Operation(
            "sendMessage",
            "POST",
            f"{BASE}/message",
            "chat",
            "Send a message to a node, and stream the agent's response.",
            {
                200: Answer("The stream.", events=shapes.Event, stream=STREAM, headers=(RUN_ID,)),
                202: _UNDER_WAY,
            },
            request=wire.NewMessage,
            example=ASKED,
            errors=_SAYING,
        ),
        Operation(
            "sendMessageSync",
            "POST",
            f"{BASE}/message/sync",
            "chat",
            "The same without streaming: answered when the agent's turn is over.",
            {200: _WHOLE, 202: _UNDER_WAY},
            request=wire.NewMessage,
            example=ASKED,
            parameters=(WAIT,),
            errors=_SAYING,
        ),
        Operation(
            "getRun",
            "GET",
            f"{BASE}/runs/{{run_id}}",
            "chat",
            "Poll a run.",
            {200: _WHOLE, 202: _UNDER_WAY},
        ),
        Operation(
            "runEvents",
            "GET",
            f"{BASE}/runs/{{run_id}}/events",
            "chat",
            "The stream of a run, from its beginning or a cursor on. It closes after the end.",
            {200: Answer("The stream.", events=shapes.Event, stream=STREAM, headers=(RUN_ID,))},
            parameters=RESUME,
        ),
        Operation(
            "history",
            "GET",
            f"{BASE}/history",
            "chat",
            "The chat history of a node, newest first.",
            {200: Answer("The messages.", list[shapes.Message], [MESSAGE], headers=(LINK,))},
            parameters=(
                *_NODE,
                Parameter("include", str, "`events`: with tool calls, their results and the rest."),
                *PAGE,
            ),
            errors=_NAMING,
        ),
        Operation(
            "listArtifacts",
            "GET",
            f"{BASE}/artifacts",
            "artifacts",
            "The files that a node's agent has saved, newest first.",
            {200: Answer("The files.", list[shapes.Artifact], [ARTIFACT], headers=(LINK,))},
            parameters=(*_NODE, *PAGE),
            errors=_NAMING,
        ),
        Operation(
            "getArtifact",
            "GET",
            f"{BASE}/artifacts/{{name}}",
            "artifacts",
            "Download a file; the newest of its name, or the one with a hash.",
            BYTES,
            parameters=(*_NODE, Parameter("sha256", str, "The one with these bytes.")),
            errors=_NAMING,
        ),
        Operation(
            "log",
            "GET",
            f"{ROOT}/log",
            "log",
            "Decisions and milestones, newest first.",
            {200: Answer("The entries.", list[shapes.Entry], [ENTRY])},
            parameters=(_STRUCTURE, LIMIT),
            errors=_NAMING,
        ),
    ),
)
"""The contract, for its document."""
