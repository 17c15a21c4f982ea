"""Batches of pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_events.errors import Undecodable
from parley_events.log import Incoming
from parley_events.pieces import DELTAS_TOPIC, Piece, decode_pieces, encode_pieces, pieces_epoch

THREAD = "7d3f0c52-93a4-4f6e-8f0a-2f6a3c1b9e77"
PIECES = st.builds(
    Piece,
    st.just(THREAD),
    st.integers(1, 2**53),
    st.integers(0, 500),
    st.sampled_from(["text", "thought"]),
    st.integers(0, 2**31),
    st.text(max_size=20),
    st.integers(0, 2**31),
    st.just(-1),
)


def incoming(value: bytes | None, headers: tuple[tuple[str, bytes], ...] = (("epoch", b"7"),)) -> Incoming:
    return Incoming(DELTAS_TOPIC, 3, 99, 1, None, value, headers)


@given(st.lists(PIECES, max_size=8), st.integers(0, 2**62))
def test_a_batch_comes_back_as_it_was(pieces: list[Piece], epoch: int) -> None:
    record = encode_pieces(3, epoch, pieces)
    assert (record.topic, record.partition, record.key) == (DELTAS_TOPIC, 3, None)
    read = incoming(record.value, record.headers)
    assert pieces_epoch(read) == epoch
    assert decode_pieces(read) == pieces
    assert decode_pieces(read, epoch) == [piece._replace(epoch=epoch) for piece in pieces]


def test_a_batch_is_small() -> None:
    """Beside the thread's id and the text a piece costs little."""
    record = encode_pieces(3, 7, [Piece(THREAD, 12, 1, "text", 4096, "Hello ")])
    assert len(record.value or b"") <= len(THREAD) + len("Hello ") + 30


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"{",
        b"\xff",
        b"3",
        b"null",
        b'[["t",1,0,2,0,"x"]]',
        b'[["t",1,0,"text",0,"x"]]',
        b'[["t",1,0,0,"x"]]',
        b"[3]",
    ],
)
def test_what_is_no_batch_is_refused(value: bytes | None) -> None:
    with pytest.raises(Undecodable, match="not a batch"):
        decode_pieces(incoming(value))


@pytest.mark.parametrize("epoch", [None, b"", b"x", b"--5", b"5.0", b"9" * 5000])
def test_a_batch_without_an_epoch_is_refused(epoch: bytes | None) -> None:
    with pytest.raises(Undecodable, match="epoch"):
        pieces_epoch(incoming(b"[]", () if epoch is None else (("epoch", epoch),)))
