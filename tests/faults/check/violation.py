"""What the checker finds: a promise that was not kept, and where."""

from __future__ import annotations

from dataclasses import dataclass

PROMISES: dict[int, str] = {
    0: "evidence",
    1: "one outcome",
    2: "order",
    3: "effects",
    4: "views",
    5: "followers",
    6: "recovery",
    7: "nothing lost",
    9: "memory",
}
"""The promises that evidence can show, by their numbers in the design; 0: the evidence itself can be believed."""


@dataclass(frozen=True, slots=True)
class Violation:
    """`promise` is a number of `PROMISES`, `what` one sentence, `where` the record, stream, run or row."""

    promise: int
    what: str
    where: str = ""

    def __str__(self) -> str:
        place = f"  [{self.where}]" if self.where else ""
        return f"{self.promise} {PROMISES[self.promise]}: {self.what}{place}"
