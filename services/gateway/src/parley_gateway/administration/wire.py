"""What administrators send. Unknown fields are ignored; types are exact."""

from __future__ import annotations

import re

from pydantic import Field

from parley_gateway.errors import invalid
from parley_gateway.http import Wire

SCOPE = re.compile(r"\*|chat|read|approve|admin|prompt:override|(agent|team):[^\s\x00]{1,200}")


class NewWorkspace(Wire):
    name: str = Field(min_length=1, max_length=200)


class NewKey(Wire):
    workspace: str | None = Field(default=None, max_length=200)
    user: str = Field(min_length=1, max_length=200)
    scopes: list[str] = Field(max_length=50)
    rate_limit: str | None = Field(default=None, max_length=50)


class Nothing(Wire):
    """A body of which nothing is read."""


def check_scopes(scopes: list[str]) -> tuple[str, ...]:
    """The scopes without doubles; a Problem 400 names one that is none."""
    for scope in scopes:
        if SCOPE.fullmatch(scope) is None:
            raise invalid(
                f"{scope!r} is no scope: *, chat, read, approve, admin, prompt:override, agent:<id>, team:<id>",
                "bad_scope",
            )
    if not scopes:
        raise invalid("a key needs at least one scope", "bad_scope")
    return tuple(dict.fromkeys(scopes))
