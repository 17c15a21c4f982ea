"""The tool port: what a tool is, what it is told, what it gives back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from parley_events.body import Attachment, Json, Note
from parley_events.clock import Clock
from parley_events.objects import Objects
from parley_events.reads import PassageView, SkillView

Effect = Literal["read_only", "idempotent", "checkable", "unsafe"]
"""What a second call would do. `read_only`: nothing; `idempotent`: nothing more, with the same effect key;
`checkable`: one may ask whether the first took place; `unsafe`: it might do it again."""


class Arguments(BaseModel):
    """The base of tools' arguments; what is not declared is refused, so that the model learns of its mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Skills(Protocol):
    """Where learned skills are found again."""

    async def skills(self, workspace_id: str, agent_id: str, query: str | None) -> tuple[SkillView, ...]: ...

    async def skill(self, workspace_id: str, agent_id: str, slug: str) -> SkillView | None: ...


class Knowledge(Protocol):
    """The documents of a workspace."""

    async def passages(self, workspace_id: str, query: str, limit: int) -> tuple[PassageView, ...]: ...


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool. `effect_key` is the same however often the call is tried. `ask` runs another agent inside
    this thread and gives its answer. `attachments` and `artifacts` are the thread's shelf, by name, oldest first.
    `effects` is the folder that `append_line` may write to."""

    workspace_id: str
    thread_id: str
    run_id: str
    agent_id: str
    tool_call_id: str
    effect_key: str
    clock: Clock
    skills: Skills
    knowledge: Knowledge
    objects: Objects
    effects: Path
    ask: Callable[[str, str], Awaitable[str]]
    attachments: Mapping[str, Attachment] = field(default_factory=dict)
    artifacts: Mapping[str, Attachment] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """What the model is told, and what goes on record beside it. `files` lie in the object store already."""

    text: str
    note: Note | None = None
    files: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of an earlier call that nobody had an answer to: whether it took place, and what it gave."""

    happened: bool
    result: Result


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool. `run` gets arguments that passed `arguments`; it raises `errors.ToolError` for the model to read, and
    `errors.ToolDoubt` when nobody knows what came of the call.

    `check` is what a `checkable` tool has beside it: asked with the same call and arguments, it tells whether that call
    took place, or raises as `run` does when it cannot tell.

    `input_schema` is what the model is shown in place of the schema of `arguments`, where others check them.
    `timeout_s` is its limit, where that is another than the usual one. `offered` is what its server calls it, as
    `<server>/<tool>`.
    """

    name: str
    description: str
    arguments: type[BaseModel]
    run: Callable[[Call, Any], Awaitable[Result]]
    effect: Effect = "unsafe"
    input_schema: Json | None = field(default=None, compare=False)
    timeout_s: float | None = None
    check: Callable[[Call, Any], Awaitable[Verdict]] | None = field(default=None, compare=False)
    offered: str | None = None

    def schema(self) -> Json:
        """The tool as the model is shown it. Treat it as frozen: it is made once."""
        if self.input_schema is not None:
            return {"name": self.name, "description": self.description, "input_schema": self.input_schema}
        return _schema(self)


@lru_cache(maxsize=1000)
def _schema(tool: Tool) -> Json:
    # Made anew for each of a run's model calls it was two fifths of the dispatcher's CPU.
    schema = tool.arguments.model_json_schema()
    schema.pop("title", None)
    schema.pop("description", None)
    return {"name": tool.name, "description": tool.description, "input_schema": schema}
