"""The contract `tool_chat`, end to end on both kinds of system."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from tests.support.pages import outputs
from tests.support.system import System, collect

CHAT = "/api/agents/scripted/chat"


def test_the_lines_of_the_page_give_what_it_says(standalone: System, tmp_path: Path) -> None:
    said, stream, client, read, cleared = outputs(standalone, "tool-chat.md", tmp_path)
    first, second = map(json.loads, said.replace("}{", "}\n{").split("\n"))
    assert (first["content"], second["content"]) == ("Hi there!", "On it.")
    assert first["conversation_id"] == second["conversation_id"]
    assert stream.count('"type":"start"') == 1 and stream.count('"type":"done"') == 2
    assert '"name":"get_weather"' in client and "It is clear." in client
    assert '"role":"system"' in read and "customer_id" in read and '"source":"web"' in read
    assert '"deleted":5' in cleared and '"total":0' in cleared


async def test_a_conversation_is_read_in_pages_by_ids_that_rise(system: System) -> None:
    marker = uuid.uuid4().hex
    async with system.client() as client, system.client(-1) as other:
        made: dict[str, Any] = {}
        answers = []
        for n in range(3):
            body = {"message": f"/text {marker} {n}", **made}
            answer = (await (client, other)[n % 2].post(CHAT, json=body)).json()
            made = {"conversation_id": answer["conversation_id"]}
            answers.append(answer)
            assert answer["content"] == answer["response"] == f"{marker} {n}"
        page = (await client.get(CHAT, params=made)).json()
        numbers = [row["id"] for row in page["messages"]]
        assert numbers == sorted(set(numbers)) and all(0 < number < 2**53 for number in numbers)
        assert numbers[1::2] == [answer["id"] for answer in answers]
        assert page["meta"] == {"total": 6, "has_more": False}
        found: list[int] = []
        cursor: dict[str, Any] = {}
        while True:
            page = (await other.get(CHAT, params={**made, **cursor, "limit": 2})).json()
            found = [row["id"] for row in page["messages"]] + found
            cursor = {"before": found[0]}
            if not page["meta"]["has_more"]:
                break
        assert found == numbers
        frames = await collect(client, "POST", CHAT, json={"message": "/stream 5 10", "stream": True, **made})
        assert frames[0].data == {"type": "start", "id": frames[-1].data["message"]["id"]}
        text = "".join(frame.data["content"] for frame in frames if frame.type == "delta")
        assert frames[-1].data["message"]["content"] == text
        cleared = await other.request("DELETE", CHAT, params=made)
        assert cleared.json() == {"success": True, "deleted": 8}
        assert (await other.get(CHAT, params=made)).json()["meta"]["total"] == 0
