"""What is noted of a request: its writes before its reads, the newest written, the oldest read, and nobody else's."""

from __future__ import annotations

import asyncio

from parley_gateway import answered
from parley_gateway.answered import MOST_STREAMS, Noted

THREAD = "7d3f0c52-93a4-4f6e-8f0a-2f6a3c1b9e77"


def end_of(stream: str) -> str:
    return f"{int(stream[-2:], 16) % 4}.77"


def test_the_newest_that_was_written_is_said_and_nothing_of_what_was_read_for_it() -> None:
    noted = Noted()
    noted.read("1.5")
    noted.wrote(THREAD, 4)
    noted.wrote(THREAD, 3)
    assert noted.text(end_of) == f"{THREAD}@4"


def test_of_two_reads_the_older_one_is_said() -> None:
    noted = Noted()
    noted.read(f"{THREAD}@5,1.9")
    noted.read(f"{THREAD}@4,1.12,2.3")
    assert noted.text(end_of) == f"{THREAD}@4,1.9,2.3"


def test_beyond_a_few_streams_their_partitions_are_said() -> None:
    noted = Noted()
    for number in range(MOST_STREAMS + 1):
        noted.wrote(f"{THREAD[:-2]}{number:02x}", 1)
    assert noted.text(end_of) == "0.77,1.77,2.77,3.77"


def test_one_read_is_said_as_it_was_told_and_nothing_where_nothing_was_done() -> None:
    noted = Noted()
    assert noted.text(end_of) is None
    for _ in range(2):
        noted.read("0.3,1.5")
        assert noted.text(end_of) == "0.3,1.5"


async def test_a_request_notes_its_own_and_what_its_tasks_do_but_what_is_done_for_all() -> None:
    async def request(seq: int) -> str | None:
        noted = answered.begin()
        answered.wrote(THREAD, seq)
        await asyncio.sleep(0)

        async def mine() -> None:
            answered.wrote(THREAD, seq + 1)

        async def everybodys() -> None:
            answered.apart()
            answered.wrote(THREAD, 99)

        await asyncio.gather(mine(), everybodys())
        return noted.text(end_of)

    said = await asyncio.gather(*(asyncio.create_task(request(seq)) for seq in (10, 20)))
    assert said == [f"{THREAD}@11", f"{THREAD}@21"]
    answered.wrote(THREAD, 1)  # outside of any request: nobody asks
