"""The parameters of the internal API: each is read here, bounded, and refused where it is none.

Above it: `http`.
"""

from __future__ import annotations

from starlette.requests import Request

from parley_events.errors import Undecodable
from parley_events.positions import StreamPosition, parse_position
from parley_history.reads.past import AsOf


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(message or code)
        self.status, self.code, self.message = status, code, message


def integer(request: Request, name: str, default: int | None, low: int, high: int) -> int:
    """A number within its bounds; without a default it must be there."""
    text = request.query_params.get(name)
    if text is None:
        if default is None:
            raise Refused(400, f"bad_{name}", f"{name} is missing")
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 19 or not low <= int(text) <= high:
        raise Refused(400, f"bad_{name}", f"{name} must be a number from {low} to {high}")
    return int(text)


def moment_of(request: Request) -> AsOf | None:
    """`as_of_seq` or `as_of_ms`."""
    query = request.query_params
    if "as_of_seq" in query:
        return AsOf(seq=integer(request, "as_of_seq", None, 1, 2**53))
    if "as_of_ms" in query:
        return AsOf(time_ms=integer(request, "as_of_ms", None, 0, 2**48))
    return None


def version_of(request: Request) -> int | None:
    """`version`."""
    return integer(request, "version", None, 0, 2**31 - 1) if "version" in request.query_params else None


def number_of(request: Request, name: str) -> int | None:
    """The number of a message."""
    return integer(request, name, None, 0, 2**53) if name in request.query_params else None


def limit_of(request: Request, default: int = 50, most: int = 200) -> int:
    """`limit`."""
    return integer(request, "limit", default, 1, most)


def is_descending(request: Request) -> bool:
    """Whether `order` is desc."""
    order = request.query_params.get("order", "asc")
    if order not in ("asc", "desc"):
        raise Refused(400, "bad_order", "order must be asc or desc")
    return order == "desc"


def partitions_of(request: Request) -> list[int]:
    """`partitions`: their numbers, with commas between them."""
    text = request.query_params.get("partitions", "")
    numbers = text.split(",")
    if len(numbers) > 256 or not all(n.isascii() and n.isdecimal() and len(n) <= 3 and int(n) < 256 for n in numbers):
        raise Refused(400, "bad_partitions", "partitions must be numbers from 0 to 255, with commas between them")
    return [int(number) for number in numbers]


def flag_of(request: Request, name: str) -> bool | None:
    """True, false, or not said."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if text not in ("true", "false"):
        raise Refused(400, f"bad_{name}", f"{name} must be true or false")
    return text == "true"


def places_of(request: Request, name: str, most: int = 1000) -> list[tuple[str, int]]:
    """Streams, each with an offset, as `<stream>@<offset>`."""
    texts = request.query_params.getlist(name)
    try:
        found = [parse_position(text) for text in texts[: most + 1]]
    except Undecodable as error:
        raise Refused(400, f"bad_{name}", str(error)) from None
    places = [(at.stream, at.seq) for at in found if isinstance(at, StreamPosition)]
    if len(places) < len(texts) or len(places) > most:
        raise Refused(400, f"bad_{name}", f"{name} must be a stream and an offset, and be given {most} times at most")
    return places
