"""The list of the contracts that have a document, and their documents. Nothing that a dialect imports may import it.

Making them takes a moment, and most gateways are never asked: they are made when somebody first asks.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

from parley_events.body import Json
from parley_gateway.administration import openapi as administration
from parley_gateway.dialects.org_agents import openapi as org_agents
from parley_gateway.dialects.org_chat import openapi as org_chat
from parley_gateway.dialects.team_chat import openapi as team_chat
from parley_gateway.dialects.threads import openapi as threads
from parley_gateway.dialects.tool_chat import openapi as tool_chat
from parley_gateway.openapi.document import document
from parley_gateway.openapi.operation import Contract

CONTRACTS: dict[str, Contract] = {
    "threads": threads.CONTRACT,
    "org_chat": org_chat.CONTRACT,
    "org_agents": org_agents.CONTRACT,
    "tool_chat": tool_chat.CONTRACT,
    "team_chat": team_chat.CONTRACT,
    "administration": administration.CONTRACT,
}
"""Every contract, by its name."""


@cache
def documents() -> dict[str, Json]:
    """The OpenAPI document of each contract, by its name."""
    return {name: document(contract, version("parley-gateway")) for name, contract in CONTRACTS.items()}
