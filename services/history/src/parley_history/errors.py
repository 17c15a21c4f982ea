"""What can go wrong in history, named by what to do next.

HistoryError
├── Unavailable        PostgreSQL is away or too slow: try again later (503 to readers, back-off in the projector)
├── BadData            PostgreSQL will never take this value: no use in trying again
├── Moved              another projector was first: read the position again
├── Poison             a record that cannot be folded: stop its partition, page someone
├── SchemaTooNew       the database was migrated by newer code: run that
├── SchemaNotReady     the database is not migrated yet: `python -m parley_history migrate`
├── MigrationChanged   a migration that was applied differs from the file of that number
└── RebuildRefused     a rebuild cannot go on, and says why; the view is as it was
"""

from __future__ import annotations


class HistoryError(Exception):
    """The root of this package's errors."""


class Unavailable(HistoryError):
    """PostgreSQL cannot be reached, refuses for now, or did not answer in time."""


class BadData(HistoryError):
    """A value that breaks a constraint or does not fit its column."""


class Moved(HistoryError):
    """The position is not where this projector left it: another one has folded the batch."""


class Poison(HistoryError):
    """The record at `offset` cannot be folded; everything below it can."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"offset {offset}: {reason}")
        self.offset, self.reason = offset, reason


class SchemaTooNew(HistoryError):
    """The schema knows migrations that this code does not."""


class SchemaNotReady(HistoryError):
    """The schema lacks migrations that this code needs."""


class MigrationChanged(HistoryError):
    """An applied migration's checksum is not that of its file."""


class RebuildRefused(HistoryError):
    """A rebuild, or a way back, cannot go on; nothing was switched."""
