"""What each key was told last: the positions its next reads must not fall behind.

A write's answer and a stream both tell a client of facts that history may learn of a moment later; a read by the same
key waits for them (at most two seconds), so that nobody sees less than they saw before.
"""

from __future__ import annotations

from collections import OrderedDict

from parley_events.positions import StreamPosition

MOST_KEYS = 10_000
MOST_STREAMS = 8
"""How many streams are remembered of a key; of the ones beyond, reads by the key may lag by milliseconds."""


class Told:
    """Bounded; the keys and streams used longest ago are forgotten first."""

    def __init__(self) -> None:
        self._keys: OrderedDict[str, OrderedDict[str, int]] = OrderedDict()

    def tell(self, key_id: str, stream: str, seq: int) -> None:
        """The key was told of the stream's fact `seq`."""
        streams = self._keys.get(key_id)
        if streams is None:
            streams = self._keys[key_id] = OrderedDict()
            if len(self._keys) > MOST_KEYS:
                self._keys.popitem(last=False)
        if streams.get(stream, 0) < seq:
            streams[stream] = seq
            streams.move_to_end(stream)
            if len(streams) > MOST_STREAMS:
                streams.popitem(last=False)

    def positions(self, key_id: str) -> list[str]:
        """What a read by the key waits for."""
        return [str(StreamPosition(stream, seq)) for stream, seq in self._keys.get(key_id, {}).items()]

    def seen(self, key_id: str, positions: list[str]) -> None:
        """A read has come to these positions: they need not be waited for again."""
        streams = self._keys.get(key_id)
        for position in positions if streams else ():
            stream, _, seq = position.rpartition("@")
            if streams is not None and streams.get(stream) == int(seq):
                del streams[stream]
