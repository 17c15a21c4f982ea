"""A batch of records made into facts to fold: the epoch rule, the order of offsets, the order of each stream. Pure.

A record that an administrator had the view skip leaves a fact of the type `SKIPPED` in its place of its stream: it does
nothing, and who counts the stream's seqs misses none.

Between the log and `projections`; `projector` moves the results into PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import orjson

from parley_events.codec import Fact, FactHead, UnknownBody, decode_fact, head_of
from parley_events.errors import Undecodable
from parley_events.facts import FACTS, Numbered, PartitionClaimed
from parley_events.fence import FactFence
from parley_events.ids import is_uuid
from parley_events.large import OBJECTS_HEADER, references_of
from parley_events.log.port import Incoming
from parley_history.errors import Poison
from parley_history.projections.rows import FactRow
from parley_history.projections.text import as_text, clean

_is_uuid = lru_cache(maxsize=4096)(is_uuid)

SKIPPED = "record.skipped"
"""The type of what stands in a stream for a record that was skipped."""
_OF_THE_BODY = {"ce_dataschema", "ce_call", OBJECTS_HEADER}
"""Headers that say something of a body that is not kept."""
_CLAIMED = PartitionClaimed.type
_NUMBERED = frozenset(body for body in FACTS.values() if issubclass(body, Numbered))
"""Classes, since `isinstance` of a pydantic class is no quick question."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where the view of a partition stands."""

    next_offset: int = 0
    epoch: int = -1
    last_number: int = 0


@dataclass(slots=True)
class Batch:
    """What consecutive records come to. `claims`: the offsets of the claims among them. `poison`: the record after them
    cannot be folded; `lacking`: its contents have to be fetched first."""

    start: Position
    end: Position
    facts: list[tuple[Fact, FactRow]] = field(default_factory=list)
    claims: list[int] = field(default_factory=list)
    fenced: int = 0
    poison: Poison | None = None
    lacking: bool = False


class OffsetGap(Exception):
    """The next record is not the one expected."""


def read(
    start: Position, partition: int, records: Iterable[Incoming], skips: Container[int] = (), fetched: bool = False
) -> Batch:
    """The facts with a seq in the records, up to the first that cannot be read, or whose contents lie elsewhere
    (`fetched`: what was to be had of them is here). Records below the start are dropped; those at the offsets in
    `skips` are passed over.

    Raises OffsetGap.
    """
    fence = FactFence(start.epoch)
    batch = Batch(start, start)
    facts, claims = batch.facts, batch.claims
    offset, number = start.next_offset, start.last_number
    epoch = start.epoch
    for record in records:
        at = record.offset
        if at < offset:
            continue
        if at > offset:
            raise OffsetGap(f"expected offset {offset}, got {at}")
        skipped = at in skips
        if skipped:
            record = _emptied(record)
        try:
            head = head_of(record)
            accepted = fence.accepts(at, head.type, head.epoch)
            if head.type == _CLAIMED:
                claims.append(at)
            if not accepted:
                batch.fenced += 1
            elif head.seq is not None:
                if head.objects and not fetched:
                    batch.lacking = True
                    break
                fact = decode_fact(record, head)
                facts.append((fact, _row(fact, head, record, partition)))
                if fact.body.__class__ in _NUMBERED and (numbers := fact.body.numbers):
                    number = max(number, *numbers)
        except Undecodable as error:
            if not skipped:
                batch.poison = Poison(at, str(error))
                break
            # Nobody can say which stream it was of: it leaves nothing.
        offset, epoch = at + 1, fence.epoch
    batch.end = Position(offset, epoch, number)
    return batch


def new_facts(batch: Batch, seqs: Mapping[str, int]) -> tuple[list[tuple[Fact, FactRow]], dict[str, tuple[str, int]]]:
    """The facts that the view does not have yet, and what each stream's (workspace, newest seq) is with them.

    `seqs` has each stream's newest seq in the view. A seq that is there already is the same bytes sent again. A hole
    is Poison, unless what comes after it was skipped for just that.
    """
    heads: dict[str, tuple[str, int]] = {}
    fresh = []
    for fact, row in batch.facts:
        have = heads[fact.stream][1] if fact.stream in heads else seqs.get(fact.stream, 0)
        seq = row.seq
        if seq <= have:
            continue
        if seq > have + 1 and fact.type != SKIPPED:
            raise Poison(row.offset, f"a hole in stream {fact.stream}: seq {seq} follows {have}")
        heads[fact.stream] = (fact.workspace_id, seq)
        fresh.append((fact, row))
    return fresh, heads


def body_size(record: Incoming) -> int:
    """How large the record's body is, as it came."""
    return len(record.value or b"")


def whole_size(record: Incoming) -> int:
    """How large the record's body is with its contents."""
    try:
        return body_size(record) + sum(reference.size for reference in references_of(record))
    except Undecodable:
        return body_size(record)


def chunks(
    records: Sequence[Incoming], count: int, size: int, weigh: Callable[[Incoming], int] = body_size
) -> Iterable[list[Incoming]]:
    """The records in runs of at most `count`, each ending after the record with which it passes `size` bytes."""
    chunk: list[Incoming] = []
    weight = 0
    for record in records:
        chunk.append(record)
        weight += weigh(record)
        if len(chunk) >= count or weight >= size:
            yield chunk
            chunk, weight = [], 0
    if chunk:
        yield chunk


def _emptied(record: Incoming) -> Incoming:
    """What is left of a record that was skipped: its place in its stream."""
    heads = [(name, value) for name, value in record.headers if name not in _OF_THE_BODY and name != "ce_type"]
    kind = record.header("ce_type")
    if kind != PartitionClaimed.type.encode():  # whose the partition is holds all the same
        kind = SKIPPED.encode()
    return replace(record, value=b"{}", headers=(*heads, ("ce_type", kind)))


def _row(fact: Fact, head: FactHead, record: Incoming, partition: int) -> FactRow:
    if not _is_uuid(fact.workspace_id):
        raise Undecodable("ce_workspaceid is not a UUID")
    value = record.value or b"{}"
    if fact.body.__class__ is UnknownBody:
        # A page of facts holds bodies as they are: what is no JSON would break the page.
        try:
            orjson.loads(value)
        except ValueError:
            raise Undecodable(f"{fact.type[:100]}: the body is not JSON") from None
    return FactRow._make(
        (
            clean(fact.stream),
            fact.seq or 0,
            partition,
            record.offset,
            clean(fact.type),
            clean(fact.run_id),
            fact.workspace_id,
            record.time_ms,
            as_text(head.headers),
            value,
        )
    )
