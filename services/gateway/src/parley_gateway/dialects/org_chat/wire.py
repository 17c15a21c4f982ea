"""What clients of `org_chat` send. Unknown fields are ignored; types are exact."""

from __future__ import annotations

from pydantic import Field

from parley_gateway.files import NewFile
from parley_gateway.http import Wire


class NewMessage(Wire):
    structure_id: str = Field(max_length=100)
    role_id: str = Field(min_length=1, max_length=200)
    message: str
    attachments: list[NewFile] | None = None
