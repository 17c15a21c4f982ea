"""Evidence made by hand: a log of commands and facts, with a takeover in the middle, and what everybody saw of it.

The records are written here; what followers see of them is made by the gateway's own feed, and the rows by the
history's own projections: so the checker is held against the real contract, and not against another reading of it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from parley_events import commands as c
from parley_events import facts as f
from parley_events import ids
from parley_events.body import Author, Block, Principal, ThreadSeed, Usage
from parley_events.codec import Command, Fact, decode_fact, encode_command, encode_fact, rejected_record
from parley_events.log.port import Incoming, Outgoing
from parley_events.partition import partition_of
from parley_events.pieces import Kind, Piece
from parley_gateway.dialects.org_chat.outbound import Events
from parley_gateway.dialects.threads.outbound import Frames
from parley_gateway.feed.cursor import START, parse_cursor
from parley_gateway.feed.follow import Follow, Shown
from parley_gateway.feed.frames import encode
from parley_history.projections import fold
from parley_history.projections.rows import View
from tests.faults.evidence import Contract, Evidence, Follower, Frame, Leg, Memory, Row
from tests.support.sse import frame_of

PARTITIONS = 2
T0 = 1_760_000_000_000
WORKSPACE = "00000000-0000-4000-8000-000000000000"
ANN = Principal(user_id="ann", name="Ann")


def thread(number: int) -> str:
    """The id of a thread."""
    return f"10000000-0000-4000-8000-{number:012d}"


def partition(stream: str) -> int:
    return partition_of(stream.encode(), PARTITIONS)


@dataclass
class Made:
    """Writes the topics. `told`: facts that count and pieces, in order, as a gateway gets them."""

    now_ms: int = T0
    commands: list[Incoming] = field(default_factory=list)
    events: list[Incoming] = field(default_factory=list)
    rejected: list[Incoming] = field(default_factory=list)
    epochs: dict[int, int] = field(default_factory=dict)
    seqs: dict[str, int] = field(default_factory=dict)
    ticks: dict[int, int] = field(default_factory=dict)
    told: list[Fact | Piece] = field(default_factory=list)

    def _land(self, topic: list[Incoming], record: Outgoing) -> Incoming:
        self.now_ms += 7
        offset = sum(one.partition == record.partition for one in topic)
        landed = Incoming(record.topic, record.partition, offset, self.now_ms, record.key, record.value, record.headers)
        topic.append(landed)
        return landed

    # ---- commands

    def ask(self, stream: str, body: c.CommandBody, command_id: str) -> Incoming:
        command = Command(command_id, stream, WORKSPACE, self.now_ms, body, body_hash=f"hash of {body!r}"[:60])
        return self._land(self.commands, encode_command(command, PARTITIONS))

    def garbage(self, number: int, value: bytes = b"{") -> Incoming:
        """A record that nobody can read, and its place in parley.rejected."""
        bad = self._land(self.commands, Outgoing("parley.commands", number, b"?", value))
        self._land(self.rejected, rejected_record(bad, "parley.rejected", "undecodable", "no ce_type header"))
        return bad

    # ---- facts

    def claim(self, number: int, owner: str = "one") -> int:
        body = f.PartitionClaimed(owner=owner)
        fact = Fact(type=body.type, stream="", seq=None, epoch=-1, workspace_id="", time_ms=self.now_ms, body=body)
        self.epochs[number] = self._land(self.events, encode_fact(fact, number)).offset
        return self.epochs[number]

    def write(self, stream: str, body: f.FactBody, *, epoch: int | None = None, **envelope: Any) -> int:
        """Append a fact; its seq. `epoch`: another's than the one in force, so that it does not count."""
        number = partition(stream)
        numbered = body.type not in f.UNNUMBERED
        seq = self.seqs.get(stream, 0) + 1 if numbered else None
        if isinstance(body, f.Numbered):
            first = self.ticks.get(number, 0) + 1
            ticks = range(first, first + body.wanted)
            body = body.model_copy(update={"numbers": tuple(tick * 256 + number for tick in ticks)})
            if epoch is None:
                self.ticks[number] = ticks[-1]
        if isinstance(body, f.ToolCalled | f.ToolReturned | f.ToolAnswered):
            body = body.model_copy(update={"message_id": ids.fact_message_id(stream, seq or 0)})
        elif isinstance(body, f.ApprovalRequested):
            body = body.model_copy(update={"approval_id": ids.approval_id(stream, seq or 0)})
        fact = Fact(
            type=body.type,
            stream=stream,
            seq=seq,
            epoch=self.epochs[number] if epoch is None else epoch,
            workspace_id=WORKSPACE,
            time_ms=self.now_ms,
            body=body,
            run_id=getattr(body, "run_id", None),
            **envelope,
        )
        landed = self._land(self.events, encode_fact(fact, number))
        if epoch is None:
            self.told.append(decode_fact(landed))
            if seq is not None:
                self.seqs[stream] = seq
        return seq or 0

    def piece(
        self, stream: str, call: int, text: str, at: int = 0, block: int = 0, kind: Kind = "text", before: int = 0
    ) -> None:
        self.told.append(Piece(stream, call, block, kind, at, text, before))

    # ---- short forms

    def post(self, stream: str, command_id: str, text: str = "hello") -> str:
        """A message and its outcome; the run's id."""
        first = stream not in self.seqs
        seed = ThreadSeed(user_id="ann", agent_id="scripted") if first else None
        self.ask(stream, c.PostMessage(principal=ANN, text=text, open=seed), command_id)
        run = ids.run_id(stream, command_id)
        open_run = any(
            isinstance(fact, Fact) and fact.stream == stream and fact.type == "message.posted" for fact in self.told
        ) and not self._quiet(stream)
        body = f.MessagePosted(
            message_id=ids.question_id(stream, command_id),
            run_id=run,
            answer_id=ids.answer_id(run),
            disposition="queued" if open_run else "started",
            author=Author(id="ann", name="Ann"),
            agent_id="scripted",
            agent_version=1,
            text=text,
            opened=seed,
        )
        self.write(stream, body, causation_id=command_id, body_hash="h")
        return run

    def _quiet(self, stream: str) -> bool:
        facts = [item for item in self.told if isinstance(item, Fact) and item.stream == stream]
        return facts[-1].type in f.RUN_ENDS

    def call(self, run: str, turn: int = 0, attempt: int = 1, **more: Any) -> int:
        stream = run[:36]
        body = f.ModelCalled(
            run_id=run,
            turn=turn,
            attempt=attempt,
            agent_id="scripted",
            agent_version=1,
            model="scripted",
            shown=self.seqs[stream],
        )
        return self.write(stream, body, **more)

    def returns(self, run: str, call: int, turn: int, *blocks: Block) -> int:
        body = f.ModelReturned(
            run_id=run, call=call, turn=turn, blocks=blocks, stop_reason="end_turn", usage=Usage(output_tokens=3)
        )
        return self.write(run[:36], body, call=call)

    def tool(self, run: str, call: int, index: int, name: str, effect: str, **more: Any) -> str:
        """The intent; its effect key."""
        key = ids.derived_uuid("effect", run, str(call), str(index))
        body = f.ToolCalled.model_validate(
            {
                "run_id": run,
                "call": call,
                "index": index,
                "tool_call_id": f"t{call}.{index}",
                "name": name,
                "arguments": {"n": index},
                "effect": effect,
                "effect_key": key,
                **more,
            }
        )
        self.write(run[:36], body)
        return key

    def result(self, run: str, call: int, index: int, name: str, status: str = "ok", **envelope: Any) -> None:
        body = f.ToolReturned.model_validate(
            {
                "run_id": run,
                "call": call,
                "index": index,
                "tool_call_id": f"t{call}.{index}",
                "name": name,
                "status": status,
                "result": f"{name}: {status}",
            }
        )
        self.write(run[:36], body, **envelope)

    def complete(self, run: str, **envelope: Any) -> None:
        body = f.RunCompleted(
            run_id=run, message_id=ids.answer_id(run), stop_reason="end_turn", usage=Usage(output_tokens=3)
        )
        self.write(run[:36], body, **envelope)

    # ---- what everybody saw

    def follow(
        self, name: str, contract: Contract, run_id: str | None, stream: str, cuts: tuple[int, ...] = ()
    ) -> Follower:
        """Somebody who watched, and left and came back after so many frames (`cuts`)."""
        legs: list[Leg] = []
        cursor: str | None = None
        items = [item for item in self.told if _stream_of(item) == stream]
        for most in (*cuts, 10_000):
            frames = _frames(contract, run_id, stream, cursor, items)[:most]
            over = "end" if most == 10_000 and run_id else "left"
            legs.append(Leg(len(legs) % 2, cursor, 200, frames, over, 0, 0))  # type: ignore[arg-type]
            cursor = next((frame.id for frame in reversed(frames) if frame.id), cursor)
        return Follower(name, contract, stream, run_id, tuple(legs))

    def rows(self) -> dict[str, tuple[Row, ...]]:
        """The tables of the history, by its own projections."""
        view = View()
        facts = [item for item in self.told if isinstance(item, Fact) and item.seq is not None]
        for number in range(PARTITIONS):
            fold(view, number, [fact for fact in facts if partition(fact.stream) == number])
        ends = _ends(self.events)
        return {
            "facts": tuple(
                {
                    "stream": fact.stream,
                    "seq": fact.seq,
                    "type": fact.type,
                    "offset": fact.offset,
                    "partition": partition(fact.stream),
                }
                for fact in facts
            ),
            "streams": tuple({"key": stream, "seq": seq} for stream, seq in self.seqs.items()),
            "threads": tuple(asdict(row) for row in view.threads.changed.values()),
            "messages": tuple(asdict(row) for row in view.messages.values()),
            "runs": tuple(_run_row(asdict(row)) for row in view.runs.changed.values()),
            "notes": tuple(asdict(row) for row in view.notes.values()),
            "dues": (),
            "positions": tuple(
                {
                    "projection": "history",
                    "partition": number,
                    "next_offset": ends[number],
                    "epoch": self.epochs.get(number, -1),
                    "last_number": self.ticks.get(number, 0) * 256 + (number if number in self.ticks else 0),
                }
                for number in range(PARTITIONS)
            ),
        }

    def evidence(self, **more: Any) -> Evidence:
        """What was gathered in the end."""
        fields: dict[str, Any] = {
            "scenario": "made",
            "seed": 1,
            "partitions": PARTITIONS,
            "commands": tuple(self.commands),
            "events": tuple(self.events),
            "rejected": tuple(self.rejected),
            "views": self.rows(),
            "ends": {"parley.commands": _ends(self.commands), "parley.events": _ends(self.events)},
            "committed": _ends(self.commands),
            "memory": (Memory("gateway", 1, 0, 50 * 2**20), Memory("dispatcher", 2, 0, 60 * 2**20)),
            **more,
        }
        return Evidence(**fields)


def _run_row(row: Row) -> Row:
    usage = row.pop("usage")
    return row | (usage if isinstance(usage, dict) else usage.model_dump())


def _ends(records: list[Incoming]) -> dict[int, int]:
    return {number: sum(record.partition == number for record in records) for number in range(PARTITIONS)}


def _stream_of(item: Fact | Piece) -> str:
    return item.stream if isinstance(item, Fact) else item.thread_id


def _frames(
    contract: Contract, run_id: str | None, stream: str, cursor: str | None, items: list[Fact | Piece]
) -> tuple[Frame, ...]:
    """What the gateway sends from the cursor on: facts before it are recalled, and pieces are kept for two minutes."""
    start = parse_cursor(cursor) if cursor else START
    follow = Follow(run_id, start, restarts=contract == "threads")
    show: Any = Frames(stream) if contract == "threads" else Events(lambda: T0)
    shown: list[Shown] = []
    for item in items:
        if isinstance(item, Fact) and item.seq is not None and item.seq <= start.done:
            follow.recall(item)
    for item in items:
        if follow.ended:
            break
        shown += list(follow.fact(item) if isinstance(item, Fact) else follow.piece(item))
    sent = [part for item in shown for part in encode(item, show(item))]
    frames = [frame_of(part) for part in sent]
    return tuple(Frame(frame.id, frame.data, 0) for frame in frames)
