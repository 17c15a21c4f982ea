"""The tool that asks another agent: `ask_agent`. The answer comes from a child run inside the same thread.

It is idempotent: the child run's id derives from the effect key, so a call that is tried again finds its child and
goes on where that stands.
"""

from __future__ import annotations

from pydantic import Field

from parley_dispatcher.tools.base import Arguments, Call, Result, Tool


class Question(Arguments):
    agent_id: str = Field(min_length=1, max_length=200)
    message: str = Field(min_length=1, max_length=200_000)


async def _ask(call: Call, arguments: Question) -> Result:
    return Result(await call.ask(arguments.agent_id, arguments.message))


ASK_AGENT = Tool("ask_agent", "Asks another agent and returns its answer.", Question, _ask, "idempotent")
