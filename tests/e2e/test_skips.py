"""A record on `parley.events` that nobody can read: its partition of the view stands still, everything else goes on,
and an administrator has it skipped."""

from __future__ import annotations

import json
import re

from parley_events.partition import partition_of
from tests.e2e.test_rejected import parley
from tests.support.runs import check_run, follow, post
from tests.support.system import System, eventually, new_thread
from tests.support.topics import put


async def test_a_record_that_cannot_be_read_is_skipped_by_hand_and_the_view_goes_on(breakable: System) -> None:
    ready = breakable.ready()
    async with breakable.client() as client:
        thread = await new_thread(client)
        partition = partition_of(thread.encode(), 8)
        other = thread
        while partition_of(other.encode(), 8) == partition:
            other = await new_thread(client)
        before = await post(breakable, thread, "/text before")
        await check_run(breakable, before["run_id"], await follow(breakable, before["run_id"]), "before")

        heads = [("ce_epoch", b"-1")]
        offset = await put(ready["kafka"], "parley.events", partition, thread.encode(), b"\x00\xff no fact", heads)
        name = f"{partition}-{offset}"
        after = await post(breakable, thread, "/text after")
        beside = await post(breakable, other, "/text beside")
        await check_run(breakable, beside["run_id"], await follow(breakable, beside["run_id"]), "beside")

        async def stopped() -> bool:
            status, said = await parley(breakable, "history", "stopped", "--json")
            return status == 0 and [item["id"] for item in json.loads(said)] == [name]

        await eventually(stopped, 30.0)
        path = f"/api/v1/chat/threads/{thread}/messages"
        late = await client.get(path, params={"min_position": after["position"]})
        assert (late.status_code, late.json()["error"]) == (503, "behind")
        status, said = await parley(breakable, "history", "stopped")
        assert status == 0 and name in said and "not a fact" in said

        # Nothing else can be skipped, and not without a reason.
        status, said = await parley(breakable, "history", "skip", f"{partition}-{offset + 1}", "--reason", "x")
        assert status == 1 and "404" in said
        status, said = await parley(breakable, "history", "skip", name)
        assert status == 2 and "--reason" in said

        status, said = await parley(breakable, "history", "skip", name, "--reason", "put there by a test")
        assert status == 0 and f"{name} is skipped" in said

        async def goes_on() -> bool:
            return (await client.get(path, params={"min_position": after["position"]})).status_code == 200

        await eventually(goes_on, 30.0)
        await check_run(breakable, after["run_id"], await follow(breakable, after["run_id"]), "after")
        status, said = await parley(breakable, "history", "stopped")
        assert (status, said) == (0, "")
        status, said = await parley(breakable, "history", "skipped")
        assert status == 0 and re.search(rf"^{name} .*put there by a test$", said, re.MULTILINE)
        texts = [item["content"] for item in (await client.get(path)).json()["items"]]
        assert texts == ["/text before", "before", "/text after", "after"]
