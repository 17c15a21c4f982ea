"""Records made whole before they are folded: their large contents are fetched, as far as the records will be believed.

Between the log and `batch`. The projector and the load of a rebuild fetch with different patience; the rest is one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Sequence

from parley_events.codec import head_of
from parley_events.errors import Undecodable
from parley_events.fence import FactFence
from parley_events.log.port import Incoming
from parley_history.batch import Position


async def made_whole(
    start: Position,
    records: Sequence[Incoming],
    fetch: Callable[[Incoming], Awaitable[Incoming]],
    skips: Container[int] = (),
) -> list[Incoming]:
    """The records from the start on, each as `fetch` gives it, but for those that nobody believes or that are skipped.
    Raises what `fetch` raises, except Undecodable: it is the reader of the batch that says where it stops."""
    fence = FactFence(start.epoch)
    whole: list[Incoming] = []
    for record in records:
        if record.offset < start.next_offset:
            continue
        try:
            head = head_of(record)
            if fence.accepts(record.offset, head.type, head.epoch) and record.offset not in skips:
                record = await fetch(record)
        except Undecodable:
            pass
        whole.append(record)
    return whole
