"""The contract `team_chat`: chats with agents, sorted into conversations, with an inbox (`/agents/...`, and the same
below `/api`)."""

from parley_gateway.dialects.team_chat.routes import BASE, routes

__all__ = ["BASE", "routes"]
