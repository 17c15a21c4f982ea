"""The one place where facts of a partition are numbered (DESIGN §2). In one step, without an `await`, it checks that
the writer may still write, gives the stream's next seq, mints integer ids, folds the fact into the state, and hands it
to the `Sender`. Large contents that are known to be stored leave the record; nothing is waited for.
"""

from __future__ import annotations

from typing import Any

from parley_dispatcher.errors import NotOwner
from parley_dispatcher.sender import Sender
from parley_dispatcher.state import State, ThreadState, evolve
from parley_events import facts as f
from parley_events.clock import Clock
from parley_events.codec import Fact, encode_fact
from parley_events.errors import RecordTooLarge
from parley_events.ids import approval_id, fact_message_id
from parley_events.large import Stored, nothing_stored
from parley_events.log import Outgoing
from parley_events.topics import MAX_RECORD_BYTES

NUMBER_EPOCH_MS = 1_704_067_200_000
"""2024-01-01T00:00:00Z: integer ids count from here."""


class Appender:
    """Numbers and appends the facts of one partition under one claim."""

    def __init__(
        self,
        partition: int,
        epoch: int,
        last_number: int,
        sender: Sender,
        clock: Clock,
        stored: Stored = nothing_stored,
    ) -> None:
        self.partition, self.epoch = partition, epoch
        self._tick = last_number // 256
        self._sender, self._clock, self._stored = sender, clock, stored
        self._closed = False

    def close(self) -> None:
        """Append nothing more: the claim is another's, or this process stops."""
        self._closed = True

    def append(
        self,
        state: State,
        body: f.FactBody,
        *,
        workspace_id: str | None = None,
        run_id: str | None = None,
        call: int | None = None,
        causation_id: str | None = None,
        command_offset: int | None = None,
        body_hash: str | None = None,
        correlation_id: str | None = None,
        traceparent: str | None = None,
    ) -> Fact:
        """The fact, numbered, folded and on its way. NotOwner, or RecordTooLarge, is raised before it is numbered."""
        if self._closed:
            raise NotOwner(f"partition {self.partition} is not ours any more")
        if isinstance(body, f.ToolCalled | f.ApprovalRequested) and isinstance(state, ThreadState):
            run = state.runs[body.run_id]
            if run.stopped:
                raise NotOwner(f"{run.run_id} is being cancelled: no effect starts any more")
        numbered = body.type not in f.UNNUMBERED
        seq = state.seq + 1 if numbered else None
        tick = self._tick
        if seq is not None:
            body, tick = self._complete(state.stream, body, seq)
        fact = Fact(
            type=body.type,
            stream=state.stream,
            seq=seq,
            epoch=self.epoch,
            workspace_id=workspace_id or state.workspace_id,
            time_ms=self._clock(),
            body=body,
            run_id=run_id,
            call=call,
            causation_id=causation_id,
            command_offset=command_offset,
            body_hash=body_hash,
            correlation_id=correlation_id,
            traceparent=traceparent,
            version=body.version,
        )
        record = encode_fact(fact, self.partition, self._stored)
        _check_size(record)
        self._tick = tick
        evolve(state, fact)
        self._sender.send(record)
        return fact

    def _complete(self, stream: str, body: f.FactBody, seq: int) -> tuple[f.FactBody, int]:
        """The body with the ids that only its place in the log can give."""
        update: dict[str, Any] = {}
        tick = self._tick
        if isinstance(body, f.Numbered):
            numbers = []
            for _ in range(body.wanted):
                tick = max(tick + 1, 16 * (self._clock() - NUMBER_EPOCH_MS))
                numbers.append(tick * 256 + self.partition)
            update["numbers"] = tuple(numbers)
        if isinstance(body, f.ToolCalled | f.ToolReturned | f.ToolAnswered):
            update["message_id"] = fact_message_id(stream, seq)
        elif isinstance(body, f.ApprovalRequested):
            update["approval_id"] = approval_id(stream, seq)
        return (body.model_copy(update=update) if update else body), tick


def _check_size(record: Outgoing) -> None:
    """A record that a log refuses later would leave a hole: what it says would be in the state, and nowhere else."""
    size = len(record.value or b"") + len(record.key or b"") + sum(len(k) + len(v) for k, v in record.headers)
    if size > MAX_RECORD_BYTES:
        raise RecordTooLarge(f"a record of {size} bytes; {MAX_RECORD_BYTES} fit")
