"""The cursor of many threads: small, exact, and nothing else is taken for one."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_gateway.errors import Problem
from parley_gateway.feed.vector import MAX_OFFSET, Vector, parse_vector

PLACES = st.dictionaries(st.integers(0, 255), st.integers(0, MAX_OFFSET), min_size=1)


@given(PLACES, st.integers(0, 999_999), st.data())
def test_what_is_written_is_read_back(places: dict[int, int], frames: int, data: st.DataObject) -> None:
    partition = data.draw(st.sampled_from(sorted(places))) if frames else 0
    vector = Vector(places, partition, frames)
    assert parse_vector(str(vector)) == vector


@given(st.binary(max_size=60))
def test_what_is_read_would_be_written_just_so(told: bytes) -> None:
    text = base64.urlsafe_b64encode(b"\x01" + told).rstrip(b"=").decode()
    try:
        vector = parse_vector(text)
    except Problem as problem:
        assert (problem.code, problem.status) == ("bad_cursor", 400)
    else:
        assert str(vector) == text and vector.next and max(vector.next) < 256


def test_it_is_small() -> None:
    assert len(str(Vector(dict.fromkeys(range(8), 5_000_000)))) <= 60
    assert len(str(Vector(dict.fromkeys(range(256), 2**34)))) <= 2100
    assert len(str(Vector(dict.fromkeys(range(256), MAX_OFFSET), 255, 999_999))) < 4096


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"\x01",
        b"\x01\x00",
        b"\x02\x00\x00\x05",
        b"\x01\x00\x00",
        b"\x01\x00\x00\x85",
        b"\x01\x00\x00\x85\x00",
        b"\x01\x00\xff\x01\x05\x00\x05",
        b"\x01\x01\x02\x00\x05",
        b"\x01\x00\x00" + b"\xff" * 12 + b"\x01",
    ],
    ids=["empty", "version", "places", "other", "half", "cut", "long zero", "257th", "frames elsewhere", "endless"],
)
def test_anything_else_is_refused(told: bytes) -> None:
    with pytest.raises(Problem) as refused:
        parse_vector(base64.urlsafe_b64encode(told).rstrip(b"=").decode())
    assert refused.value.code == "bad_cursor"


@pytest.mark.parametrize("text", ["AQAABQ==", "AQAABQ=", " AQAABQ", "AQAABQ\n", "AQAAB", "é", "x" * 5000, "AQAABR"])
def test_another_spelling_of_it_is_refused(text: str) -> None:
    assert parse_vector("AQAABQ") == Vector({0: 5})
    with pytest.raises(Problem):
        parse_vector(text)
