"""What clients of `tool_chat` send. Unknown fields are ignored; types are exact."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from parley_events.body import Json
from parley_gateway.http import Wire


class NewMessage(Wire):
    """A message, or (`role` `tool`) the result of a tool that the client ran."""

    role: Literal["user", "tool"] | None = None
    message: str | None = None
    conversation_id: str | None = Field(default=None, min_length=1, max_length=200)
    stream: bool | None = None
    context: Json | None = None
    system_prompt: str | None = None
    metadata: Json | None = None
    tool_call_id: str | None = Field(default=None, min_length=1, max_length=1000)
    content: str | None = None
    is_error: bool | None = None
