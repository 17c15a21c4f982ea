"""The log: `port` says what Parley asks of it; `kafka` and `embedded` give it."""

from parley_events.log.port import (
    Group,
    Headers,
    Incoming,
    Log,
    OnAssigned,
    OnRevoked,
    OnWanted,
    Outgoing,
    Producer,
    Tail,
)

__all__ = [
    "Group",
    "Headers",
    "Incoming",
    "Log",
    "OnAssigned",
    "OnRevoked",
    "OnWanted",
    "Outgoing",
    "Producer",
    "Tail",
]
