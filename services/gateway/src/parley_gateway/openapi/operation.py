"""What is said of one operation of a contract, as data. Each dialect's `openapi` lists its own; `document` words them.

What clients send is a `wire` model. What they are answered has no model in the code that answers: it is said here once,
as a `Told` in the dialect's `shapes`, and every answer in the tests is held against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from parley_events.body import Json

Absent = SkipJsonSchema[None]
"""`str | Absent = None`: a field that is not always there, and never null."""
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""RFC 3339 in UTC."""
Uuid = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
Flag = Annotated[bool, WithJsonSchema({"type": "boolean"})]


class Told(BaseModel):
    """The base of what clients are told."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Open(Told):
    """The same, where more fields may come."""

    model_config = ConfigDict(extra="allow")


class Parameter(NamedTuple):
    """A query parameter, or a header. `form`: its type, as pydantic has types."""

    name: str
    form: Any
    what: str
    place: Literal["query", "header"] = "query"
    required: bool = False
    example: Any = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What one status says. `body`: the type of its JSON; `events`: the type of each frame's data, where it may be a
    stream; `stream`: such a stream as it is seen, as an example; `done`: it ends with `[DONE]`; `file`: the bytes of a
    file. Several may be given, and none."""

    what: str
    body: Any = None
    example: Any = None
    events: Any = None
    stream: Sequence[str] = ()
    done: bool = False
    file: bool = False
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `errors`: the codes beside those that every operation may have (`document.ALWAYS`).
    `more`: what is to be known beside the summary."""

    id: str
    method: str
    path: str
    tag: str
    summary: str
    answers: Mapping[int, Answer]
    more: str = ""
    request: type[BaseModel] | None = None
    example: Json | None = None
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[str, ...] = ()
    optional: bool = False
    """Whether the body may be left out."""


@dataclass(frozen=True, slots=True)
class Contract:
    """One document. `flat`: its error shape (see `errors.Problem.body`)."""

    name: str
    title: str
    description: str
    flat: bool
    operations: tuple[Operation, ...]


# ---- what many operations take

LIMIT = Parameter("limit", Annotated[int, Field(ge=1, le=200)], "How many at most; 50 when it is left out.")
CURSOR = Parameter("cursor", str, "Where to go on: the `next_cursor` of the page before. Opaque.")
PAGE = (LIMIT, CURSOR)
MIN_POSITION = Parameter(
    "min_position",
    str,
    "Wait until what is read has come this far: a `position`, or a `Parley-Position`, that an answer gave; several "
    "with commas between. May wait two seconds, then 503.",
)
WAIT = Parameter(
    "wait",
    Annotated[float, Field(ge=0)],
    "How many seconds to wait for the end of the run, at most 300; 0: not at all. Without a number: the default.",
)
AFTER = Parameter(
    "after", str, "The cursor from which a stream goes on: the last `id:` that was seen. `Last-Event-ID` comes first."
)
LAST_EVENT_ID = Parameter("Last-Event-ID", str, "The same as a header, as browsers send it.", "header")
RESUME = (AFTER, LAST_EVENT_ID, MIN_POSITION)
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$")],
    "Says that a repeated request is the same one: it is answered as the first was, for seven days.",
    "header",
)

# ---- what many operations answer

RUN_ID = "Parley-Run-Id"
REPLAYED = "Idempotency-Replayed"
LINK = "Link"
POSITION = "Parley-Position"
HEADERS: dict[str, str] = {
    RUN_ID: "The run's id; its stream can be resumed with it, in every contract.",
    REPLAYED: "`true`: this is the answer of the first request with the same Idempotency-Key.",
    POSITION: "How new the answer is: what was written, or how far the view was at least that was read. Opaque; "
    "`min_position` takes it.",
    LINK: 'The address of the next page, `rel="next"`; not on the last one.',
}
"""Headers of answers, by their names."""
GONE = {204: Answer("It is gone.")}
BYTES = {200: Answer("The bytes, with their own Content-Type, as a download.", file=True)}
