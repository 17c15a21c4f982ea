"""Ways to break sound evidence: each a function from it to evidence in which one thing is wrong, and the rest right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from parley_events import facts as f
from parley_events.codec import Fact, decode_fact, encode_fact
from parley_events.log.port import Incoming
from tests.faults.check.story import believed
from tests.faults.evidence import Evidence, Frame, Json, Leg, Request
from tests.unit.faults.made import PARTITIONS, T0
from tests.unit.faults.sound import ONE, Sound

Break = Callable[[Sound], Evidence]
Change = Callable[[Incoming, Fact], Sequence[Incoming]]
Seen = Callable[[tuple[Frame, ...]], tuple[Frame, ...]]


def events(change: Change) -> Break:
    """The facts, each as `change` has it (none, itself, others in its place); offsets, claims and ends stay right."""

    def broken(case: Sound) -> Evidence:
        changed: list[Incoming] = []
        epochs: dict[tuple[int, int], int] = {}
        counts = believed(case.evidence.events, {})
        for record in case.evidence.events:
            fact = decode_fact(record)
            for one in change(record, fact) if record in counts else (record,):
                offset = sum(other.partition == one.partition for other in changed)
                if fact.type == f.PartitionClaimed.type:
                    epochs[one.partition, record.offset] = offset
                epoch = b"%d" % epochs.get((one.partition, decode_fact(one).epoch), -1)
                headers = tuple((k, epoch if k == "ce_epoch" else v) for k, v in one.headers)
                changed.append(replace(one, offset=offset, headers=headers))
        ends = {number: sum(one.partition == number for one in changed) for number in range(PARTITIONS)}
        views = without_offsets(case.evidence, ends, changed)
        return replace(
            case.evidence,
            events=tuple(changed),
            ends={**case.evidence.ends, "parley.events": ends},
            views=views,
        )

    return broken


def without_offsets(evidence: Evidence, ends: dict[int, int], changed: list[Incoming]) -> dict[str, tuple[Json, ...]]:
    """The views, with positions as the changed log has them: what a mutation is about shall be found by itself."""
    claims = {one.partition: one.offset for one in changed if decode_fact(one).type == f.PartitionClaimed.type}
    positions = tuple(
        {**row, "next_offset": ends[row["partition"]], "epoch": claims.get(row["partition"], -1)}
        for row in evidence.views["positions"]
    )
    return {**evidence.views, "positions": positions}


def remake(record: Incoming, fact: Fact, **body: Any) -> Incoming:
    """The record with another body."""
    made = encode_fact(fact._replace(body=fact.body.model_copy(update=body)), record.partition)
    return replace(record, value=made.value, headers=made.headers)


def renumbered(record: Incoming, fact: Fact, seq: int) -> Incoming:
    made = encode_fact(fact._replace(seq=seq), record.partition)
    return replace(record, value=made.value, headers=made.headers)


def drop(kind: str, nth: int = 0) -> Break:
    """Take away the nth fact of a type; those after it move up, so that there is no hole."""

    def broken(case: Sound) -> Evidence:
        seen: list[str] = []
        after: list[str] = []

        def change(record: Incoming, fact: Fact) -> Sequence[Incoming]:
            if fact.type == kind:
                seen.append(kind)
                if len(seen) == nth + 1:
                    after.append(fact.stream)
                    return ()
            if fact.seq is not None and fact.stream in after:
                return (renumbered(record, fact, fact.seq - 1),)
            return (record,)

        return events(change)(case)

    return broken


def double(kind: str, nth: int = 0, **changes: Any) -> Break:
    """The nth fact of a type comes twice: the second with the next seq, and everything after it moves down."""

    def broken(case: Sound) -> Evidence:
        seen: list[str] = []
        after: list[str] = []

        def change(record: Incoming, fact: Fact) -> Sequence[Incoming]:
            shift = after.count(fact.stream)
            own = record if fact.seq is None or not shift else renumbered(record, fact, fact.seq + shift)
            if fact.type == kind:
                seen.append(kind)
                if len(seen) == nth + 1:
                    again = decode_fact(own)
                    if fact.seq is not None:
                        after.append(fact.stream)
                        again = again._replace(seq=(again.seq or 0) + 1)
                    return (own, remake(own, again, **changes))
            return (own,)

        return events(change)(case)

    return broken


def alter(kind: str, nth: int = 0, **changes: Any) -> Break:
    """The nth fact of a type says something else."""

    def broken(case: Sound) -> Evidence:
        seen: list[str] = []

        def change(record: Incoming, fact: Fact) -> Sequence[Incoming]:
            if fact.type == kind:
                seen.append(kind)
                if len(seen) == nth + 1:
                    return (remake(record, fact, **changes),)
            return (record,)

        return events(change)(case)

    return broken


def swap(kind: str, other: str, stream: str, nth: int = 0) -> Break:
    """The nth fact of one type, and the next one of another, change their places and seqs."""

    def broken(case: Sound) -> Evidence:
        facts = [(record, decode_fact(record)) for record in case.evidence.events]
        mine = [(record, fact) for record, fact in facts if fact.stream == stream and fact.seq is not None]
        one = [pair for pair in mine if pair[1].type == kind][nth]
        two = next(pair for pair in mine if pair[1].type == other and (pair[1].seq or 0) > (one[1].seq or 0))

        def change(record: Incoming, fact: Fact) -> Sequence[Incoming]:
            if record is one[0]:
                return (renumbered(two[0], two[1], one[1].seq or 0),)
            if record is two[0]:
                return (renumbered(one[0], one[1], two[1].seq or 0),)
            return (record,)

        return events(change)(case)

    return broken


def believe_the_zombie(case: Sound) -> Evidence:
    """As if there had been no second claim: what the first owner still wrote counts."""
    claim = [record for record in case.evidence.events if decode_fact(record).type == f.PartitionClaimed.type][-1]
    zombie = next(one for one in case.evidence.events if one.offset > claim.offset and one.partition == claim.partition)
    headers = tuple((k, b"%d" % claim.offset if k == "ce_epoch" else v) for k, v in zombie.headers)
    return replace(
        case.evidence,
        events=tuple(replace(one, headers=headers) if one is zombie else one for one in case.evidence.events),
    )


def frames(name: str, change: Seen, leg: int = -1) -> Break:
    """What one follower saw on one of its legs is changed."""

    def broken(case: Sound) -> Evidence:
        followers = []
        for follower in case.evidence.followers:
            legs = list(follower.legs)
            if follower.name == name:
                legs[leg] = replace(legs[leg], frames=change(legs[leg].frames))
            followers.append(replace(follower, legs=tuple(legs)))
        return replace(case.evidence, followers=tuple(followers))

    return broken


def legs(name: str, change: Callable[[tuple[Leg, ...]], tuple[Leg, ...]]) -> Break:
    def broken(case: Sound) -> Evidence:
        return replace(
            case.evidence,
            followers=tuple(
                replace(one, legs=change(one.legs)) if one.name == name else one for one in case.evidence.followers
            ),
        )

    return broken


def without(kind: str, nth: int = 0) -> Seen:
    """The frames without the nth of a type."""

    def change(seen: tuple[Frame, ...]) -> tuple[Frame, ...]:
        gone = [frame for frame in seen if isinstance(frame.data, dict) and frame.data["type"] == kind][nth]
        return tuple(frame for frame in seen if frame is not gone)

    return change


def said(kind: str, nth: int = 0, **changes: Any) -> Seen:
    """The frames, the nth of a type saying something else."""

    def change(seen: tuple[Frame, ...]) -> tuple[Frame, ...]:
        other = [frame for frame in seen if isinstance(frame.data, dict) and frame.data["type"] == kind][nth]
        assert isinstance(other.data, dict)
        return tuple(replace(one, data={**other.data, **changes}) if one is other else one for one in seen)

    return change


def rows(table: str, change: Callable[[tuple[Json, ...]], tuple[Json, ...]]) -> Break:
    return lambda case: replace(case.evidence, views={**case.evidence.views, table: change(case.evidence.views[table])})


def column(table: str, name: str, value: Any, nth: int = 0) -> Break:
    return rows(table, lambda found: tuple({**row, name: value} if i == nth else row for i, row in enumerate(found)))


def field(name: str, change: Callable[[Any, Sound], Any]) -> Break:
    """A part of the evidence is changed."""
    return lambda case: replace(case.evidence, **{name: change(getattr(case.evidence, name), case)})


def run_again(nth: int, **changes: Any) -> Break:
    """The tool server did something once more."""
    return field("ledger", lambda ledger, _: (*ledger, replace(ledger[nth], **changes)))


def swap_outcomes(case: Sound) -> Evidence:
    """Two commands that lie the other way round."""
    commands = list(case.evidence.commands)
    mine = [i for i, one in enumerate(commands) if one.key == ONE.encode()]
    a, b = mine[0], mine[1]
    first, second = commands[a], commands[b]
    commands[a] = replace(second, offset=first.offset)
    commands[b] = replace(first, offset=second.offset)
    return replace(case.evidence, commands=tuple(commands))


def ask_in_vain(case: Sound) -> Evidence:
    """One command more, which nobody answered."""
    asked = case.evidence.commands
    last = [one for one in asked if one.key == ONE.encode()][-1]
    headers = tuple((k, b"c99" if k == "ce_id" else v) for k, v in last.headers)
    more = replace(last, offset=last.offset + 1, headers=headers)
    ends = {**case.evidence.ends["parley.commands"], last.partition: last.offset + 2}
    return replace(
        case.evidence,
        commands=(*asked, more),
        ends={**case.evidence.ends, "parley.commands": ends},
        committed=ends,
    )


def twice(seen: tuple[Frame, ...]) -> tuple[Frame, ...]:
    return (*seen, seen[-1])


def orphan(case: Sound) -> Evidence:
    """A tool returned nothing, and the model is asked for the next turn all the same."""
    return drop("tool.returned", 1)(case)


def stand_still(case: Sound) -> Evidence:
    """A bystander whose run is open, and of which nothing is seen for a minute."""
    fault = replace(case.evidence.faults[0], healed_wall_ms=T0 + 60_000, struck_wall_ms=T0 + 150)
    return replace(drop("run.completed", 1)(case), faults=(fault,))


def not_parked(case: Sound) -> Evidence:
    """A run that is said to be parked, and only has no end."""
    return replace(drop("run.completed", 1)(case), left_open=(case.parked,))


def refused(cursor: str | None, status: int) -> Leg:
    """A connection that came to nothing."""
    return Leg(0, cursor, status, (), "refused", 0, 0)


def rejected_at(record: Incoming, offset: int) -> Incoming:
    headers = tuple((k, b"%d" % offset if k == "rejected_offset" else v) for k, v in record.headers)
    return replace(record, headers=headers)


def poison(rejected: tuple[Incoming, ...], times: int) -> tuple[Incoming, ...]:
    """A sound command that is in parley.rejected as poison."""
    record = rejected_at(rejected[0], 1)
    headers = tuple((k, b"poison" if k == "rejected_reason" else v) for k, v in record.headers)
    return (*rejected, *[replace(record, headers=headers)] * times)


def refusing(record: Incoming, fact: Fact, command_id: str) -> Sequence[Incoming]:
    if fact.type != "command.rejected":
        return (record,)
    headers = encode_fact(fact._replace(causation_id=command_id), record.partition).headers
    return (record, replace(record, headers=headers))


def telling(request: Request, **more: Json | str) -> Request:
    """The request with something else in its answer."""
    return replace(request, answer={**(request.answer or {}), **more})


def too_early(case: Sound) -> Evidence:
    """A timer that stops a run long before the deadline that its model call named."""
    late = replace(case, evidence=alter("model.called", 3, due_at_ms=T0 + 90_000)(case))
    return alter("run.cancelling", code="time_limit")(late)


def told(requests: tuple[Request, ...]) -> tuple[Request, ...]:
    return (*requests, replace(requests[0], answer={**(requests[0].answer or {}), "position": f"{ONE}@999"}))


def twins(record: Incoming, fact: Fact) -> Sequence[Incoming]:
    return (record, remake(record, fact, result="another")) if fact.type == "tool.returned" else (record,)


def waited(request: Request, run_id: str, status: str, text: str) -> Request:
    answer = {"run_id": run_id, "run": {"id": run_id, "status": status}, "message": {"content": text}}
    return replace(request, answer=answer, status=200)
