"""The provider port: one model turn as a stream of events. Adapters: `scripted` and `claude`.

A request is already in the shape of the Messages API (system, messages, tools), built by `prompt` from the journal
alone, but for files: a source `{"type": "object", "sha256", "media_type", "name", "size"}` names what lies in the
object store, and the provider loads it. A provider makes one attempt and never retries: attempts are journaled by the
runner.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from parley_events.body import Json, Usage
from parley_events.pieces import Kind


@dataclass(frozen=True, slots=True)
class Request:
    """One attempt at a model turn. `question` is the text that the run answers; `turn` counts from 0, `attempt`
    from 1; `call_id` is unique to the turn and the same for all its attempts (tool call ids are made of it).
    `workspace_id` is whose files may be shown; `base_url`, `api_key` and `thinking` are as in `AgentSpec`; `after` is
    what the attempt before failed with."""

    model: str
    system: str
    messages: list[Json]
    tools: list[Json]
    max_tokens: int
    temperature: float | None
    question: str
    turn: int
    attempt: int
    call_id: str
    workspace_id: str = ""
    base_url: str | None = None
    api_key: str | None = None
    thinking: Literal["adaptive", "off"] | int | None = None
    after: str | None = None


class Said(NamedTuple):
    """Characters of a block, in order. Blocks are numbered 0, 1, 2 … as they begin, over texts, thoughts and tools.
    There is one for each delta: a tuple is made in a fifth of the time of a frozen dataclass."""

    block: int
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Signed:
    """The signature of a thought; it must go back with it. The thought may have said nothing."""

    block: int
    signature: str


@dataclass(frozen=True, slots=True)
class Used:
    """The model asks for a tool. `malformed` is what it gave instead of a JSON object as arguments."""

    block: int
    tool_call_id: str
    name: str
    arguments: Json = field(default_factory=dict)
    malformed: str | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A block that only the provider understands; it goes back as it is, in its place."""

    block: int
    data: Json


@dataclass(frozen=True, slots=True)
class Stopped:
    """The turn is over; the last event."""

    stop_reason: str
    usage: Usage


Event = Said | Signed | Used | Kept | Stopped


class Provider(Protocol):
    """Calls models. What it keeps open is closed by whoever made it (`app`)."""

    def stream(self, request: Request) -> AsyncIterator[Event]:
        """One attempt. Ends with `Stopped`; raises `errors.ModelError` with what the attempt cost."""
        ...
