"""Rates as people write them, and the records in which gateways tell each other what they counted."""

from __future__ import annotations

import pytest

from parley_events.counts import COUNTS_PARTITION, COUNTS_TOPIC, Count, decode_counts, encode_counts
from parley_events.errors import Undecodable
from parley_events.log import Incoming
from parley_events.rates import LONGEST_MS, Rate, checked_rate, parse_rate
from parley_events.topics import TOPICS


def test_a_rate_is_a_number_in_a_span_of_time() -> None:
    assert parse_rate("60/minute") == Rate(60, 60_000)
    assert parse_rate("1/second") == Rate(1, 1000)
    assert parse_rate("999999999/hour") == Rate(999_999_999, LONGEST_MS)
    for wrong in ("", "60", "0/minute", "-1/minute", "60/day", "60/minutes", "6e1/minute", "60 / minute", "٦/minute"):
        with pytest.raises(ValueError, match="as 60/minute"):
            parse_rate(wrong)
    assert checked_rate(None) is None and checked_rate("5/hour") == "5/hour"


def record(value: bytes | None, gateway: bytes = b"g") -> Incoming:
    return Incoming(COUNTS_TOPIC, COUNTS_PARTITION, 0, 0, None, value, (("gateway", gateway),))


def test_what_one_gateway_counted_is_read_by_another() -> None:
    counts = [Count("workspace/key", 1_800_000_000_000, 3, 60_000), Count("workspace", 0, 1, 1000)]
    sent = encode_counts("g", counts)
    assert (sent.topic, sent.partition) == (COUNTS_TOPIC, COUNTS_PARTITION)
    assert decode_counts(record(sent.value)) == ("g", counts)
    for bad in (None, b"", b"{}", b"[[1,2,3,4]]", b'[["s",1]]', b'[["s","1",1,1]]', b'[["s",1,1,true]]', b"[1]"):
        with pytest.raises(Undecodable):
            decode_counts(record(bad))
    with pytest.raises(Undecodable):
        decode_counts(record(b"[]", b"\xff"))


def test_the_topic_is_kept_longer_than_the_longest_window() -> None:
    retention_ms = TOPICS[COUNTS_TOPIC].retention_ms
    assert retention_ms is not None and retention_ms > LONGEST_MS
