"""Figures of the benchmark: ages of deltas, doublings, rates that were printed, memory over a soak."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.bench.client import ages_of, counted, text_of
from tests.bench.folds import Rate, read, rows
from tests.bench.growth import doublings, typical
from tests.bench.memory import Sample, judged


def frame(**data: str) -> bytes:
    return b"3a\r\ndata: " + json.dumps(data).encode() + b"\n\n\r\n"


def test_a_delta_is_as_old_as_the_frame_with_its_last_character() -> None:
    parts = [
        b"HTTP/1.1 200 OK\r\n\r\n" + frame(type="model.called"),
        frame(type="text.delta", delta="1700000000000 1700000000020 170000"),
        frame(type="text.delta", delta="0000040 "),
        frame(type="run.completed"),
    ]
    arrivals, size = [], 0
    for part, second in zip(parts, (0.1, 0.2, 0.3, 0.4), strict=True):
        # A frame is there when its last byte is: each comes in two halves here.
        arrivals.append((size + len(part) // 2, 1_700_000_000 + second - 0.05))
        size += len(part)
        arrivals.append((size, 1_700_000_000 + second))
    ages = ages_of(b"".join(parts), arrivals)
    assert ages == pytest.approx([0.2, 0.18, 0.26], abs=1e-6)


def test_text_that_is_missing_is_noticed() -> None:
    told = [frame(type="text.delta", delta="0000 "), frame(type="text.delta", delta="0001 ")]
    assert text_of(b"".join(told)) == counted(2)
    assert text_of(told[0]) != counted(2)


def test_a_doubling_is_told_of_the_medians_so_that_a_slow_turn_changes_nothing() -> None:
    turns = [[1.0, 1.1, 1.1, 2.2], [3.0, 3.3, 1.2, 6.6], [0.9, 0.9, 1.0, 2.0]]
    assert typical(turns) == [1.0, 1.1, 1.1, 2.2]
    assert doublings(typical(turns)) == pytest.approx([1.1, 1.0, 2.0])


PRINTED = """live fold           26000 facts/s; CPU 3.20 s here, 0.60 s in PostgreSQL: 26315 facts/s per core, ...
raw UNNEST          60000 facts/s; CPU 0.40 s here, 0.80 s in PostgreSQL: 83333 facts/s per core, ...
rebuild             16000 facts/s; CPU 5.40 s here, 0.80 s in PostgreSQL: 16129 facts/s per core, ...
indexes 0.60 s; compare 1.00 s
in 2 processes      30000 facts/s; CPU 5.40 s here, 0.80 s in PostgreSQL: 16129 facts/s per core, ...
raw COPY           106000 facts/s; CPU 0.10 s here, 0.70 s in PostgreSQL: 125000 facts/s per core, ...
"""


def test_rates_are_read_as_they_are_printed_and_held_against_the_targets() -> None:
    rates = read(PRINTED)
    assert rates["rebuild"] == Rate(16000, 16129)
    live, rebuilt = rows(rates)
    assert (live.met, rebuilt.met) == (False, False)
    assert "32% of 83,333 (43% by wall time)" in live.reached
    assert rows({**rates, "raw UNNEST": Rate(60_000, 50_000)})[0].met
    assert not rows({**rates, "live fold": Rate(30_000, 24_999), "raw UNNEST": Rate(60_000, 40_000)})[0].met


def test_a_rate_that_was_not_printed_is_no_verdict() -> None:
    rates = read(PRINTED)
    del rates["raw UNNEST"]
    assert (rows(rates)[0].met, rows(rates)[0].reached) == (None, "raw UNNEST was not measured")
    assert rows({})[1].met is None


def test_memory_is_held_against_what_it_was_when_it_was_filled() -> None:
    samples: list[tuple[float, Sample]] = [
        (-60.0, {"gateway": 50.0}),
        (0.0, {"gateway": 70.0, "history": 80.0}),
        (290.0, {"gateway": 99.0, "history": 80.0}),
        (300.0, {"gateway": 100.0, "history": 80.0}),
        (310.0, {"gateway": 200.0, "history": 80.0}),
        (500.0, {"gateway": 300.0, "history": 80.0}),
        (600.0, {"gateway": 101.0, "history": 84.0, "new": 1.0}),
        (700.0, {"gateway": 102.0, "history": 80.0}),
        (800.0, {"gateway": 110.0, "history": 80.0}),
    ]
    gateway, history = judged(samples, 300.0, 600.0)
    assert (gateway.name, gateway.filled, gateway.middle, gateway.most) == ("gateway", 100.0, 102.0, 110.0)
    assert (gateway.ratio, history.ratio) == pytest.approx((1.1, 1.05))


async def test_a_stream_that_ends_by_itself_counts_as_lost_and_one_that_is_closed_does_not() -> None:
    from tests.bench.followers import Follower

    loop = asyncio.get_running_loop()
    served: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\n\r\ndata: {"type": "run.completed"}\n\n')

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    place = server.sockets[0].getsockname()[:2]
    made = [await loop.create_connection(lambda: Follower(b"GET / HTTP/1.1\r\n\r\n"), *place) for _ in range(2)]
    kept, dropped = (follower for _, follower in made)
    async with asyncio.timeout(5):
        assert [await follower.opened for follower in (kept, dropped)] == [200, 200]
        await asyncio.gather(kept.ended, dropped.ended)
        for follower in (kept, dropped):
            follower.listen_again()
        kept.close()
        for writer in served:
            writer.close()
        for follower in (kept, dropped):
            with pytest.raises(ConnectionError, match="ended early"):
                await follower.ended
    assert (kept.lost, dropped.lost) == (False, True)
    server.close()
    await server.wait_closed()
