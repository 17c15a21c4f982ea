"""What can go wrong in a gateway, named by what to do next.

    GatewayError
    ├── Problem             answer the client with it: code, message, status, details
    │   ├── Unavailable     503 with Retry-After: the log or history cannot be reached; nothing was half-accepted
    │   └── Behind          503 with Retry-After: the view has not come as far as the client asked for
    └── Missing             history knows no such thing: wait for the log's end and ask again, or 404

There is one problem object. How it looks on the wire is a dialect's choice between two shapes (`body`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson


class GatewayError(Exception):
    """The root of this package's errors."""


class Missing(GatewayError):
    """History answered 404."""


class Problem(GatewayError):
    """What a client is told when a request cannot be served."""

    def __init__(
        self,
        code: str,
        message: str,
        status: int = 400,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status
        self.details, self.headers = details, dict(headers or {})

    def body(self, flat: bool) -> bytes:
        """The problem as JSON: `{"error": code, "message", …}` when flat, else `{"error": {"code", "message", …}}`."""
        inner: dict[str, Any] = {"message": self.message}
        if self.details:
            inner["details"] = dict(self.details)
        return orjson.dumps({"error": self.code, **inner} if flat else {"error": {"code": self.code, **inner}})


class Unavailable(Problem):
    """The log or history cannot be reached, or there is no room just now. `close`: the rest of the body is not read."""

    def __init__(self, message: str, retry_after_s: int = 2, *, close: bool = False) -> None:
        headers = {"Retry-After": str(retry_after_s)} | ({"Connection": "close"} if close else {})
        super().__init__("unavailable", message, 503, headers=headers)


class Behind(Problem):
    """The view has not come as far as was asked."""

    def __init__(self) -> None:
        super().__init__(
            "behind", "the view has not come to that position yet; try again", 503, headers={"Retry-After": "1"}
        )


def invalid(message: str, code: str = "invalid_request", **details: Any) -> Problem:
    """The request is not what it should be."""
    return Problem(code, message, 400, details or None)


def not_found(what: str, **details: Any) -> Problem:
    """There is no such thing, or it is not visible to this key."""
    return Problem("not_found", f"there is no such {what}", 404, details or None)


def instead(problem: Problem, of: Problem) -> Problem:
    """A refusal in a dialect's own words; its headers stay, since they say whether it was decided before."""
    problem.headers |= of.headers
    return problem


def forbidden(message: str) -> Problem:
    """A valid key without the right."""
    return Problem("forbidden", message, 403)


def unsupported(message: str) -> Problem:
    """Something that the contract knows, and this version does not serve yet."""
    return Problem("unsupported", message, 400)


REFUSALS: dict[str, int] = {
    "not_found": 404,
    "idempotency_conflict": 409,
    "exists": 409,
    "conflict": 409,
    "in_use": 409,
    "too_many": 409,
    "deleted": 404,
    "session_expired": 404,
    "unknown_agent": 404,
    "not_open": 409,
    "forbidden": 403,
    "invalid": 400,
    "unsupported": 400,
    "poison": 500,
    "too_large": 413,
    "object_missing": 400,
}
"""The status of each code with which a dispatcher refuses a command (`parley_events.facts.REJECTION_CODES`)."""


def refusal(code: str, message: str) -> Problem:
    """The problem that a `command.rejected` is to the client who asked."""
    return Problem(code, message, REFUSALS.get(code, 400))
