"""Rows that later facts may still change, held in memory while a partition is loaded: bounded, spilled, fetched again.

Pure. `load` puts what is new into the tables by COPY, what was there before by upserts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

R = TypeVar("R")


@dataclass(slots=True)
class Held(Generic[R]):
    """The rows of one table and partition by key, those touched last at the end. `new`: not in the table yet;
    `changed`: otherwise than in the table; `gone`: some are in the table alone."""

    rows: dict[str, R] = field(default_factory=dict)
    new: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    gone: bool = False

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys that may be in the table alone."""
        return [key for key in keys if key not in self.rows] if self.gone else []

    def of(self, keys: Iterable[str]) -> list[R]:
        """The rows of these keys that are here."""
        return [row for key in keys if (row := self.rows.get(key)) is not None]

    def fetched(self, rows: Mapping[str, R]) -> None:
        """They came from the table."""
        self.rows |= rows

    def take(self, changed: Mapping[str, R]) -> None:
        """A batch made or changed these."""
        for key, row in changed.items():
            if self.rows.pop(key, None) is not None:
                self.changed.add(key)
            else:
                self.new.add(key)
            self.rows[key] = row

    def spill(self) -> tuple[list[R], list[R]]:
        """What the table lacks, and what it has otherwise. From now on it has both."""
        new = [self.rows[key] for key in self.rows if key in self.new]
        changed = [self.rows[key] for key in self.rows if key in self.changed and key not in self.new]
        self.new.clear()
        self.changed.clear()
        return new, changed

    def forget(self, keep: int) -> None:
        """Let go of those that were touched longest ago, until `keep` are left. Spill first."""
        for key in list(self.rows)[: max(0, len(self.rows) - keep)]:
            del self.rows[key]
            self.gone = True
