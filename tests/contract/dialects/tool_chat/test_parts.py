"""Made-up runs whose client answers, stays away, or both: what a stream tells, the history has under the same id."""

from __future__ import annotations

import random
from typing import Any

import pytest

from parley_events import facts as f
from parley_events.body import Block, Usage
from parley_events.reads import MessageView
from parley_gateway.dialects.tool_chat.outbound import Parts, row
from tests.contract.history.listlog import ListLog
from tests.contract.history.reference import Reference
from tests.contract.history.story import Writer, model_called, thread, workspace

STREAM, WS = thread(1), workspace(1)


class Life:
    """One run, fact by fact, as a dispatcher writes it."""

    def __init__(self, seed: int) -> None:
        self.rng, self.writer = random.Random(seed), Writer(ListLog(4))
        self.run = self.writer.post(STREAM, WS)
        for turn in range(self.rng.randrange(1, 6)):
            self._turn(turn)
        self.writer.turn(STREAM, WS, self.run, self.rng.choice(["", "The end."]), 9)
        self.writer.complete(STREAM, WS, self.run)

    def _write(self, body: f.FactBody) -> int:
        return self.writer.write(STREAM, WS, body).seq or 0

    def _turn(self, turn: int) -> None:
        """Says something and calls tools: of the server, of the client; then everything gets its result."""
        call = self._write(model_called(self.run, turn))
        client = [self.rng.random() < 0.6 for _ in range(self.rng.randrange(1, 4))]
        places: list[dict[str, Any]] = [
            {"run_id": self.run, "call": call, "index": n, "tool_call_id": f"t{turn}.{n}"} for n in range(len(client))
        ]
        tools = (Block(kind="tool", tool_call_id=place["tool_call_id"], name="look") for place in places)
        text = [Block(kind="text", text=f"Turn {turn}. ")] * self.rng.randrange(2)
        fields: dict[str, Any] = {"blocks": (*text, *tools), "stop_reason": "tool_use", "usage": Usage()}
        self._write(f.ModelReturned(run_id=self.run, call=call, turn=turn, **fields))
        for place, mine in zip(places, client, strict=True):
            effect: Any = "client" if mine else "unsafe"
            self._write(f.ToolCalled(name="look", arguments={"turn": turn}, effect=effect, effect_key="k", **place))
        for place, mine in zip(places, client, strict=True):
            if not mine:
                self._write(f.ToolReturned(name="look", status="ok", result="seen", **place))
        self._answers([place for place, mine in zip(places, client, strict=True) if mine])

    def _answers(self, waiting: list[dict[str, Any]]) -> None:
        self.rng.shuffle(waiting)
        parks = True
        while waiting:
            if parks:
                ids = tuple(place["tool_call_id"] for place in waiting)
                self._write(f.RunWaiting(run_id=self.run, waits_for="client_tool", tool_call_ids=ids))
            place = waiting.pop()
            if self.rng.random() < 0.6:
                pending = tuple(other["tool_call_id"] for other in waiting)
                self._write(f.ToolAnswered(result="seen", pending=pending, **place))
            else:
                self._write(f.ToolReturned(name="look", status="error", result="never came", **place))
            parks = self.rng.random() < 0.5


@pytest.mark.parametrize("seed", range(60))
def test_what_is_told_is_what_is_kept(seed: int) -> None:
    facts = Life(seed).writer.written
    reference = Reference(facts)
    kept = [
        row(MessageView.model_validate(view)) for view in reference.numbered([STREAM], False) if view["role"] != "user"
    ]
    parts = Parts(STREAM)
    frames = [frame for fact in reference.facts for frame in parts.fold(fact)]
    told = [frame["message"] for frame in frames if frame["type"] == "done"]
    assert told == [one for one in kept if one["role"] == "assistant"]
    assert [frame["type"] for frame in frames] == ["start", "done"] * len(told)
    assert [frame["id"] for frame in frames if frame["type"] == "start"] == [one["id"] for one in told]
    assert [one["id"] for one in kept] == sorted({one["id"] for one in kept})
    assert "".join(one["content"] or "" for one in told) == reference.run(STREAM, facts[1].body.run_id)["answer"]  # type: ignore[attr-defined]
