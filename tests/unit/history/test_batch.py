"""From records to facts: the epoch rule, offsets without gaps, streams without holes, and where reading stops."""

from __future__ import annotations

from dataclasses import replace

import pytest

from parley_events import facts as f
from parley_events.log.port import Incoming
from parley_history.batch import Batch, OffsetGap, Position, chunks, new_facts, read
from parley_history.errors import Poison
from tests.contract.history.listlog import ListLog
from tests.contract.history.story import Writer, thread, workspace

T1, WS = thread(1), workspace(1)


@pytest.fixture
def writer() -> Writer:
    return Writer(ListLog(1))


def _records(writer: Writer) -> list[Incoming]:
    return writer.log.records[0]


def test_the_position_follows_offset_epoch_and_number(writer: Writer) -> None:
    writer.post(T1, WS)
    writer.claim(0)
    writer.post(T1, WS, command="c2")
    batch = read(Position(), 0, _records(writer))
    assert batch.end == Position(4, epoch=2, last_number=6 * 256)
    assert [row.seq for _, row in batch.facts] == [1, 2]
    assert batch.fenced == 0 and batch.poison is None


def test_facts_of_another_epoch_are_dropped_and_counted(writer: Writer) -> None:
    writer.post(T1, WS)
    writer.claim(0)
    writer.epochs[0] = 0
    writer.post(T1, WS, command="late")
    batch = read(Position(), 0, _records(writer))
    assert [row.seq for _, row in batch.facts] == [1]
    assert (batch.fenced, batch.end.next_offset, batch.end.last_number) == (1, 4, 3 * 256)


def test_records_that_were_folded_are_passed_over(writer: Writer) -> None:
    writer.post(T1, WS)
    batch = read(Position(1, 0, 0), 0, _records(writer))
    assert (batch.start.next_offset, batch.end.next_offset, len(batch.facts)) == (1, 2, 1)


def test_a_gap_in_the_offsets_is_not_passed_over(writer: Writer) -> None:
    writer.post(T1, WS)
    with pytest.raises(OffsetGap, match="expected offset 0, got 1"):
        read(Position(), 0, _records(writer)[1:])


def test_outcomes_without_a_seq_move_the_position_alone(writer: Writer) -> None:
    writer.claim(0)
    body = f.CommandRejected(command_type="message.post", code="invalid", message="no")
    writer.write(T1, WS, body, causation_id="c")
    batch = read(Position(), 0, _records(writer))
    assert (batch.facts, batch.end) == ([], Position(2, 0, 0))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: replace(record, value=b"{"),
        lambda record: replace(record, value=None),
        lambda record: replace(record, headers=()),
        lambda record: replace(record, headers=tuple(h for h in record.headers if h[0] != "ce_seq")),
        lambda record: replace(
            record, headers=tuple((n, b"x" if n == "ce_workspaceid" else v) for n, v in record.headers)
        ),
        lambda record: replace(
            record, value=b"\xff", headers=tuple((n, b"new.type" if n == "ce_type" else v) for n, v in record.headers)
        ),
    ],
)
def test_reading_stops_before_what_cannot_be_read(writer: Writer, spoil: object) -> None:
    writer.post(T1, WS)
    writer.post(T1, WS, command="c2")
    writer.post(T1, WS, command="c3")
    _records(writer)[2] = spoil(_records(writer)[2])  # type: ignore[operator]
    batch = read(Position(), 0, _records(writer))
    assert batch.poison is not None and batch.poison.offset == 2
    assert (batch.end.next_offset, len(batch.facts)) == (2, 1)


def test_a_zombies_garbage_stops_nothing(writer: Writer) -> None:
    writer.post(T1, WS)
    writer.claim(0)
    _records(writer).append(replace(_records(writer)[1], offset=3, value=b"garbage"))
    batch = read(Position(), 0, _records(writer))
    assert (batch.poison, batch.fenced, batch.end.next_offset) == (None, 1, 4)


def test_what_the_view_has_is_left_out(writer: Writer) -> None:
    for number in range(3):
        writer.post(T1, WS, command=f"c{number}")
    writer.resend(writer.written[2])
    batch = read(Position(), 0, _records(writer))
    fresh, heads = new_facts(batch, {T1: 1})
    assert [row.seq for _, row in fresh] == [2, 3]
    assert heads == {T1: (WS, 3)}


def test_a_hole_in_a_stream_is_poison(writer: Writer) -> None:
    writer.post(T1, WS)
    batch = read(Position(), 0, _records(writer))
    late = Batch(batch.start, batch.end, [(batch.facts[0][0], batch.facts[0][1]._replace(seq=3))])
    with pytest.raises(Poison, match="seq 3 follows 1"):
        new_facts(late, {T1: 1})


def test_chunks_are_bounded_by_count_and_by_size(writer: Writer) -> None:
    for number in range(5):
        writer.post(T1, WS, "x" * 1000, command=f"c{number}")
    records = _records(writer)
    assert [len(chunk) for chunk in chunks(records, 2, 10**9)] == [2, 2, 2]
    assert [len(chunk) for chunk in chunks(records, 100, 2000)] == [3, 2, 1]
    assert [record for chunk in chunks(records, 4, 3000) for record in chunk] == records
