"""The tools that Parley offers over MCP: `TOOLS`, by name. Each says and does what a route of a dialect does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import Field

from parley_events.body import Json
from parley_events.codec import Command
from parley_events.ids import is_uuid
from parley_gateway import core as core_
from parley_gateway.auth import Principal
from parley_gateway.core import Core
from parley_gateway.dialects.org_chat import inbound as org
from parley_gateway.dialects.org_chat import outbound as org_outbound
from parley_gateway.dialects.org_chat import wire as org_wire
from parley_gateway.dialects.threads import inbound, outbound, wire
from parley_gateway.dialects.threads.access import agent_named
from parley_gateway.dialects.threads.routes import answering
from parley_gateway.errors import Problem, forbidden, not_found
from parley_gateway.http import Wire
from parley_gateway.mcp.following import Followed, Progress, follow
from parley_gateway.runs import RunTold

WAIT_S = 300.0
"""The longest that a call waits for a run."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who calls a tool, and with what around it."""

    core: Core
    who: Principal
    progress: Progress
    key: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call gives: a text for a model, the same as data for a program."""

    text: str
    data: Json
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    description: str
    arguments: type[Wire]
    run: Callable[[Asked, Any], Awaitable[Answer]]
    read_only: bool = False


def refused(problem: Problem) -> Answer:
    """A problem as the contract words it."""
    data: Json = orjson.loads(problem.body(flat=True))
    return Answer(orjson.dumps(data).decode(), data, is_error=True)


def _plain(data: Json) -> Answer:
    return Answer(orjson.dumps(data).decode(), data)


# ---- threads


class ListThreads(Wire):
    user_id: str | None = Field(default=None, max_length=200, description="whose threads; left out: your own")
    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=1000, description="the next_cursor of the page before")


async def _list(asked: Asked, given: ListThreads) -> Answer:
    who = asked.who
    user_id = given.user_id or who.user_id
    if user_id != who.user_id and not who.admin:
        raise forbidden("another user's threads need a key with the scope admin")
    agent_id = next(iter(who.agents)) if len(who.agents) == 1 and not who.may_read(None) else None
    team_id = next(iter(who.teams)) if agent_id is None and len(who.teams) == 1 and not who.may_read(None) else None
    who.to_read(agent_id, team_id)
    params = {
        "user_id": user_id,
        "agent_id": agent_id,
        "team_id": team_id,
        "limit": given.limit,
        "cursor": given.cursor,
    }
    page = await asked.core.reads.threads(who, params, None)
    items = [outbound.thread(view) for view in page.items]
    return _plain({"items": items, "next_cursor": page.next_cursor, "total": page.total})


class CreateThread(Wire):
    system_prompt: str | None = Field(default=None, description="what the agent is told in this thread")
    agent_id: str | None = Field(default=None, min_length=1, max_length=200, description="who answers in it")
    title: str | None = Field(default=None, max_length=1000)


async def _create(asked: Asked, given: CreateThread) -> Answer:
    core, who = asked.core, asked.who
    agent = None
    if given.agent_id is not None:
        agent = await agent_named(core, who, given.agent_id)
    who.to_chat(agent.id if agent else None)
    new = wire.NewThread(agent_id=given.agent_id, title=given.title, system_prompt=given.system_prompt)
    thread_id = core.sender.thread_id(who, "thread.create", asked.key)
    command = core.sender.command(
        who,
        core.sender.command_id(who, "thread.create", thread_id, asked.key),
        thread_id,
        inbound.create_thread(who, new, agent),
        new.model_dump(),
        fresh=asked.key is None,
        traceparent=asked.traceparent,
    )
    outcome = await core.sender.ask(who, command)
    core.bind(thread_id, agent.id if agent else None)
    if outcome.pending:
        return _plain({"id": thread_id, "status": "accepted"})
    view = outbound.new_thread(who.workspace_id, thread_id, outcome.receipt["seed"], outcome.time_ms, outcome.position)
    return _plain(outbound.thread(view, given.agent_id))


class GetThread(Wire):
    thread_id: str = Field(max_length=200)
    limit: int = Field(default=200, ge=1, le=200, description="how many messages, the oldest first")
    cursor: str | None = Field(default=None, max_length=1000, description="the next_cursor of the page before")


async def _get(asked: Asked, given: GetThread) -> Answer:
    core, who = asked.core, asked.who
    view = await core.reads.thread(who, given.thread_id)
    params = {"limit": given.limit, "cursor": given.cursor, "order": "asc"}
    page = await core.reads.messages(who, view.id, params, None)
    messages = [outbound.message(message) for message in page.items]
    return _plain({"thread": outbound.thread(view), "messages": messages, "next_cursor": page.next_cursor})


# ---- messages


class SendMessage(Wire):
    thread_id: str = Field(max_length=200)
    content: str = Field(description="the message, at most 1 MiB")
    wait_s: float = Field(default=WAIT_S, ge=0, le=WAIT_S, description="how long to wait for the answer; 0: not at all")


async def _send(asked: Asked, given: SendMessage) -> Answer:
    core, who, thread_id = asked.core, asked.who, given.thread_id
    if not is_uuid(thread_id):
        raise not_found("thread")
    message = wire.NewMessage(content=given.content)
    agent = await answering(core, who, thread_id, None)
    command = core.sender.command(
        who,
        core.sender.command_id(who, "message.post", thread_id, asked.key),
        thread_id,
        inbound.post_message(who, message, agent),
        message.model_dump(),
        traceparent=asked.traceparent,
    )

    def whole(told: Followed) -> Answer:
        return Answer(told.run.answer, {"content": told.run.answer})

    return await _said(asked, command, given.wait_s, lambda shown: None, whole)


class Do(Wire):
    structure_id: str = Field(max_length=100, description="the UUID of the workspace, or of one of its structures")
    role_id: str = Field(min_length=1, max_length=200, description="the role (or the agent) that is to do it")
    message: str = Field(description="what is to be done, at most 1 MiB")
    wait_s: float = Field(default=WAIT_S, ge=0, le=WAIT_S, description="how long to wait for the end; 0: not at all")


async def _do(asked: Asked, given: Do) -> Answer:
    core, who = asked.core, asked.who
    workspace = await core.workspaces.knowing(who.workspace_id, given.role_id)
    structure_id = org.structure(workspace, given.structure_id)
    agent = org.node(workspace, given.role_id)
    who.to_chat(agent.id)
    thread_id = org.default_thread(workspace.id, structure_id, agent.id)
    message = org_wire.NewMessage(structure_id=given.structure_id, role_id=given.role_id, message=given.message)
    command = core.sender.command(
        who,
        core.sender.command_id(who, "message.post", thread_id, asked.key),
        thread_id,
        org.post_message(who, message, agent),
        message.model_dump(),
        traceparent=asked.traceparent,
    )
    events = org_outbound.Events(core.clock)

    def whole(told: Followed) -> Answer:
        return Answer(events.summary or "", {"summary": events.summary, "artifacts": events.artifacts})

    return await _said(asked, command, given.wait_s, events, whole)


async def _said(
    asked: Asked,
    command: Command,
    wait_s: float,
    show: Callable[[Any], object],
    whole: Callable[[Followed], Answer],
) -> Answer:
    """Send a message and wait for its run; `whole` says what a completed one gave."""
    core, who = asked.core, asked.who
    said = await core_.say(core, who, command, follow=wait_s > 0)
    data: Json = {"thread_id": said.thread_id, "message_id": said.question_id, "run_id": said.run_id}
    status = "queued" if said.queued else "running"
    if wait_s <= 0 or said.outcome.pending:
        return _open(data, status, {})
    feed = await core_.feed_of(core, who, said, restarts=False)
    told = await follow(feed, RunTold(said.run_id, said.thread_id), wait_s, asked.progress, show)
    if told.run.ended_seq is None:
        return _open(data, told.status if told.run.posted_seq else status, told.open)
    if told.status == "completed":
        found = whole(told)
        return Answer(found.text, data | {"status": "completed"} | found.data)
    error = told.run.error
    code, message = ("cancelled", "the run was cancelled") if error is None else (error.code, error.message)
    return refused(Problem(code, message, 500, details=data | {"status": told.status}))


def _open(data: Json, status: str, waits_for: dict[str, Json]) -> Answer:
    """What is said of a run that has not ended: how to see it through."""
    data = data | {"status": status, "events_url": f"/api/v1/chat/runs/{data['run_id']}/events"}
    if waits_for:
        data["waits_for"] = list(waits_for.values())
    why = {
        "queued": "it is queued behind an earlier message",
        "waiting": "it waits for somebody: an approval, or the result of a tool that the client runs",
    }.get(status, "it goes on")
    told = f"The run has not ended yet: {why}. get_chat_thread shows the answer once it is there."
    return Answer(f"{told}\n{orjson.dumps(data).decode()}", data)


TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            "list_chat_threads",
            "Lists a user's chat threads, those with the newest activity first.",
            ListThreads,
            _list,
            read_only=True,
        ),
        Tool(
            "create_chat_thread",
            "Makes a chat thread, bound to an agent or open, with a system prompt of its own if one is given.",
            CreateThread,
            _create,
        ),
        Tool(
            "send_chat_message",
            "Sends a message to a thread and gives the agent's answer. The text comes as progress while it is written.",
            SendMessage,
            _send,
        ),
        Tool(
            "get_chat_thread",
            "Gives a thread with its messages, calls of tools and their results among them.",
            GetThread,
            _get,
            read_only=True,
        ),
        Tool(
            "do",
            "Asks the agent that holds a role of an organisation to do something, and gives what came of it.",
            Do,
            _do,
        ),
    )
}
"""Every tool, by its name."""


def schema_of(tool: Tool) -> Json:
    """The JSON schema of a tool's arguments."""
    schema = tool.arguments.model_json_schema()
    schema.pop("title", None)
    return schema
