"""A client that runs tools, as far as the log sees it: a turn that calls them, and calls that come to nothing."""

from __future__ import annotations

from typing import Any

from parley_events import facts as f
from parley_events.body import Block
from parley_events.codec import Fact
from tests.unit.gateway.world import World, run_id_of


class Client:
    """The calls that were handed to the client, by their ids."""

    def __init__(self, here: World) -> None:
        self._d, self._calls = here.dispatcher, dict[str, f.ToolCalled]()

    def called(self, posted: Fact, call: int, text: str, *call_ids: str, turn: int = 0) -> None:
        """The turn `call` says something and calls tools of the client; the run waits for them."""
        asked = {"location": "Tōkyō"}
        tools = (Block(kind="tool", tool_call_id=one, name="get_weather", arguments=asked) for one in call_ids)
        self._d.returned(posted, call, *([Block(kind="text", text=text)] if text else []), *tools, turn=turn)
        for index, call_id in enumerate(call_ids):
            body = f.ToolCalled(
                run_id=run_id_of(posted),
                call=call,
                index=index,
                tool_call_id=call_id,
                name="get_weather",
                arguments=asked,
                effect="client",
                effect_key=call_id,
            )
            made = self._d.append(posted.stream, body).body
            assert isinstance(made, f.ToolCalled)
            self._calls[call_id] = made
        self.waits(posted, *call_ids)

    def waits(self, posted: Fact, *call_ids: str) -> None:
        """The run is parked."""
        body = f.RunWaiting(run_id=run_id_of(posted), waits_for="client_tool", tool_call_ids=call_ids)
        self._d.append(posted.stream, body)

    def closed(self, posted: Fact, call_id: str) -> None:
        """The call's result is waited for no more."""
        call = self._calls.pop(call_id)
        fields: dict[str, Any] = call.model_dump(include={"run_id", "call", "index", "tool_call_id", "name"})
        self._d.append(posted.stream, f.ToolReturned(status="error", result="the user went on", **fields))
