"""The same deeds in every dialect: how each says them, and how its answers and frames are read."""

from __future__ import annotations

from typing import Any, ClassVar

from tests.support.asgi import Exchange, ask
from tests.support.sse import Frame
from tests.support.sse import text_of as text_of_threads
from tests.unit.gateway.world import WORKSPACE, World

NOBODY = "99999999-2222-4333-8444-555555555555"


class Tongue:
    """A dialect as a client speaks it. `prepare` first."""

    name: str
    ends: ClassVar[dict[str, str]]
    """The type of the last frame, by how the run ended."""
    files_too: ClassVar[bool] = True
    """Whether messages may have attachments, and what runs made can be had."""
    pages: ClassVar[bool] = True
    """Whether the history comes in pages."""
    stays: ClassVar[bool] = True
    """Whether a stream goes on where it is the client's turn to run tools."""
    optional: ClassVar[frozenset[str]] = frozenset()
    """What a message may be without."""
    closing: ClassVar[bytes] = b""
    """What ends every stream, behind the last frame with an id."""
    tools: ClassVar[bool] = True
    """Whether a stream tells of tools that nobody asked to be told of."""
    coded: ClassVar[bool] = True
    """Whether the frame of a failed run has the code of what failed."""

    async def prepare(self, here: World, key: str | None = None) -> None:
        """Make what a message needs."""

    def message(self, text: Any = "hi") -> dict[str, Any]:
        """Method, path, headers and body of a message whose answer is a stream."""
        raise NotImplementedError

    def waiting(self, text: str = "hi") -> dict[str, Any]:
        """The same, answered when the run has ended."""
        raise NotImplementedError

    def files(self) -> tuple[str, dict[str, str]]:
        """The path of the files, and the query that it needs (where there are `files_too`)."""
        raise NotImplementedError

    def events(self, run: str) -> str:
        """The path of a run's stream."""
        raise NotImplementedError

    def run(self, run: str) -> str:
        """The path of a run."""
        raise NotImplementedError

    def history(self) -> str:
        """The path of the messages."""
        raise NotImplementedError

    def text(self, frames: list[Frame]) -> str:
        """The text that a client has after these frames."""
        raise NotImplementedError

    def facts(self, frames: list[Frame]) -> list[Any]:
        """What is not a part of a text."""
        return [frame.data for frame in frames if frame.type not in ("text", "thought", "text.delta", "thought.delta")]

    def anew(self, sent: str, text: str) -> str:
        """The text that a client has when a further attempt says `text` after an earlier one had sent so much."""
        return text if text.startswith(sent) else self.void(sent, text)

    def void(self, sent: str, text: str) -> str:
        """The same, where `sent` cannot be compared with `text`."""
        return f"{sent}\n\n{text}"

    def said(self, answer: Exchange) -> str:
        """The text in a waiting call's answer."""
        raise NotImplementedError

    def answered(self, *turns: str) -> str:
        """What a waiting call says of these turns."""
        return "".join(turns)

    def accepted(self, answer: Exchange) -> tuple[str, str]:
        """Run and status in a 202."""
        return answer.json()["run_id"], answer.json()["status"]

    def problem(self, answer: Exchange) -> tuple[int, str]:
        """Status and code of an error; fails unless it has exactly the dialect's shape."""
        raise NotImplementedError

    def _nested(self, answer: Exchange) -> tuple[int, str]:
        body = answer.json()
        assert set(body) == {"error"}, body
        assert set(body["error"]) - {"details"} == {"code", "message"}, body
        assert answer.headers["content-type"] == "application/json"
        return answer.status, body["error"]["code"]


class Threads(Tongue):
    name = "threads"
    ends: ClassVar[dict[str, str]] = {
        "completed": "run.completed",
        "failed": "run.failed",
        "cancelled": "run.cancelled",
    }

    async def prepare(self, here: World, key: str | None = None) -> None:
        app = here.gateways[0][0]
        made = await ask(app, "POST", "/api/v1/chat/threads", key=key or here.key, body={"agent_id": "scripted"})
        self.thread = str(made.json()["id"])

    def message(self, text: Any = "hi") -> dict[str, Any]:
        path = f"/api/v1/chat/threads/{self.thread}/messages"
        return {"method": "POST", "path": path, "headers": {"Accept": "text/event-stream"}, "body": {"content": text}}

    def waiting(self, text: str = "hi") -> dict[str, Any]:
        path = f"/api/v1/chat/threads/{self.thread}/messages"
        return {"method": "POST", "path": path, "params": {"wait": ""}, "body": {"content": text}}

    def files(self) -> tuple[str, dict[str, str]]:
        return f"/api/v1/chat/threads/{self.thread}/files", {}

    def events(self, run: str) -> str:
        return f"/api/v1/chat/runs/{run}/events"

    def run(self, run: str) -> str:
        return f"/api/v1/chat/runs/{run}"

    def history(self) -> str:
        return f"/api/v1/chat/threads/{self.thread}/messages"

    def text(self, frames: list[Frame]) -> str:
        return text_of_threads(frames)

    def void(self, sent: str, text: str) -> str:
        """A client is told to drop what was sent."""
        return text

    def said(self, answer: Exchange) -> str:
        return str(answer.json()["message"]["content"])

    def problem(self, answer: Exchange) -> tuple[int, str]:
        body = answer.json()
        assert set(body) - {"details"} == {"error", "message"} and isinstance(body["message"], str), body
        assert answer.headers["content-type"] == "application/json"
        return answer.status, body["error"]


class OrgChat(Tongue):
    name = "org_chat"
    ends: ClassVar[dict[str, str]] = {"completed": "complete", "failed": "error", "cancelled": "error"}

    def __init__(self) -> None:
        self.node = {"structure_id": WORKSPACE, "role_id": "executive-office-cmo"}

    def message(self, text: Any = "hi") -> dict[str, Any]:
        return {"method": "POST", "path": "/api/org/chat/message", "body": {**self.node, "message": text}}

    def waiting(self, text: str = "hi") -> dict[str, Any]:
        return {"method": "POST", "path": "/api/org/chat/message/sync", "body": {**self.node, "message": text}}

    def files(self) -> tuple[str, dict[str, str]]:
        return "/api/org/chat/artifacts", self.node

    def events(self, run: str) -> str:
        return f"/api/org/chat/runs/{run}/events"

    def run(self, run: str) -> str:
        return f"/api/org/chat/runs/{run}"

    def history(self) -> str:
        return "/api/org/chat/history"

    def text(self, frames: list[Frame]) -> str:
        return "".join(frame.data["content"] for frame in frames if frame.type == "text")

    def said(self, answer: Exchange) -> str:
        return "".join(event["content"] for event in answer.json()["events"] if event["type"] == "text")

    def problem(self, answer: Exchange) -> tuple[int, str]:
        return self._nested(answer)


class OrgAgents(Tongue):
    name = "org_agents"
    ends: ClassVar[dict[str, str]] = {"completed": "complete", "failed": "error", "cancelled": "error"}
    files_too = False
    pages = False
    optional = frozenset({"stream"})
    chat = "/api/v3/organizations/default/ai/agents/scripted/chat"

    def message(self, text: Any = "hi") -> dict[str, Any]:
        return {"method": "POST", "path": self.chat, "body": {"message": text, "stream": True}}

    def waiting(self, text: str = "hi") -> dict[str, Any]:
        return {"method": "POST", "path": self.chat, "body": {"message": text}}

    def events(self, run: str) -> str:
        return f"{self.chat}/runs/{run}/events"

    def run(self, run: str) -> str:
        return f"/ai/chat/executions/{run}"

    def history(self) -> str:
        return f"/api/v3/organizations/default/ai/sessions/{NOBODY}"

    def text(self, frames: list[Frame]) -> str:
        return "".join(frame.data["text"] for frame in frames if frame.type == "text")

    def said(self, answer: Exchange) -> str:
        return str(answer.json()["response"]["text"])

    def answered(self, *turns: str) -> str:
        return turns[-1]

    def accepted(self, answer: Exchange) -> tuple[str, str]:
        return answer.json()["requestId"], answer.json()["status"]

    def problem(self, answer: Exchange) -> tuple[int, str]:
        return self._nested(answer)


class ToolChat(Tongue):
    name = "tool_chat"
    stays = False
    ends: ClassVar[dict[str, str]] = {"completed": "done", "failed": "error", "cancelled": "error"}
    files_too = False
    optional = frozenset({"stream"})
    chat = "/api/agents/scripted/chat"

    def message(self, text: Any = "hi") -> dict[str, Any]:
        return {"method": "POST", "path": self.chat, "body": {"message": text, "stream": True}}

    def waiting(self, text: str = "hi") -> dict[str, Any]:
        return {"method": "POST", "path": self.chat, "body": {"message": text}}

    def events(self, run: str) -> str:
        return f"{self.chat}/runs/{run}/events"

    def run(self, run: str) -> str:
        """There is none but its stream."""
        return self.events(run)

    def history(self) -> str:
        return self.chat

    def text(self, frames: list[Frame]) -> str:
        return "".join(frame.data["content"] for frame in frames if frame.type == "delta")

    def facts(self, frames: list[Frame]) -> list[Any]:
        return [frame.data for frame in frames if frame.type != "delta"]

    def said(self, answer: Exchange) -> str:
        return str(answer.json()["content"])

    def problem(self, answer: Exchange) -> tuple[int, str]:
        return self._nested(answer)


class TeamChat(Tongue):
    name = "team_chat"
    closing = b"data: [DONE]\n\n"
    coded = False
    tools = False
    ends: ClassVar[dict[str, str]] = {"completed": "done", "failed": "error", "cancelled": "error"}
    files_too = False
    chat = "/agents/scripted/chat"

    def message(self, text: Any = "hi") -> dict[str, Any]:
        return {"method": "POST", "path": f"{self.chat}/stream", "body": {"message": text}}

    def waiting(self, text: str = "hi") -> dict[str, Any]:
        return {"method": "POST", "path": self.chat, "body": {"message": text}}

    def events(self, run: str) -> str:
        return f"/agents/scripted/runs/{run}/events"

    def run(self, run: str) -> str:
        return f"/agents/scripted/runs/{run}"

    def history(self) -> str:
        return "/agents/scripted/history"

    def text(self, frames: list[Frame]) -> str:
        return "".join(frame.data["content"] for frame in frames if frame.type == "text")

    def said(self, answer: Exchange) -> str:
        return str(answer.json()["response"])

    def problem(self, answer: Exchange) -> tuple[int, str]:
        return self._nested(answer)


TONGUES: dict[str, type[Tongue]] = {
    "threads": Threads,
    "org_chat": OrgChat,
    "org_agents": OrgAgents,
    "team_chat": TeamChat,
    "tool_chat": ToolChat,
}
"""Every dialect, by its name; `DIALECTS` has the same names."""
