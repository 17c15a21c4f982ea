"""murmur2, held against Kafka's own vectors and against aiokafka's partitioner."""

from __future__ import annotations

import random
import uuid

import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from parley_events.partition import murmur2, partition_of


@pytest.mark.parametrize(
    ("key", "hashed"),
    [  # Apache Kafka, clients: org.apache.kafka.common.utils.UtilsTest.testMurmur2
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_the_hash_is_kafkas(key: str, hashed: int) -> None:
    assert murmur2(key.encode()) == hashed


def test_keys_of_every_length_go_where_aiokafka_would_put_them() -> None:
    theirs = DefaultPartitioner()
    chance = random.Random(20260420)
    for partitions in (1, 2, 3, 8, 48, 256):
        everywhere = list(range(partitions))
        for length in [*range(70), *(chance.randrange(1000) for _ in range(50))]:
            key = chance.randbytes(length)
            assert partition_of(key, partitions) == theirs(key, everywhere, everywhere)


@given(st.binary(max_size=80), st.integers(1, 256))
def test_any_key_goes_where_aiokafka_would_put_it(key: bytes, partitions: int) -> None:
    everywhere = list(range(partitions))
    assert partition_of(key, partitions) == DefaultPartitioner()(key, everywhere, everywhere)


def test_streams_are_spread_over_all_partitions() -> None:
    chance = random.Random(7)
    keys = [str(uuid.UUID(int=chance.getrandbits(128), version=4)).encode() for _ in range(4000)]
    counts = [sum(1 for key in keys if partition_of(key, 8) == p) for p in range(8)]
    assert min(counts) > 400 and max(counts) < 600
