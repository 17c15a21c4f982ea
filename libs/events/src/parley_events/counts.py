"""Counts: how many requests a gateway has taken of keys with a rate limit, told to the others on `parley.counts`.

A record is what one gateway counted since its last one, a few times a second while there is something to tell: a
compact JSON array, the gateway's id in a header, all on one partition. A lost one lets somebody ask a little more
often.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from parley_events.errors import Undecodable
from parley_events.log.port import Incoming, Outgoing

COUNTS_TOPIC = "parley.counts"
COUNTS_PARTITION = 0
"""Every gateway reads all of them, and they are few: one partition does."""


class Count(NamedTuple):
    """So many requests of a subject (a key, or a workspace's keys together) in the slot that began at `at_ms`; they
    count for `window_ms`."""

    subject: str
    at_ms: int
    requests: int
    window_ms: int


_TYPES = [str, int, int, int]


def encode_counts(gateway: str, counts: Sequence[Count]) -> Outgoing:
    """The record of what a gateway counted."""
    value = orjson.dumps([tuple(count) for count in counts])
    return Outgoing(COUNTS_TOPIC, COUNTS_PARTITION, None, value, (("gateway", gateway.encode()),))


def decode_counts(record: Incoming) -> tuple[str, list[Count]]:
    """Who counted, and what; Undecodable when it is no such record."""
    try:
        rows = orjson.loads(record.value or b"")
        if type(rows) is not list:
            raise ValueError
        counts = [Count(*row) for row in rows]
        if any([type(value) for value in count] != _TYPES for count in counts):
            raise ValueError
        return (record.header("gateway") or b"").decode(), counts
    except (ValueError, TypeError) as error:
        raise Undecodable("not a record of counts") from error
