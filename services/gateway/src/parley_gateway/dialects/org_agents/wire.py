"""What clients of `org_agents` send. Unknown fields are ignored; types are exact."""

from __future__ import annotations

from pydantic import Field

from parley_gateway.http import Wire


class NewMessage(Wire):
    message: str
    session_id: str | None = Field(default=None, alias="sessionId", max_length=100)
    user_id: str | None = Field(default=None, alias="userId", min_length=1, max_length=200)
    stream: bool | None = None
    later: bool | None = Field(default=None, alias="async")
    """The run is polled."""
    system: str | None = None
