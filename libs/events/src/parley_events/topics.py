"""The topic catalogue: `TOPICS`. What each topic holds, who writes it, who reads it, how long it is kept.

Every topic has the same number of partitions, fixed when they are first made (at most 256: integer ids carry the
partition in one byte); changing it would move keys and break the order of every stream.

All topics take the log's time (`LogAppendTime`): a record's time never runs backwards within a partition, whatever the
writers' clocks say, so that reading from a time and retention mean the same for every writer. A record's own time is in
its `ce_time`.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_RECORD_BYTES = 8 * 1024 * 1024
"""The largest record: body, key and headers together."""
MAX_PARTITIONS = 256

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. `retention_ms` None: for ever. `durable` False: it may be lost without harm."""

    name: str
    holds: str
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    retention_ms: int | None
    durable: bool = True

    def settings(self) -> dict[str, str]:
        """The broker's settings of this topic."""
        return {
            "cleanup.policy": "delete",
            "retention.ms": str(-1 if self.retention_ms is None else self.retention_ms),
            "retention.bytes": "-1",
            "max.message.bytes": str(MAX_RECORD_BYTES + 64 * 1024),
            "message.timestamp.type": "LogAppendTime",
            "compression.type": "producer",
            "unclean.leader.election.enable": "false",
        }


TOPICS: dict[str, Topic] = {
    topic.name: topic
    for topic in (
        Topic(
            "parley.commands",
            "what is asked, in the imperative",
            ("gateway", "other producers"),
            ("dispatcher",),
            14 * _DAY_MS,
        ),
        Topic(
            "parley.events",
            "facts: what happened, in the past tense; the source of truth",
            ("dispatcher",),
            ("history", "gateway", "dispatcher", "analytics"),
            None,
        ),
        Topic(
            "parley.deltas",
            "previews of text that a fact will carry whole",
            ("dispatcher",),
            ("gateway",),
            2 * 3_600_000,
            durable=False,
        ),
        Topic(
            "parley.counts",
            "how many requests each gateway has taken of keys with a rate limit",
            ("gateway",),
            ("gateway",),
            2 * 3_600_000,
            durable=False,
        ),
        Topic(
            "parley.rejected",
            "commands that could not be decoded, placed or survived: the bytes and the reason",
            ("dispatcher",),
            ("operators",),
            90 * _DAY_MS,
        ),
    )
}
"""Every topic, by its name."""
