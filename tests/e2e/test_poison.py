"""A command that ends whatever dispatcher decides it: set aside after the third one, and everything else goes on."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from parley_events.body import Principal
from parley_events.clock import system_clock
from parley_events.codec import Command, encode_command
from parley_events.commands import MarkRead
from tests.support.runs import follow, post
from tests.support.sse import text_of
from tests.support.system import System, eventually, new_thread, start, stop
from tests.support.topics import Record, believed, claims, put, read_topic

pytestmark = pytest.mark.breaks

DEADLY = Path(__file__).parents[1] / "support" / "deadly"
LOOP_LIMIT_S = 3.0


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    system = start(
        "cluster",
        tmp_path_factory.mktemp("mortal"),
        RESTART="1",
        DISPATCHERS="2",
        PYTHONPATH=str(DEADLY),
        PARLEY_LOOP_LIMIT_S=str(LOOP_LIMIT_S),
    )
    yield system
    assert stop(system, 60.0) == 0


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("how", "up_to"), [("crash", 666), ("endless loop", 667)])
async def test_a_command_that_ends_three_dispatchers_is_set_aside(mortal: System, how: str, up_to: int) -> None:
    kafka = mortal.ready()["kafka"]
    async with mortal.client() as client:
        thread = await new_thread(client)
    ready = mortal.ready()
    body = MarkRead(principal=Principal(user_id=ready["user"]), up_to=up_to)
    command = Command(str(uuid.uuid4()), thread, ready["workspace_id"], system_clock(), body)
    record = encode_command(command, 8)
    before = len(claims(await read_topic(kafka, "parley.events", record.partition), record.partition))
    offset = await put(kafka, record.topic, record.partition, record.key, record.value, record.headers)

    async def set_aside() -> list[Record]:
        found = await read_topic(kafka, "parley.rejected", record.partition)
        return [one for one in found if one.head("rejected_offset") == str(offset)]

    [rejected] = await eventually(set_aside, 150.0)
    assert rejected.head("rejected_reason") == "poison" and rejected.value == record.value
    # The thread, and with it the partition, goes on.
    run = (await post(mortal, thread, "/text on we go", key=uuid.uuid4().hex))["run_id"]
    assert text_of(await follow(mortal, run)) == "on we go"
    log = believed(await read_topic(kafka, "parley.events", record.partition))
    [outcome] = [fact for fact in log if fact.head("ce_causationid") == command.id]
    assert (outcome.type, outcome.body["code"]) == ("command.rejected", "poison")
    tried = [fact for fact in log if fact.type == "command.tried" and fact.head("ce_commandoffset") == str(offset)]
    assert [fact.body["attempt"] for fact in tried] == [1, 2]
    ours = claims(await read_topic(kafka, "parley.events", record.partition), record.partition)[before:]
    named = [claim.body["attempt"] for claim in ours if claim.body["first_unfinished"] == offset]
    assert named[0] == 1 and named[-1] == 3, "each claim says how often it was begun"
    if how == "endless loop":
        logs = "".join(path.read_text() for path in (mortal.folder / "data" / "logs").glob("dispatcher*"))
        assert "the event loop has not turned" in logs and "_deadly" in logs
