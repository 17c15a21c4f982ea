"""Where a process may be broken: named boundaries around what it journals, and faults that the harness places there.

    control      the harness's side: places faults, hears of hits
    boundaries   this: within a process that `process` has started; wraps methods, production code knows nothing of it

At a boundary the N-th passing that matches strikes: the process says so on its connection to the harness, and stops
itself: for good (`kill`), until it is continued (`stop`), or only this one task of it, until it is released (`hold`).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import wraps
from typing import Any, Literal

from parley_events.log import Outgoing

Action = Literal["kill", "stop", "hold"]

_HELD_S = 0.02
_SENDS = {"parley.events": "append", "parley.rejected": "reject", "parley.commands": "command"}
"""What a send to a topic is called here."""


@dataclass(slots=True)
class Placed:
    """A fault. `kind`: a pattern for what passes (a fact's type, a tool's name, a command's type); `stream`: only where
    it is about this thread; `text`: only where what passes holds this text; `passing`: at which matching passing it
    strikes (1: the first); `every`: it stays, and strikes again (in the process that comes after, too)."""

    id: str
    boundary: str
    action: Action
    kind: str = "*"
    stream: str | None = None
    text: str | None = None
    passing: int = 1
    every: bool = False


class Boundaries:
    """The faults that are placed in this process, and the line to the harness."""

    def __init__(self, path: str, name: str) -> None:
        self._placed: dict[str, Placed] = {}
        self._released: set[str] = set()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self.tell(hello=name, pid=os.getpid())
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def close(self) -> None:
        """Hang up."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._listening.join(5)
        self._socket.close()

    def tell(self, **said: Any) -> None:
        """Say something to the harness; what was said before the process dies still arrives."""
        self._socket.sendall(json.dumps(said).encode() + b"\n")

    def _listen(self) -> None:
        """What the harness says. Faults are swapped as a whole: the event loop's thread reads them without a lock."""
        with self._socket.makefile("rb") as lines:
            for line in lines:
                said = json.loads(line)
                if "place" in said:
                    fault = Placed(**said["place"])
                    self._placed = {**self._placed, fault.id: fault}
                    self.tell(placed=fault.id)
                elif "lift" in said:
                    self._placed = {name: fault for name, fault in self._placed.items() if name != said["lift"]}
                    self._released.add(said["lift"])
                    self.tell(lifted=said["lift"])

    def passing(self, boundary: str, kind: str, streams: Collection[str], text: str = "") -> Placed | None:
        """Something passes a boundary. Kills or stops this process when a fault strikes; one that holds is given."""
        if not self._placed:
            return None
        for fault in list(self._placed.values()):
            if fault.boundary != boundary or not fnmatchcase(kind, fault.kind):
                continue
            if (fault.stream is not None and fault.stream not in streams) or (fault.text or "") not in text:
                continue
            fault.passing -= 1
            if fault.passing > 0:
                continue
            if not fault.every:
                self._placed = {name: other for name, other in self._placed.items() if name != fault.id}
            self.tell(hit=fault.id, boundary=boundary, kind=kind, wall_ms=time.time_ns() // 1_000_000)
            if fault.action == "hold":
                return fault
            number = signal.SIGKILL if fault.action == "kill" else signal.SIGSTOP
            # To this very thread: it does not come one step further.
            signal.pthread_kill(threading.get_ident(), number)
        return None

    async def passing_async(self, boundary: str, kind: str, streams: Collection[str], text: str = "") -> None:
        """The same where one may wait: a fault that holds lets go once it is lifted."""
        fault = self.passing(boundary, kind, streams, text)
        while fault is not None and fault.id not in self._released:
            await asyncio.sleep(_HELD_S)


def as_json(fault: Placed) -> dict[str, Any]:
    """The fault as it is sent."""
    return asdict(fault)


def _around(place: Any, name: str, make: Callable[[Any], Any]) -> None:
    before = getattr(place, name)
    setattr(place, name, wraps(before)(make(before)))


def wrap_dispatcher(at: Boundaries) -> None:
    """Every boundary of a dispatcher: commands, claims, appends and their acknowledgements, the own tail, read-backs,
    models, tools, commits of offsets."""
    from parley_dispatcher.appender import Appender
    from parley_dispatcher.owner import Owner
    from parley_dispatcher.sender import Sender
    from parley_dispatcher.tool_calls import ToolCalls
    from parley_events.log.kafka_group import KafkaGroup

    def append(inner: Any) -> Any:
        def wrapped(self: Any, state: Any, body: Any, **envelope: Any) -> Any:
            at.passing("append.before", body.type, {state.stream}, getattr(body, "name", ""))
            fact = inner(self, state, body, **envelope)
            at.passing("append.after", body.type, {state.stream}, getattr(body, "name", ""))
            return fact

        return wrapped

    def send(inner: Any) -> Any:
        def wrapped(self: Any, record: Outgoing, acknowledged: Any = None) -> None:
            kind, stream = _head(record)
            name = _SENDS[record.topic]

            def done(offset: int) -> None:
                at.passing(f"{name}.acknowledged", kind, {stream}, _text(record))
                if acknowledged is not None:
                    acknowledged(offset)

            at.passing(f"{name}.sending", kind, {stream}, _text(record))
            inner(self, record, done)

        return wrapped

    def see(inner: Any) -> Any:
        def wrapped(self: Any, record: Any) -> None:
            kind, stream = _head(record)
            at.passing("see.before", kind, {stream})
            inner(self, record)
            at.passing("see.after", kind, {stream})

        return wrapped

    def read_back(inner: Any) -> Any:
        async def wrapped(self: Any, fact: Any) -> None:
            at.passing("read_back.before", fact.type, {fact.stream}, getattr(fact.body, "name", ""))
            await inner(self, fact)
            at.passing("read_back.after", fact.type, {fact.stream}, getattr(fact.body, "name", ""))

        return wrapped

    def outcome(inner: Any) -> Any:
        async def wrapped(self: Any, owner: Any, state: Any, run: Any, use: Any, *more: Any, **others: Any) -> Any:
            at.passing("tool.before", use.name, {state.stream})
            came = await inner(self, owner, state, run, use, *more, **others)
            at.passing("tool.after", use.name, {state.stream})
            return came

        return wrapped

    def decide(inner: Any) -> Any:
        def wrapped(self: Any, offset: int, state: Any, command: Any, *more: Any, **others: Any) -> Any:
            at.passing("decide.before", command.type, {state.stream}, str(getattr(command.body, "text", "")))
            return inner(self, offset, state, command, *more, **others)

        return wrapped

    def claim(inner: Any) -> Any:
        async def wrapped(self: Any, *more: Any, **others: Any) -> None:
            await at.passing_async("claim.before", str(self.partition), ())
            await inner(self, *more, **others)
            if self.ready:
                at.tell(claimed=self.partition, epoch=self.epoch)
            at.passing("claim.after", str(self.partition), ())

        return wrapped

    def commit(inner: Any) -> Any:
        async def wrapped(self: Any, offsets: Any) -> None:
            at.passing("commit.before", "", ())
            await inner(self, offsets)
            at.passing("commit.after", "", ())

        return wrapped

    _around(Appender, "append", append)
    _around(Sender, "send", send)
    _around(Owner, "see", see)
    _around(Owner, "read_back", read_back)
    _around(ToolCalls, "_outcome", outcome)
    _around(Owner, "_decide", decide)
    _around(Owner, "claim", claim)
    _around(KafkaGroup, "commit", commit)


_FOLDING: ContextVar[frozenset[str] | None] = ContextVar("_FOLDING", default=None)


def wrap_history(at: Boundaries) -> None:
    """The projector's transaction: before it begins, before and after its COMMIT."""
    from parley_history.db import Connection
    from parley_history.projector import Projector

    def store(inner: Any) -> Any:
        async def wrapped(self: Any, moves: Any) -> None:
            streams = frozenset(fact.stream for batch in moves.values() for fact, _ in batch.facts)
            await at.passing_async("fold.before", "", streams)
            token = _FOLDING.set(streams)
            try:
                await inner(self, moves)
            finally:
                _FOLDING.reset(token)
            at.passing("fold.after", "", streams)

        return wrapped

    def run(inner: Any) -> Any:
        async def wrapped(self: Any, sql: str, *more: Any) -> int:
            streams = _FOLDING.get()
            if sql != "COMMIT" or streams is None:
                return int(await inner(self, sql, *more))
            at.passing("fold.before_commit", "", streams)
            done = int(await inner(self, sql, *more))
            at.passing("fold.after_commit", "", streams)
            return done

        return wrapped

    _around(Projector, "_store", store)
    _around(Connection, "run", run)


def wrap_gateway(at: Boundaries) -> None:
    """A request on its way: before its command is sent, after that, and when its outcome is here but not answered."""
    from parley_gateway.send import Sender

    def send(inner: Any) -> Any:
        async def wrapped(self: Any, record: Outgoing) -> Any:
            kind, stream = _head(record)
            at.passing("send.before", kind, {stream})
            sent = await inner(self, record)
            at.passing("send.after", kind, {stream})
            return sent

        return wrapped

    def read(inner: Any) -> Any:
        def wrapped(self: Any, principal: Any, fact: Any) -> Any:
            at.passing("answer.before", fact.type, {fact.stream})
            return inner(self, principal, fact)

        return wrapped

    _around(Sender, "_send", send)
    _around(Sender, "_read", read)


WRAP: dict[str, Callable[[Boundaries], None]] = {
    "dispatcher": wrap_dispatcher,
    "history": wrap_history,
    "gateway": wrap_gateway,
}
"""How the boundaries of each service are put in."""


def _head(record: Any) -> tuple[str, str]:
    """The type of a record, and its stream."""
    headers = dict(record.headers)
    return headers.get("ce_type", b"").decode("utf-8", "replace"), (record.key or b"").decode("utf-8", "replace")


def _text(record: Outgoing) -> str:
    return (record.value or b"")[:10_000].decode("utf-8", "replace")
