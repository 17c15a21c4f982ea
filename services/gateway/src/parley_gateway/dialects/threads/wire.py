"""What clients of `threads` send. Unknown fields are ignored; types are exact."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from parley_events.body import Json
from parley_events.documents import MAX_TITLE, MOST_ATTACHED
from parley_gateway.files import Content, NewFile
from parley_gateway.http import Wire


class NewThread(Wire):
    agent_id: str | None = Field(default=None, min_length=1, max_length=200)
    title: str | None = Field(default=None, max_length=1000)
    system_prompt: str | None = None
    context: Json | None = None
    metadata: Json | None = None


class ThreadChanges(Wire):
    """Only the fields that are there are changed; `title: null` takes the title away."""

    title: str | None = Field(default=None, max_length=1000)
    pinned: bool | None = None
    archived: bool | None = None
    metadata: Json | None = None


class NewFork(Wire):
    """Where to fork (without: at the end, as it is now), and how the fork is called (without: as its source)."""

    at: int | None = None
    title: str | None = Field(default=None, max_length=1000)


class NewMessage(Wire):
    content: str
    agent_id: str | None = Field(default=None, min_length=1, max_length=200)
    attachments: list[NewFile] | None = None
    knowledge_ids: list[Annotated[str, Field(max_length=100)]] | None = Field(default=None, max_length=MOST_ATTACHED)
    lead_context: Json | None = None
    metadata: Json | None = None
    on_busy: Literal["queue"] | None = None


class Answer(Wire):
    """An answer to an approval; `arguments` in place of those that were asked about."""

    decision: Literal["approve", "deny"]
    comment: str | None = Field(default=None, max_length=10_000)
    arguments: Json | None = None


class ToolResult(Wire):
    """What came of a tool that the client runs."""

    content: str
    is_error: bool = False


class Settlement(Wire):
    """What became of a call whose outcome is unknown."""

    happened: bool
    comment: str | None = Field(default=None, max_length=10_000)


class RunFilter(Wire):
    """Which open runs are meant; at least one of these is wanted."""

    agent_id: str | None = Field(default=None, min_length=1, max_length=200)
    user_id: str | None = Field(default=None, min_length=1, max_length=200)
    thread_id: str | None = Field(default=None, min_length=1, max_length=200)
    older_than_s: float | None = Field(default=None, ge=0, le=10**10)


class NewDocument(Wire):
    title: str = Field(min_length=1, max_length=MAX_TITLE)
    content: str | None = None
    content_base64: Content | None = None
    content_type: str | None = Field(default=None, max_length=200)


class Nothing(Wire):
    """A body of which nothing is read."""
