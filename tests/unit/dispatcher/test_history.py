"""History as the dispatcher asks it: replicas in turn, pages to the end, and nothing that is not whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import orjson
import pytest

from parley_dispatcher.errors import HistoryUnavailable
from parley_dispatcher.history import History
from parley_events import facts as f
from parley_events.codec import Fact, encode_fact
from parley_events.positions import PartitionPosition
from tests.unit.dispatcher.story import T0, THREAD
from tests.unit.dispatcher.world import WORKSPACE

Answer = Callable[[httpx2.Request], httpx2.Response]


def history(answer: Answer, *urls: str) -> History:
    return History(urls or ("http://one",), "secret", transport=httpx2.MockTransport(answer))


def page(seqs: range, last_seq: int, next_offset: int) -> dict[str, Any]:
    items = []
    for seq in seqs:
        fact = Fact("thread.read", THREAD, seq, 0, WORKSPACE, T0, f.ThreadRead(user_id="ann", up_to=seq))
        record = encode_fact(fact, 0)
        headers = {name: value.decode() for name, value in record.headers}
        items.append({"offset": seq, "time_ms": T0, "headers": headers, "body": orjson.loads(record.value or b"")})
    return {"items": items, "last_seq": last_seq, "partition": 0, "next_offset": next_offset, "epoch": 0}


async def test_all_pages_are_read_and_the_last_one_says_how_far_the_view_was() -> None:
    pages = {"0": page(range(1, 3), 5, 10), "2": page(range(3, 4), 5, 11), "3": page(range(4, 7), 6, 12)}
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["authorization"] == "Bearer secret"
        asked.append(request.url.params["after"])
        return httpx2.Response(200, content=orjson.dumps(pages[request.url.params["after"]]))

    found = await history(answer).facts(THREAD, 0)
    assert [fact.seq for fact in found.facts] == [1, 2, 3, 4, 5, 6]
    assert (found.next_offset, asked) == (12, ["0", "2", "3"])


async def test_a_stream_that_nobody_wrote_to_is_empty() -> None:
    empty = page(range(0), 0, 7)
    found = await history(lambda _: httpx2.Response(200, content=orjson.dumps(empty))).facts(THREAD, 0)
    assert found == ([], 7)


async def test_the_replica_that_answered_last_is_asked_first() -> None:
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.host)
        if request.url.host == "one":
            raise httpx2.ConnectError("down")
        if request.url.host == "two":
            return httpx2.Response(503)
        return httpx2.Response(200, content=orjson.dumps({"partitions": []}))

    client = history(answer, "http://one", "http://two", "http://three")
    await client.positions()
    await client.positions()
    assert asked == ["one", "two", "three", "three"]


@pytest.mark.parametrize("status", [400, 401, 500, 503])
async def test_no_answer_from_anybody_is_unavailable(status: int) -> None:
    client = history(lambda _: httpx2.Response(status), "http://one", "http://two")
    with pytest.raises(HistoryUnavailable, match=str(status)):
        await client.positions()
    await client.close()


async def test_what_is_not_there_is_none_where_that_may_be_and_else_unavailable() -> None:
    client = history(lambda _: httpx2.Response(404))
    assert await client.agent(WORKSPACE, "ghost", None) is None
    assert await client.workspace(WORKSPACE) is None
    assert await client.skill(WORKSPACE, "a", "tea", []) is None
    with pytest.raises(HistoryUnavailable):
        await client.facts(THREAD, 0)


async def test_skills_are_asked_at_a_position() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.url.params.get_list("min_position") == ["0.7", "1.9"]
        assert (request.url.params["agent_id"], request.url.params.get("query")) == ("a", "tea")
        return httpx2.Response(200, content=b'{"items": []}')

    positions = [PartitionPosition(0, 7), PartitionPosition(1, 9)]
    assert await history(answer).skills(WORKSPACE, "a", "tea", positions) == ()


async def test_a_claim_asks_the_next_replica_soon() -> None:
    """A replica that stalls must not use up the time in which partitions are taken over."""
    limits: dict[str, float] = {}
    view = {"partition": 0, "next_offset": 5, "epoch": 2, "last_number": 0, "open_threads": [], "waiting_threads": []}

    def answer(request: httpx2.Request) -> httpx2.Response:
        limits[request.url.path] = request.extensions["timeout"]["read"]
        if request.url.host == "stalls":
            raise httpx2.ReadTimeout("nothing came")
        return httpx2.Response(
            200, content=orjson.dumps(view if "partitions" in request.url.path else page(range(0), 0, 7))
        )

    client = history(answer, "http://stalls", "http://answers")
    assert (await client.partition(0)).claims == ()
    await client.facts(THREAD, 0)
    assert limits["/internal/partitions/0"] <= 3.0 < limits[f"/internal/streams/{THREAD}/facts"]
