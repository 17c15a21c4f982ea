"""The past of a fork, told as facts of the fork (`past` makes it). Pure.

Whoever folds a thread folds these first, by the same functions as any facts of a run: so a fork is what its source was,
in every view, and nobody reads the source. Their seqs are at most 0; their integer ids are those of the fork's fact.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from parley_events.codec import Fact
from parley_events.facts import FACTS, ThreadForked, numbers_of
from parley_events.past import body_of


def retold(fact: Fact) -> Iterator[Fact]:
    """The facts that a `thread.forked` took over, in their order. One of a newer version than this code knows is left
    out, as it would change nothing if it came by itself. ValueError where they make no sense."""
    assert isinstance(fact.body, ThreadForked)
    numbers = iter(fact.body.numbers)
    for one in fact.body.past:
        own = tuple(islice(numbers, numbers_of(one.type)))
        if one.version > FACTS[one.type].version:
            continue
        body = body_of(one)
        if own:
            body = body.model_copy(update={"numbers": own})
        yield Fact(
            type=one.type,
            stream=fact.stream,
            seq=one.seq,
            epoch=fact.epoch,
            workspace_id=fact.workspace_id,
            time_ms=one.time_ms,
            body=body,
            run_id=getattr(body, "run_id", None),
            version=body.version,
        )
