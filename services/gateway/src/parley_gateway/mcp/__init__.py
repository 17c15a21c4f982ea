"""Parley as an MCP server (Streamable HTTP, at `/mcp`): the chat as tools, for agents and clients that speak MCP.

It stands above the dialects: what its tools do is said and done as `threads` and `org_chat` do it. `endpoint` is the
door (keys, bounds), `serving` the one module that knows the SDK, `tools` what is offered, `following` how a call waits
for a run.
"""

from parley_gateway.mcp.endpoint import PATH, McpServer

__all__ = ["PATH", "McpServer"]
