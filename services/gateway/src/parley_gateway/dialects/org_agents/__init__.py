"""The contract `org_agents`: an organisation's agents, at once, as a stream, or polled (below `/api/v3`)."""

from parley_gateway.dialects.org_agents.routes import BASE, routes

__all__ = ["BASE", "routes"]
