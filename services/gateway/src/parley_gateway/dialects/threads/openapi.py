"""The operations of `threads`, for its OpenAPI document."""

from __future__ import annotations

from typing import Literal

from parley_events.body import Json
from parley_gateway.dialects.threads import shapes, wire
from parley_gateway.dialects.threads.access import BASE
from parley_gateway.openapi.operation import (
    BYTES,
    GONE,
    MIN_POSITION,
    PAGE,
    RESUME,
    RUN_ID,
    WAIT,
    Answer,
    Contract,
    Flag,
    Operation,
    Parameter,
)

THREAD_ID = "0190b6f4-7c1e-7cc3-98c4-dc0c0c07398f"
RUN = f"{THREAD_ID}.r1f0c2a9d4b5e6f70"
AT = "2026-04-20T14:30:00Z"
THREAD = {
    "id": THREAD_ID,
    "title": "Leads",
    "agent_id": "assistant",
    "user_id": "ann",
    "pinned": False,
    "archived": False,
    "system_prompt": "You help me triage inbound leads.",
    "context": None,
    "metadata": {},
    "created_at": AT,
    "updated_at": AT,
    "last_message_at": None,
    "message_count": 0,
    "position": f"{THREAD_ID}@1",
}
RUN_TOLD = {
    "id": RUN,
    "thread_id": THREAD_ID,
    "agent_id": "assistant",
    "agent_version": 1,
    "status": "completed",
    "attempt": 1,
    "usage": {"input_tokens": 12, "output_tokens": 5},
    "stop_reason": "end_turn",
    "error": None,
    "message_id": f"{RUN}.a",
    "created_at": AT,
    "ended_at": AT,
}
MESSAGE = {
    "id": f"{RUN}.a",
    "seq": 5,
    "thread_id": THREAD_ID,
    "run_id": RUN,
    "role": "assistant",
    "content": "Hello!",
    "tool_calls": None,
    "tool_call_id": None,
    "author": {"kind": "agent", "id": "assistant", "name": None},
    "attachments": [],
    "metadata": {},
    "created_at": AT,
}
SENT = {
    "thread_id": THREAD_ID,
    "message_id": f"{THREAD_ID}.q1f0c2a9d4b5e6f70",
    "run_id": RUN,
    "status": "running",
    "position": f"{THREAD_ID}@2",
    "conversation_id": THREAD_ID,
    "events_url": f"{BASE}/runs/{RUN}/events",
}
ENDED = {"thread_id": THREAD_ID, "message_id": SENT["message_id"], "run": RUN_TOLD, "message": MESSAGE}
_HEAD = f'"thread_id":"{THREAD_ID}","run_id":"{RUN}","message_id":"{RUN}.a"'
STREAM = (
    f'id: 3/3.0:2\ndata: {{"type":"text.delta","seq":3,{_HEAD},"delta":"He"}}',
    f'id: 3/3.0:6\ndata: {{"type":"text.delta","seq":3,{_HEAD},"delta":"llo!"}}',
    f'id: 5\ndata: {{"type":"run.completed","seq":5,{_HEAD},"status":"completed","stop_reason":"end_turn",'
    f'"usage":{{"input_tokens":12,"output_tokens":5}},"created_at":"{AT}"}}',
)
MANY_STREAM = (
    f'data: {{"type":"text.delta","seq":3,{_HEAD},"delta":"Hello!","block":0,"at":0}}',
    f'id: AQAEuCw\ndata: {{"type":"run.completed","seq":5,{_HEAD},"status":"completed","stop_reason":"end_turn",'
    f'"usage":{{"input_tokens":12,"output_tokens":5}},"created_at":"{AT}"}}',
)
FILE = {
    "name": "plan.md",
    "kind": "artifact",
    "content_type": "text/markdown",
    "size": 5,
    "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    "run_id": RUN,
    "created_at": AT,
}
APPROVAL: Json = {
    "id": f"{THREAD_ID}.p5",
    "thread_id": THREAD_ID,
    "run_id": RUN,
    "agent_id": "assistant",
    "status": "open",
    "tool_call": {"id": "call_1", "name": "publish", "arguments": {"text": "Hello"}},
    "question": None,
    "input_schema": None,
    "who": [],
    "created_at": AT,
    "expires_at": "2026-04-21T14:30:00Z",
    "answered_by": None,
    "answered_at": None,
    "comment": None,
    "arguments": None,
}
DOCUMENT = {
    "id": "6d1f1c0a-4b7e-5a55-9a53-0f5f5e1f7c11",
    "title": "Tone of voice",
    "content_type": "text/markdown",
    "characters": 20,
    "created_at": AT,
}
ADDED = {"title": "Tone of voice", "content": "Short and friendly.", "content_type": "text/markdown"}
FACT = {
    "type": "run.completed",
    "seq": 5,
    "thread_id": THREAD_ID,
    "run_id": RUN,
    "message_id": f"{RUN}.a",
    "status": "completed",
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 12, "output_tokens": 5},
    "created_at": AT,
}

_LATER = "Not decided, or not to be read, in time; it is on the log."
_AGENT = Parameter("agent_id", str, "Those of this agent alone (its id or UUID).")
_AS_OF = Parameter(
    "as_of",
    str,
    "As it was then: at the thread's fact of this `seq`, or at this time (RFC 3339).",
    example="2026-04-20T14:30:00Z",
)
_OF_THE_PAST = ("bad_as_of", "as_of_ahead", "too_much_history")
_KIND = Parameter("kind", Literal["attachment", "artifact"], "Which of the two.")
_FACTS = {
    200: Answer(
        "With `Accept: text/event-stream`, or without: the stream, what is stored and then what comes. With "
        "`Accept: application/json`: a page of facts.",
        shapes.Facts,
        {"items": [FACT], "next_cursor": None},
        shapes.Frame,
        STREAM,
    )
}


def _page(of: type, item: object) -> dict[int, Answer]:
    return {200: Answer("A page.", of, {"items": [item], "next_cursor": None, "total": 1})}


_THREADS = (
    Operation(
        "createThread",
        "POST",
        f"{BASE}/threads",
        "threads",
        "Create a thread, bound to an agent or open, seeded with system context or not.",
        {201: Answer("The thread.", shapes.Thread, THREAD), 202: Answer(_LATER, shapes.Accepted, {"id": THREAD_ID})},
        request=wire.NewThread,
        example={"agent_id": "assistant", "title": "Leads", "system_prompt": "You help me triage inbound leads."},
        optional=True,
        errors=("unknown_agent", "exists"),
    ),
    Operation(
        "listThreads",
        "GET",
        f"{BASE}/threads",
        "threads",
        "List the threads of a user, most recent activity first.",
        _page(shapes.Threads, THREAD),
        parameters=(
            _AGENT,
            Parameter("user_id", str, "Another user's, for keys with `admin`."),
            Parameter("pinned", Flag, "Only those that are pinned, or are not."),
            Parameter("archived", Flag, "`true`: only those that are archived; else they are hidden."),
            *PAGE,
        ),
        errors=("invalid_request",),
    ),
    Operation(
        "getThread",
        "GET",
        f"{BASE}/threads/{{thread_id}}",
        "threads",
        "A thread.",
        {200: Answer("The thread.", shapes.Thread, THREAD)},
        parameters=(_AS_OF,),
        errors=_OF_THE_PAST,
    ),
    Operation(
        "updateThread",
        "PATCH",
        f"{BASE}/threads/{{thread_id}}",
        "threads",
        "Rename, pin or archive a thread, or replace its metadata.",
        {200: Answer("The thread.", shapes.Thread, THREAD), 202: Answer(_LATER, shapes.Accepted, {"id": THREAD_ID})},
        request=wire.ThreadChanges,
        example={"title": "Leads of April", "pinned": True},
        optional=True,
        errors=("deleted", "session_expired"),
    ),
    Operation(
        "deleteThread",
        "DELETE",
        f"{BASE}/threads/{{thread_id}}",
        "threads",
        "Delete a thread and its messages; what runs in it is cancelled.",
        {**GONE, 202: Answer(_LATER, shapes.Accepted, {"id": THREAD_ID})},
        errors=("deleted",),
    ),
    Operation(
        "forkThread",
        "POST",
        f"{BASE}/threads/{{thread_id}}/fork",
        "threads",
        "Make a thread that begins as this one does, up to a point.",
        {
            201: Answer("The new thread.", shapes.Thread, THREAD),
            202: Answer(_LATER, shapes.Accepted, {"id": THREAD_ID}),
        },
        request=wire.NewFork,
        example={"title": "Another way"},
        optional=True,
        errors=("unforkable", "exists", "deleted", "session_expired", "invalid", "unknown_agent"),
    ),
    Operation(
        "threadEvents",
        "GET",
        f"{BASE}/threads/{{thread_id}}/events",
        "threads",
        "Every fact of a thread, and the texts as they grow. The stream stays open.",
        _FACTS,
        parameters=(*PAGE, *RESUME),
    ),
    Operation(
        "allEvents",
        "GET",
        f"{BASE}/events",
        "threads",
        "The facts of many threads: of all that the key may see, or of those that are named. The stream stays open.",
        {200: Answer("The stream.", events=shapes.Frame, stream=MANY_STREAM)},
        more="It begins now, or goes on from a cursor of such a stream. Facts come in the order of their thread; "
        "between threads there is no order. Texts are not resumed: a `text.delta` has the id of what came before it, "
        "and `block` and `at` say where its text belongs.",
        parameters=(
            Parameter("threads", str, "At most 100 threads, with commas between; each must be visible."),
            Parameter("deltas", Flag, "Show texts as they grow, too."),
            *RESUME,
        ),
        errors=("invalid_request", "not_found"),
    ),
    Operation(
        "cancelThread",
        "POST",
        f"{BASE}/threads/{{thread_id}}/cancel",
        "runs",
        "Stop everything that runs, waits or is queued in a thread.",
        {
            status: Answer(
                what,
                shapes.CancelledRuns,
                {"thread_id": THREAD_ID, "cancelled": [RUN], "position": f"{THREAD_ID}@4"},
            )
            for status, what in ((200, "What was stopped."), (202, "It was told to stop, and has not ended yet."))
        },
        request=wire.Nothing,
        optional=True,
        parameters=(WAIT,),
        errors=("deleted", "session_expired"),
    ),
)

_MESSAGES = (
    Operation(
        "sendMessage",
        "POST",
        f"{BASE}/threads/{{thread_id}}/messages",
        "messages",
        "Send a message to the agent of a thread.",
        {
            200: Answer(
                "With `?wait=`: the answer. With `Accept: text/event-stream`: its stream, which can be resumed at "
                "`/runs/{run_id}/events`.",
                shapes.Ended,
                ENDED,
                shapes.Frame,
                STREAM,
                headers=(RUN_ID,),
            ),
            202: Answer("It is on its way: follow `events_url`.", shapes.Sent, SENT, headers=(RUN_ID,)),
        },
        request=wire.NewMessage,
        example={"content": "Hello!", "lead_context": {"company": "Acme"}},
        parameters=(WAIT,),
        errors=(
            "invalid_message",
            "invalid_attachment",
            "unknown_agent",
            "deleted",
            "session_expired",
            "invalid",
            "too_many",
            "unsupported",
        ),
    ),
    Operation(
        "listMessages",
        "GET",
        f"{BASE}/threads/{{thread_id}}/messages",
        "messages",
        "The messages of a thread, with times, tool calls and their results.",
        _page(shapes.Messages, MESSAGE),
        parameters=(Parameter("order", Literal["asc", "desc"], "`asc` when it is left out."), *PAGE, _AS_OF),
        errors=("invalid_request", *_OF_THE_PAST),
    ),
    Operation(
        "listFiles",
        "GET",
        f"{BASE}/threads/{{thread_id}}/files",
        "messages",
        "What came with messages, and what agents saved.",
        _page(shapes.Files, FILE),
        parameters=(_KIND, *PAGE),
        errors=("invalid_request",),
    ),
    Operation(
        "getFile",
        "GET",
        f"{BASE}/threads/{{thread_id}}/files/{{name}}",
        "messages",
        "Download a file; the newest of its name, or the one with a hash.",
        BYTES,
        parameters=(_KIND, Parameter("sha256", str, "The one with these bytes.")),
        errors=("invalid_request",),
    ),
)

_RUNS = (
    Operation(
        "getRun",
        "GET",
        f"{BASE}/runs/{{run_id}}",
        "runs",
        "A run, as it stands.",
        {200: Answer("The run.", shapes.Run, RUN_TOLD)},
        parameters=(_AS_OF,),
        errors=_OF_THE_PAST,
    ),
    Operation(
        "runEvents",
        "GET",
        f"{BASE}/runs/{{run_id}}/events",
        "runs",
        "The stream of a run, from its beginning or a cursor on. It closes after the end.",
        _FACTS,
        parameters=(*PAGE, *RESUME),
    ),
    Operation(
        "cancelRun",
        "POST",
        f"{BASE}/runs/{{run_id}}/cancel",
        "runs",
        "Stop a run. One that has ended is answered as it is.",
        {
            200: Answer("The run.", shapes.Run, {**RUN_TOLD, "status": "cancelled"}),
            202: Answer("It was told to stop, and has not ended yet.", shapes.Accepted, {"id": RUN}),
        },
        request=wire.Nothing,
        optional=True,
        parameters=(WAIT,),
        errors=("not_open", "deleted", "session_expired"),
    ),
    Operation(
        "cancelRuns",
        "POST",
        f"{BASE}/runs/cancel",
        "runs",
        "Stop the oldest open runs of a filter, at most 100 at a time.",
        {200: Answer("What was stopped.", shapes.CancelledMany, {"cancelled": [RUN], "more": False})},
        request=wire.RunFilter,
        example={"agent_id": "assistant", "older_than_s": 3600},
        parameters=(MIN_POSITION,),
        errors=("unknown_agent", "not_found", "bad_position", "behind"),
    ),
    Operation(
        "sendToolResult",
        "POST",
        f"{BASE}/runs/{{run_id}}/tools/{{tool_call_id}}",
        "runs",
        "The result of a tool that the client runs.",
        {
            200: Answer(
                "With `?wait=`: what the run then came to. With `Accept: text/event-stream`: its stream.",
                shapes.Ended,
                {name: value for name, value in ENDED.items() if name != "message_id"},
                shapes.Frame,
                STREAM,
                headers=(RUN_ID,),
            ),
            202: Answer(
                "It was taken.",
                shapes.ResultTaken,
                {
                    "thread_id": THREAD_ID,
                    "run_id": RUN,
                    "tool_call_id": "call_1",
                    "status": "running",
                    "pending": [],
                    "position": f"{THREAD_ID}@9",
                    "events_url": SENT["events_url"],
                },
                headers=(RUN_ID,),
            ),
        },
        request=wire.ToolResult,
        example={"content": "21 °C"},
        parameters=(WAIT,),
        errors=("not_open", "deleted", "session_expired", "invalid", "invalid_message"),
    ),
    Operation(
        "settleToolCall",
        "POST",
        f"{BASE}/runs/{{run_id}}/tools/{{tool_call_id}}/settle",
        "runs",
        "Say what became of a call whose outcome is unknown.",
        {
            status: Answer(
                what,
                shapes.Settled,
                {
                    "thread_id": THREAD_ID,
                    "run_id": RUN,
                    "tool_call_id": "call_1",
                    "status": "ok",
                    "happened": True,
                    "by": "ann",
                    "position": f"{THREAD_ID}@9",
                },
            )
            for status, what in ((200, "It is on record."), (202, _LATER))
        },
        request=wire.Settlement,
        example={"happened": True, "comment": "I see it in the ledger."},
        errors=("not_open", "deleted", "session_expired", "invalid"),
    ),
)

_APPROVALS = (
    Operation(
        "listApprovals",
        "GET",
        f"{BASE}/approvals",
        "approvals",
        "What was asked of people, newest first.",
        _page(shapes.Approvals, APPROVAL),
        parameters=(
            Parameter("status", Literal["open", "approved", "denied", "expired", "closed"], "Those that stand so."),
            Parameter("thread_id", str, "Those of this thread."),
            _AGENT,
            *PAGE,
        ),
        errors=("invalid_request", "unknown_agent"),
    ),
    Operation(
        "getApproval",
        "GET",
        f"{BASE}/approvals/{{approval_id}}",
        "approvals",
        "An approval.",
        {200: Answer("The approval.", shapes.Approval, APPROVAL)},
    ),
    Operation(
        "answerApproval",
        "POST",
        f"{BASE}/approvals/{{approval_id}}",
        "approvals",
        "Approve or deny. The run goes on.",
        {
            200: Answer("The approval.", shapes.Approval, {**APPROVAL, "status": "approved", "answered_by": "ann"}),
            202: Answer(_LATER, shapes.Accepted, {"id": APPROVAL["id"], "thread_id": THREAD_ID}),
        },
        request=wire.Answer,
        example={"decision": "approve", "comment": "Go ahead."},
        errors=("not_open", "deleted", "session_expired", "invalid"),
    ),
)

_KNOWLEDGE = (
    Operation(
        "addDocument",
        "POST",
        "/api/v1/knowledge",
        "knowledge",
        "Add a document to the workspace: text, Markdown or PDF. Every agent finds it.",
        {
            201: Answer("The document.", shapes.Document, {**DOCUMENT, "position": "ws:1@9"}),
            202: Answer(_LATER, shapes.Accepted, {"id": DOCUMENT["id"], "status": "accepted"}),
        },
        request=wire.NewDocument,
        example=ADDED,
        errors=("invalid_document", "unsupported_document", "too_many", "exists"),
    ),
    Operation(
        "listDocuments",
        "GET",
        "/api/v1/knowledge",
        "knowledge",
        "The documents of the workspace, newest first.",
        _page(shapes.Documents, DOCUMENT),
        parameters=PAGE,
    ),
    Operation(
        "getDocument",
        "GET",
        "/api/v1/knowledge/{knowledge_id}",
        "knowledge",
        "A document, with its text.",
        {200: Answer("The document.", shapes.WholeDocument, {**DOCUMENT, "content": "Short and friendly."})},
    ),
    Operation(
        "deleteDocument",
        "DELETE",
        "/api/v1/knowledge/{knowledge_id}",
        "knowledge",
        "Remove a document.",
        {**GONE, 202: Answer(_LATER, shapes.Accepted, {"id": DOCUMENT["id"]})},
    ),
)

CONTRACT = Contract(
    "threads",
    "Parley: threads",
    "The native contract: threads, messages, streams, runs, approvals and knowledge. Streams are Server-Sent Events "
    "without `event:` names: one frame is one `data:` line of JSON; its `id:` is the cursor to resume from. The same "
    "agents are an MCP server at `/mcp`.",
    True,
    (*_THREADS, *_MESSAGES, *_RUNS, *_APPROVALS, *_KNOWLEDGE),
)
"""The contract, for its document."""
