"""Files of threads: what came with messages, and what tools made."""

from __future__ import annotations

from collections.abc import Iterable

from parley_events.body import Attachment
from parley_events.codec import Fact
from parley_history.projections.rows import FileRow, RunRow, View
from parley_history.projections.text import clean


def add_files(view: View, fact: Fact, run: RunRow, kind: str, files: Iterable[Attachment]) -> None:
    """Put a fact's files on the thread's shelf, unless the thread is gone or was cleared since the run was posted.
    Where a fact has a name twice the last one counts."""
    thread = view.threads.get(fact.stream)
    if thread is None or thread.deleted or run.posted_seq < thread.cleared_seq:
        return
    for file in files:
        name = clean(file.name)
        view.files[fact.stream, fact.seq or 0, name] = FileRow(
            thread_id=fact.stream,
            seq=fact.seq or 0,
            name=name,
            workspace_id=fact.workspace_id,
            kind=kind,
            content_type=file.content_type,
            size=file.size,
            sha256=file.sha256,
            run_id=run.id,
            created_ms=fact.time_ms,
        )
