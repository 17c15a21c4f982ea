"""What clients of `team_chat` send. Unknown fields are ignored; types are exact."""

from __future__ import annotations

from pydantic import Field

from parley_gateway.http import Wire


class NewMessage(Wire):
    message: str
    conversation_id: str | None = Field(default=None, min_length=1, max_length=200)


class NewTeamMessage(NewMessage):
    """`mode`: how the team is to answer; `auto`, or none: as it is set to."""

    mode: str | None = None


class NewConversation(Wire):
    """`name` is another word for `title`."""

    title: str | None = Field(default=None, max_length=1000)
    name: str | None = Field(default=None, max_length=1000)


class Mark(Wire):
    """What was read: all conversations, one, or one up to a message (its id)."""

    conversation_id: str | None = Field(default=None, min_length=1, max_length=200)
    up_to: str | None = Field(default=None, min_length=1, max_length=200)
