"""What administrators send. Unknown fields are ignored; types are exact."""

from __future__ import annotations

import re

from pydantic import ConfigDict, Field

from parley_events.declared import AgentFields, Id, TeamFields
from parley_events.rates import Rate, parse_rate
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


class NewAgent(AgentFields, Wire):
    """Without an `id` it gets one."""

    id: Id | None = None


class NewTeam(TeamFields, Wire):
    """Without an `id` it gets one."""

    id: Id | None = None


class Given(Wire):
    """Some fields of something that is there; what they are is judged together with the others."""

    model_config = ConfigDict(extra="allow")


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


def check_rate(text: str | None) -> Rate | None:
    """The rate limit; a Problem 400 says what one looks like."""
    try:
        return None if text is None else parse_rate(text)
    except ValueError as error:
        raise invalid(str(error), "bad_rate_limit") from None
