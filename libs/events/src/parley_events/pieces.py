"""Pieces: previews of text that a fact will later carry whole, batched on `parley.deltas` (DESIGN §2).

One record per partition and tick: a compact JSON array of pieces, the writer's epoch in a header, no key. A lost one
costs a little smoothness, never a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import orjson

from parley_events.errors import Undecodable
from parley_events.log.port import Incoming, Outgoing

DELTAS_TOPIC = "parley.deltas"

Kind = Literal["text", "thought"]
_KINDS: tuple[Kind, Kind] = ("text", "thought")


class Piece(NamedTuple):
    """Some characters of a block. `call` is the seq of the `model.called`, `block` the block's place in its turn,
    `at` the place of the first character within the block, in Unicode code points. `before` is how many characters the
    turn's earlier blocks have, so that nobody shows a block while text of an earlier one is missing (0: none, or not
    known). `epoch`: its writer's, where a reader goes by it (-1: not known). A call's pieces have that of its fact."""

    thread_id: str
    call: int
    block: int
    kind: Kind
    at: int
    text: str
    before: int = 0
    epoch: int = -1


def encode_pieces(partition: int, epoch: int, pieces: Sequence[Piece]) -> Outgoing:
    """The record of one tick's pieces of one partition."""
    rows = [
        (p.thread_id, p.call, p.block, 0 if p.kind == "text" else 1, p.at, p.text, *((p.before,) if p.before else ()))
        for p in pieces
    ]
    return Outgoing(DELTAS_TOPIC, partition, None, orjson.dumps(rows), (("epoch", b"%d" % epoch),))


def pieces_epoch(record: Incoming) -> int:
    """The epoch of a batch, read off its header."""
    try:
        return int(record.header("epoch") or b"")
    except ValueError:
        raise Undecodable("a batch of pieces without an epoch") from None


def decode_pieces(record: Incoming, epoch: int = -1) -> list[Piece]:
    """The pieces of a batch, with its epoch where that is given; Undecodable when it is none."""
    try:
        return [
            Piece(thread, call, block, _KINDS[kind], at, text, before[0] if before else 0, epoch)
            for thread, call, block, kind, at, text, *before in orjson.loads(record.value or b"")
        ]
    except (ValueError, TypeError, IndexError) as error:
        raise Undecodable("not a batch of pieces") from error
