"""What was observed while Parley was being broken: everything that the checker (`tests.faults.check`) is given.

Plain data, put together once, after all is healed and quiet; `dump` and `load` keep it, so that a run that failed can
be looked at again: `python -m tests.faults.check <file>`. Two clocks: `wall_ms` since 1970 (the log's own times and
those of records), and `mono_ms`, the harness's monotonic clock (frames, requests), which never jumps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter

from parley_events.log.port import Incoming

Json = dict[str, Any]
Row = dict[str, Any]
"""A row of a table, in JSON's types alone: UUIDs as text, JSON columns parsed, bytes as text (`latin-1`)."""
Contract = Literal["threads", "org_chat"]


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request of a client, tried once. A client that tries again makes another one, with the same `key`.

    `status` None: the answer was lost (the connection broke, or nothing came in time), so nobody knows whether it was
    accepted. `answer`: the body where it was JSON; for a stream None, and the run's id is in `run_id` (the header
    `Parley-Run-Id`). `path` is without its query. `who`: the principal that a key covers (a name for the API key).
    """

    client: str
    who: str
    gateway: int
    method: str
    path: str
    sent_ms: int
    body: Json | None = None
    key: str | None = None
    status: int | None = None
    answer: Json | None = None
    run_id: str | None = None
    ended_ms: int | None = None

    @property
    def accepted(self) -> bool:
        """Whether the client was told that it was."""
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as a follower got it: its id, its parsed data (text where it is no JSON object), and when."""

    id: str | None
    data: Json | str
    mono_ms: int


@dataclass(frozen=True, slots=True)
class Leg:
    """One connection of a follower. `cursor` is the Last-Event-ID that it sent (None: none).

    `over`: `end` (the server closed the stream in good order), `left` (the client went away), `cut` (it broke off),
    `refused` (no stream: `status` says why).
    """

    gateway: int
    cursor: str | None
    status: int
    frames: tuple[Frame, ...]
    over: Literal["end", "left", "cut", "refused"]
    opened_ms: int
    closed_ms: int


@dataclass(frozen=True, slots=True)
class Follower:
    """Who watched a run (`run_id`), or a whole thread (None), over one or several connections, in order.

    `stayed`: it came back until the run had ended (a thread: until all was quiet); otherwise what it saw is only a
    beginning. Each leg begins at the id that was seen last before it.
    """

    name: str
    contract: Contract
    thread_id: str
    run_id: str | None
    legs: tuple[Leg, ...]
    stayed: bool = True

    @property
    def frames(self) -> tuple[Frame, ...]:
        """All that it saw, in order."""
        return tuple(frame for leg in self.legs for frame in leg.frames)


@dataclass(frozen=True, slots=True)
class Execution:
    """A line of the tool server's own ledger: a call that arrived there, written before it was answered.

    `applied`: it had its effect now (False: an idempotent tool knew the key already, and did nothing). `effect` is
    what the server knows the tool to be, `tool` its name as facts have it (`<server>__<tool>`). Checks (`reserved`) are
    no executions. `answered`: an answer was sent, good or bad (False: it broke off after the effect, or timed out).
    """

    effect_key: str
    tool: str
    arguments: Json
    effect: Literal["read_only", "idempotent", "checkable", "unsafe"]
    wall_ms: int
    applied: bool = True
    answered: bool = True


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that was broken on purpose, from `struck` to `healed` (`mono_ms`, and `wall_ms` for the log).

    `bystanders`: threads that the fault does not touch (other processes, other partitions) and that were at work all
    the time: they must keep moving. `victims`: threads of which a run was open on what was broken.
    """

    name: str
    target: str
    struck_mono_ms: int
    struck_wall_ms: int
    healed_mono_ms: int
    healed_wall_ms: int
    bystanders: tuple[str, ...] = ()
    victims: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Memory:
    """What one process held (`rss_bytes`) at a time. `service`: gateway, dispatcher, history."""

    service: str
    pid: int
    mono_ms: int
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What is still good enough. `end_s`: every open run has ended so long after the last healing, or, if it began
    later, after it began. `takeover_s`: so long after a strike another owner is at work in a victim's thread.
    `pause_s`: the longest that a bystander may stand still. `rss_mib`: per process."""

    end_s: float = 60.0
    takeover_s: float = 15.0
    pause_s: float = 10.0
    rss_mib: int = 700


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of it. `commands`, `events`, `rejected`: the topics from offset 0, each partition in order, bodies whole.

    `views`: PostgreSQL's tables by name (`positions` too). `ends`: per topic and partition the offset that the next
    record gets; `committed`: the dispatchers' group on `parley.commands`. `ledger_tools`: the names of the tools (as in
    facts) whose executions are in the ledger. `left_open`: runs that are meant to be open still (parked on purpose).
    `moves`: each move of a position of the view, as PostgreSQL made it, in order: `partition`, `from_offset`,
    `to_offset`. `without`: parts that were not gathered on purpose, by the names of their fields; anything else that
    is empty is a violation, since nothing can be told from it. `seed` and `scenario` name the run of the suite.
    """

    scenario: str
    seed: int
    partitions: int
    commands: tuple[Incoming, ...] = ()
    events: tuple[Incoming, ...] = ()
    rejected: tuple[Incoming, ...] = ()
    ledger: tuple[Execution, ...] = ()
    ledger_tools: tuple[str, ...] = ()
    requests: tuple[Request, ...] = ()
    followers: tuple[Follower, ...] = ()
    views: dict[str, tuple[Row, ...]] = field(default_factory=dict)
    ends: dict[str, dict[int, int]] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    memory: tuple[Memory, ...] = ()
    left_open: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    moves: tuple[Row, ...] = ()
    limits: Limits = field(default_factory=Limits)

    __pydantic_config__ = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


_FORM = TypeAdapter(Evidence)


def dump(evidence: Evidence, file: Path) -> None:
    """Keep the evidence in a file, as JSON."""
    file.write_bytes(_FORM.dump_json(evidence, indent=1))


def load(file: Path) -> Evidence:
    """The evidence that `dump` kept."""
    return _FORM.validate_json(file.read_bytes())
