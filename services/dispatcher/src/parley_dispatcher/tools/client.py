"""Tools that the client runs, as the model is shown them. Calls are handed over (`parking`), and never made here."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from parley_dispatcher.errors import ToolError
from parley_dispatcher.tools.base import Call, Result, Tool
from parley_events.body import ClientTool


class Handed(BaseModel):
    """Arguments that are handed on as they are: the client checks them."""

    model_config = ConfigDict(extra="allow", frozen=True)


async def _never(call: Call, arguments: Handed) -> Result:
    raise ToolError("The client runs this tool.")


def client_tool(declared: ClientTool) -> Tool:
    """The tool as the model is shown it."""
    schema = {**declared.input_schema, "type": "object"}
    return Tool(declared.name, declared.description, Handed, _never, "read_only", schema)
