"""The contract `tool_chat`: a chat with an agent whose tools the client may run (base `/api/agents/{id}/chat`)."""

from parley_gateway.dialects.tool_chat.routes import BASE, routes

__all__ = ["BASE", "routes"]
