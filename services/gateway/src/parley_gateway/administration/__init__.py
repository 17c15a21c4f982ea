"""Workspaces, keys, agents and teams, for keys with `admin` (base `/api/v1`): no chat contract, but the same parts."""

from parley_gateway.administration.routes import routes

__all__ = ["routes"]
