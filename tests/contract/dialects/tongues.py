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

    async def prepare(self, here: World, key: str | None = None) -> None:
        """Make what a message needs."""

    def message(self, text: Any = "hi") -> dict[str, Any]:
        """Method, path, headers and body of a message whose answer is a stream."""
        raise NotImplementedError

    def waiting(self, text: str = "hi") -> dict[str, Any]:
        """The same, answered when the run has ended."""
        raise NotImplementedError

    def files(self) -> tuple[str, dict[str, str]]:
        """The path of the files, and the query that it needs."""
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

    def said(self, answer: Exchange) -> str:
        """The whole text in a waiting call's answer."""
        raise NotImplementedError

    def problem(self, answer: Exchange) -> tuple[int, str]:
        """Status and code of an error; fails unless it has exactly the dialect's shape."""
        raise NotImplementedError


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
        body = answer.json()
        assert set(body) == {"error"}, body
        assert set(body["error"]) - {"details"} == {"code", "message"}, body
        assert answer.headers["content-type"] == "application/json"
        return answer.status, body["error"]["code"]


TONGUES: dict[str, type[Tongue]] = {"threads": Threads, "org_chat": OrgChat}
"""Every dialect, by its name; `DIALECTS` has the same names."""
