"""The client contracts. Each is a dialect: same core, other words, and none knows of another.

`wire` has what clients send, `inbound` makes commands of it (pure), `outbound` makes frames and answers of what is
shown (pure), `routes` joins them to HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from starlette.routing import Route

from parley_gateway.core import Core
from parley_gateway.dialects import org_agents, org_chat, team_chat, threads, tool_chat


class Dialect(NamedTuple):
    """`base`: where its paths begin. `flat`: its error shape (see `errors.Problem.body`)."""

    base: str
    flat: bool
    routes: Callable[[Core], list[Route]]


DIALECTS: dict[str, Dialect] = {
    "threads": Dialect(threads.BASE, True, threads.routes),
    "org_agents": Dialect(org_agents.BASE, False, org_agents.routes),
    "org_chat": Dialect(org_chat.BASE, False, org_chat.routes),
    "team_chat": Dialect(team_chat.BASE, False, team_chat.routes),
    "tool_chat": Dialect(tool_chat.BASE, False, tool_chat.routes),
}
"""Every dialect, by its name."""
