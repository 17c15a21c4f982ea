"""A batch of records made into facts to fold: the epoch rule, the order of offsets, the order of each stream. Pure.

Between the log and `projections`; `projector` moves the results into PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import orjson

from parley_events.codec import Fact, UnknownBody, decode_fact, head_of
from parley_events.errors import Undecodable
from parley_events.facts import Numbered, PartitionClaimed
from parley_events.fence import FactFence
from parley_events.ids import is_uuid
from parley_events.large import references_of
from parley_events.log.port import Incoming
from parley_history.errors import Poison
from parley_history.projections.rows import FactRow

_is_uuid = lru_cache(maxsize=4096)(is_uuid)


@dataclass(frozen=True, slots=True)
class Position:
    """Where the view of a partition stands."""

    next_offset: int = 0
    epoch: int = -1
    last_number: int = 0


@dataclass(slots=True)
class Batch:
    """What consecutive records come to. `claims`: the offsets of the claims among them. `poison`: the record after them
    cannot be folded."""

    start: Position
    end: Position
    facts: list[tuple[Fact, FactRow]] = field(default_factory=list)
    claims: list[int] = field(default_factory=list)
    fenced: int = 0
    poison: Poison | None = None


class OffsetGap(Exception):
    """The next record is not the one expected."""


def read(start: Position, partition: int, records: Iterable[Incoming]) -> Batch:
    """The facts with a seq in the records, up to the first that cannot be read. Records below the start are dropped.

    Raises OffsetGap.
    """
    fence = FactFence(start.epoch)
    batch = Batch(start, start)
    offset, number = start.next_offset, start.last_number
    epoch = start.epoch
    for record in records:
        if record.offset < offset:
            continue
        if record.offset > offset:
            raise OffsetGap(f"expected offset {offset}, got {record.offset}")
        try:
            head = head_of(record)
            accepted = fence.accepts(record.offset, head.type, head.epoch)
            if head.type == PartitionClaimed.type:
                batch.claims.append(record.offset)
            if not accepted:
                batch.fenced += 1
            elif head.seq is not None:
                fact = decode_fact(record, head)
                batch.facts.append((fact, _row(fact, record, partition)))
                if isinstance(fact.body, Numbered) and fact.body.numbers:
                    number = max(number, *fact.body.numbers)
        except Undecodable as error:
            batch.poison = Poison(record.offset, str(error))
            break
        offset, epoch = record.offset + 1, fence.epoch
    batch.end = Position(offset, epoch, number)
    return batch


def new_facts(batch: Batch, seqs: Mapping[str, int]) -> tuple[list[tuple[Fact, FactRow]], dict[str, tuple[str, int]]]:
    """The facts that the view does not have yet, and what each stream's (workspace, newest seq) is with them.

    `seqs` has each stream's newest seq in the view. A seq that is there already is the same bytes sent again. A hole
    is Poison.
    """
    heads: dict[str, tuple[str, int]] = {}
    fresh = []
    for fact, row in batch.facts:
        have = heads[fact.stream][1] if fact.stream in heads else seqs.get(fact.stream, 0)
        seq = row.seq
        if seq <= have:
            continue
        if seq > have + 1:
            raise Poison(row.offset, f"a hole in stream {fact.stream}: seq {seq} follows {have}")
        heads[fact.stream] = (fact.workspace_id, seq)
        fresh.append((fact, row))
    return fresh, heads


def chunks(records: Sequence[Incoming], count: int, size: int) -> Iterable[list[Incoming]]:
    """The records in runs of at most `count`, each ending after the record with which it passes `size` bytes."""
    chunk: list[Incoming] = []
    weight = 0
    for record in records:
        chunk.append(record)
        weight += whole_size(record)
        if len(chunk) >= count or weight >= size:
            yield chunk
            chunk, weight = [], 0
    if chunk:
        yield chunk


def whole_size(record: Incoming) -> int:
    """How large the record's body is with its contents."""
    try:
        return len(record.value or b"") + sum(reference.size for reference in references_of(record))
    except Undecodable:
        return len(record.value or b"")


def _row(fact: Fact, record: Incoming, partition: int) -> FactRow:
    if not _is_uuid(fact.workspace_id):
        raise Undecodable("ce_workspaceid is not a UUID")
    value = record.value or b"{}"
    if isinstance(fact.body, UnknownBody):
        # A page of facts holds bodies as they are: what is no JSON would break the page.
        try:
            orjson.loads(value)
        except ValueError:
            raise Undecodable(f"{fact.type[:100]}: the body is not JSON") from None
    return FactRow(
        stream=fact.stream,
        seq=fact.seq or 0,
        partition=partition,
        offset=record.offset,
        type=fact.type,
        run_id=fact.run_id,
        workspace_id=fact.workspace_id,
        time_ms=record.time_ms,
        headers={name: value.decode("utf-8", "replace") for name, value in record.headers},
        body=value,
    )
