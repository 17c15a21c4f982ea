"""The contract `org_chat`: one shared chat per node of an organisation (base `/api/org/chat`)."""

from parley_gateway.dialects.org_chat.routes import BASE, routes

__all__ = ["BASE", "routes"]
