"""A chat followed on one gateway is taken up on the other while it still runs, at many of its ids, in every contract.

Every follower joins in the middle, from an id that the first one was given a moment ago, and follows live to the end:
what it has then, with what came before its id, is what the one that never left has.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.contract.dialects.tongues import TONGUES
from tests.support.contracts import told, tongue_of
from tests.support.sse import Frame
from tests.support.system import System, collect, stream

SCRIPT = "\n".join(
    (
        "/think One moment. ",
        "/stream 60 20",
        '/tool echo {"n": 1}',
        "/stream 60 20 60",
        '/tool sleep {"ms": 300}',
        "/text caf\\u00e9 \\ud83d\\ude00 ",
        "/stream 60 20 120",
    )
)
TEXT = (
    "".join(f"{i:04d} " for i in range(120)) + "caf\u00e9 \U0001f600 " + "".join(f"{i:04d} " for i in range(120, 180))
)
EVERY = 4
"""A new follower joins at every so many-th frame."""


def thought_of(frames: list[Frame]) -> str:
    """What the agent thought, in the contracts that tell it."""
    pieces = (frame.data for frame in frames if frame.type in ("thought", "thought.delta"))
    return "".join(str(piece.get("content", piece.get("delta"))) for piece in pieces)


@pytest.mark.parametrize("name", sorted(TONGUES))
async def test_a_chat_is_taken_up_on_the_other_gateway_wherever_it_is(cluster: System, name: str) -> None:
    seen: list[Frame] = []
    joined: list[tuple[int, asyncio.Task[list[Frame]]]] = []
    async with cluster.client() as client, cluster.client(1) as second:
        tongue = await tongue_of(name, cluster, client)
        asked = tongue.message(SCRIPT)
        url, body = asked["path"], asked["body"]
        async with stream(client, "POST", url, json=body) as (response, frames):
            events = tongue.events(response.headers["Parley-Run-Id"])
            async for frame in frames:
                seen += told([frame])
                if len(seen) % EVERY == 0 and frame.type not in tongue.ends.values():
                    # In turn: the id of a moment ago, and one from some pieces ago, whose sequel lies behind already.
                    place = len(seen) if len(joined) % 2 else max(1, len(seen) - 8)
                    headers = {"Last-Event-ID": seen[place - 1].id or ""}
                    joined.append((place, asyncio.create_task(collect(second, "GET", events, headers=headers))))
        rests = [(place, told(await task)) for place, task in joined]
    assert seen[-1].type == tongue.ends["completed"]
    assert tongue.text(seen) == TEXT
    thought = thought_of(seen)
    assert thought == ("One moment. " if name in ("threads", "org_chat") else "")
    assert len(joined) >= 10, "too few followers joined to say anything"
    for place, rest in rests:
        together = seen[:place] + rest
        where = f"resumed at {seen[place - 1].id}"
        assert tongue.text(together) == TEXT, where
        assert thought_of(together) == thought, where
        assert tongue.facts(together) == tongue.facts(seen), where
        ids = [[frame.id for frame in frames if tongue.facts([frame])] for frames in (together, seen)]
        assert ids[0] == ids[1], where
    # Those that joined well within a text must have heard it go on, not only had it whole with the fact that ends it.
    within = [rest for place, rest in rests if not tongue.facts(seen[place : place + 16])]
    live = [rest for rest in within if not tongue.facts(rest[:3])]
    assert within and len(live) > len(within) / 2
