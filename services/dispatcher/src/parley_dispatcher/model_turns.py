"""A model turn: one attempt, its pieces on their way as they come, its whole on record at the end.

Above it: `runner`. Beside it: `tool_calls`. The provider makes the attempt; when there is another one, `steps` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from parley_dispatcher.deltas import Deltas
from parley_dispatcher.errors import ModelError
from parley_dispatcher.journal import Journal, without_nul
from parley_dispatcher.owner import Owner
from parley_dispatcher.prompt import build_request
from parley_dispatcher.providers import provider_of
from parley_dispatcher.providers.base import Kept, Provider, Said, Signed, Stopped, Used
from parley_dispatcher.state import Run, ThreadState
from parley_dispatcher.steps import CallModel, backoff_ms, stopped
from parley_events import facts as f
from parley_events.body import AgentSpec, Block, Json
from parley_events.clock import Clock
from parley_events.errors import RecordTooLarge
from parley_events.pieces import Piece
from parley_events.reads import DocumentView


@dataclass(slots=True)
class _Saying:
    """A block that is being said. `before`: the characters of the turn's blocks before it."""

    kind: Literal["text", "thought", "tool", "opaque"]
    before: int = 0
    parts: list[str] = field(default_factory=list)
    length: int = 0
    signature: str | None = None
    used: Used | None = None
    data: Json | None = None

    def block(self) -> Block:
        if self.used is not None:
            return Block(
                kind="tool",
                tool_call_id=self.used.tool_call_id,
                name=self.used.name,
                arguments=self.used.arguments,
                malformed=self.used.malformed,
            )
        return Block(kind=self.kind, text="".join(self.parts), signature=self.signature, data=self.data)


@dataclass(frozen=True, slots=True)
class Attempts:
    """How model calls are tried again. `crashes`: how often one may be broken off without a result of its own."""

    most: int
    backoff_ms: int
    crashes: int = 10


@dataclass(frozen=True, slots=True)
class Shown:
    """What a model is shown beside the thread: the workspace's context, the tools as the Messages API has them, and the
    documents that messages name, by their ids."""

    context: str | None
    tools: list[Json]
    documents: Mapping[str, DocumentView] = field(default_factory=dict)


class ModelTurns:
    """Makes attempts at model turns. `stopping` says whether this process leaves the partition to another."""

    def __init__(
        self,
        journal: Journal,
        deltas: Deltas,
        providers: Mapping[str, Provider],
        attempts: Attempts,
        stopping: Callable[[Owner], bool],
        clock: Clock,
    ) -> None:
        self._journal, self._deltas, self._attempts, self._stopping = journal, deltas, attempts, stopping
        self._clock = clock
        self._providers = dict(providers)

    async def call(
        self, owner: Owner, state: ThreadState, run: Run, step: CallModel, spec: AgentSpec, shown: Shown
    ) -> None:
        """Make the attempt that is due, and put on record what came of it."""
        request = build_request(state, run, spec, shown.context, shown.tools, step.attempt, shown.documents)
        called = self._journal.append(
            owner,
            state,
            run,
            f.ModelCalled(
                run_id=run.run_id,
                turn=step.turn,
                attempt=step.attempt,
                agent_id=run.agent_id,
                agent_version=run.agent_version,
                model=spec.model,
                shown=state.seq,
                due_at_ms=run.deadline_ms(spec.limits.seconds, self._clock()),
            ),
        )
        call = called.seq or 0
        blocks: list[_Saying] = []
        said_why: Stopped | None = None
        partition, epoch, thread_id = owner.partition, owner.epoch, state.stream
        try:
            async for event in provider_of(self._providers, spec.model).stream(request):
                match event:
                    case Said(index, kind, said):
                        text = without_nul(said)
                        if index == len(blocks):
                            blocks.append(_Saying(kind, sum(saying.length for saying in blocks)))
                        saying = blocks[index]
                        piece = Piece(thread_id, call, index, kind, saying.length, text, saying.before)
                        self._deltas.add(partition, epoch, piece)
                        saying.parts.append(text)
                        saying.length += len(text)
                    case Used():
                        blocks.append(_Saying("tool", used=event))
                    case Signed(index, signature):
                        if index == len(blocks):
                            blocks.append(_Saying("thought", sum(saying.length for saying in blocks)))
                        blocks[index].signature = signature
                    case Kept():
                        blocks.append(_Saying("opaque", data=event.data))
                    case Stopped():
                        said_why = event
            if said_why is None:
                raise ModelError("cut", "the stream ended without saying why", retry=True)
            self._deltas.finish(partition, epoch, thread_id, call)
            returned = f.ModelReturned(
                run_id=run.run_id,
                call=call,
                turn=step.turn,
                blocks=tuple(saying.block() for saying in blocks),
                stop_reason=said_why.stop_reason,
                usage=said_why.usage,
            )
            await owner.keep(state.workspace_id, returned)
        except ModelError as error:
            self._deltas.finish(partition, epoch, thread_id, call)
            self._failed(owner, state, run, step, call, error)
            return
        except asyncio.CancelledError:
            self._deltas.finish(partition, epoch, thread_id, call)
            if not self._stopping(owner) and run.status == "cancelling":
                await self._cancelled(owner, state, run, call, tuple(saying.block() for saying in blocks))
            raise
        self._journal.append(owner, state, run, returned, call=call)

    async def _cancelled(
        self, owner: Owner, state: ThreadState, run: Run, call: int, blocks: tuple[Block, ...]
    ) -> None:
        """The run was cancelled while the model spoke: keep what it said so far, each block at its number, since the
        pieces that clients have carry those."""
        end = stopped(run, call, blocks)
        try:
            self._journal.append(owner, state, run, end, call=call)
        except RecordTooLarge:
            await owner.keep(state.workspace_id, end)
            try:
                self._journal.append(owner, state, run, end, call=call)
            except RecordTooLarge:
                # Rather cancelled without a word than not cancelled.
                self._journal.append(owner, state, run, stopped(run, call), call=call)

    def _failed(
        self, owner: Owner, state: ThreadState, run: Run, step: CallModel, call: int, error: ModelError
    ) -> None:
        retry = error.retry and run.failures + 1 < self._attempts.most
        wait = error.retry_after_ms or backoff_ms(self._attempts.backoff_ms, run.failures + 1)
        self._journal.append(
            owner,
            state,
            run,
            f.ModelFailed(
                run_id=run.run_id,
                call=call,
                turn=step.turn,
                attempt=step.attempt,
                kind=error.kind,
                message=without_nul(error.message),
                usage=error.usage,
                retry=retry,
                retry_after_ms=wait if retry else 0,
            ),
            call=call,
        )
