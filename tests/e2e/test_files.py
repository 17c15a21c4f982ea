"""Files and large contents, end to end on both kinds of system: in, read by an agent, saved, out; whole everywhere, and
small on the log."""

from __future__ import annotations

import base64
import json
import os
import stat
import uuid
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.pages import outputs
from tests.support.pdf import pdf
from tests.support.system import System, collect, eventually, new_thread
from tests.support.topics import read_topic

THREADS = "/api/v1/chat/threads"
ORG = "/api/org/chat"
LARGE = "\x01" * (1024 * 1024)
"""A message at the limit, of which every character takes six bytes in JSON."""
MOST_ON_THE_LOG = 20_000


def attachment(name: str, data: bytes, content_type: str | None = None) -> dict[str, Any]:
    return {"name": name, "content_base64": base64.b64encode(data).decode(), "content_type": content_type}


def node(system: System) -> dict[str, str]:
    return {"structure_id": system.ready()["workspace_id"], "role_id": "scripted"}


async def messages(client: httpx2.AsyncClient, thread: str) -> list[dict[str, Any]]:
    answer = await client.get(f"{THREADS}/{thread}/messages", params={"limit": "200"})
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def test_the_lines_of_the_page_give_what_it_says(standalone: System, tmp_path: Path) -> None:
    into, out, org = outputs(standalone, "files.md", tmp_path)
    answer = json.loads(into)
    assert (answer["run"]["status"], answer["message"]["content"]) == ("completed", "Read and saved.")
    assert out.count('"name":"report.md"') == 1 and out.count('"name":"plan.txt"') == 2
    assert "HTTP/1.1 200 OK" in out and "\n# Done" in out
    assert '"artifacts":["report.md"]' in org and org.rstrip().endswith("# Done")


async def test_a_file_goes_in_is_read_and_comes_out_of_a_thread(system: System) -> None:
    script = "\n".join(
        (
            "/tool list_attachments",
            '/tool read_attachment {"name": "plan.pdf"}',
            '/tool read_attachment {"name": "notes é.md"}',
            '/tool save_artifact {"name": "result.html", "content": "<b>ü</b>", "content_type": "text/html"}',
            "/text Saved it.",
            '/tool read_artifact {"name": "result.html"}',
            "/text Done.",
        )
    )
    files = [attachment("plan.pdf", pdf("Buy tea", "Boil water")), attachment("notes é.md", "# Größe".encode())]
    async with system.client() as client:
        thread = await new_thread(client)
        answer = await client.post(
            f"{THREADS}/{thread}/messages", params={"wait": "60"}, json={"content": script, "attachments": files}
        )
        assert answer.status_code == 200 and answer.json()["run"]["status"] == "completed", answer.text
        found = await messages(client, thread)
        assert [file["name"] for file in found[0]["attachments"]] == ["plan.pdf", "notes é.md"]
        results = [json.loads(item["content"]) for item in found if item["role"] == "tool" and item["content"]]
        by_name: dict[str, Any] = {result["name"]: result for result in results if "name" in result}
        assert {file["name"] for file in results[0]["attachments"]} == {"plan.pdf", "notes é.md"}
        [made] = [file for item in found if item["role"] == "tool" for file in item["attachments"]]
        assert (made["name"], made["size"]) == ("result.html", len("<b>ü</b>".encode())), "what the tool made"
        assert by_name["plan.pdf"]["text"] == "Buy tea\n\nBoil water" and by_name["plan.pdf"]["pages"] == 2
        assert by_name["notes é.md"]["text"] == "# Größe"
        assert by_name["result.html"]["text"] == "<b>ü</b>"

        listed = (await client.get(f"{THREADS}/{thread}/files")).json()
        assert {(file["name"], file["kind"]) for file in listed["items"]} == {
            ("plan.pdf", "attachment"),
            ("notes é.md", "attachment"),
            ("result.html", "artifact"),
        }
        out = await client.get(f"{THREADS}/{thread}/files/result.html")
        assert (out.status_code, out.text) == (200, "<b>ü</b>")
        assert out.headers["content-type"] == "text/html"
        assert out.headers["x-content-type-options"] == "nosniff"
        assert out.headers["content-disposition"].startswith('attachment; filename="result.html"')
        again = await client.get(f"{THREADS}/{thread}/files/notes é.md")
        assert again.content == "# Größe".encode()
        assert "filename*=UTF-8''notes%20%C3%A9.md" in again.headers["content-disposition"]
        assert (await client.get(f"{THREADS}/{thread}/files/none")).status_code == 404
        assert (await client.get(f"{THREADS}/{uuid.uuid4()}/files/plan.pdf")).status_code == 404


async def test_an_org_chat_names_what_was_saved_and_gives_it_out(system: System) -> None:
    name = f"config-{uuid.uuid4().hex[:8]}.json"
    script = "\n".join(
        (
            f'/tool read_attachment {{"name": "{name}.in"}}',
            f'/tool save_artifact {{"name": "{name}", "content": "[1]"}}',
            "/text once more ",
            f'/tool save_artifact {{"name": "{name}", "content_base64": "WzJd"}}',
            "/text Launched",
        )
    )
    body = {**node(system), "message": script, "attachments": [attachment(f"{name}.in", b"in")]}
    async with system.client() as client:
        frames = await collect(client, "POST", f"{ORG}/message", json=body)
        assert frames[-1].data["content"] == {"summary": "Launched", "artifacts": [name]}
        plain = {**node(system), "message": "/text nothing saved"}
        sync = (await client.post(f"{ORG}/message/sync", json=plain)).json()
        assert sync["artifacts"] == [], "those of this run, and no others"
        out = await client.get(f"{ORG}/artifacts/{name}", params=node(system))
        assert (out.status_code, out.headers["content-type"]) == (200, "application/json")
        assert out.json() == [2], "the newest of the name"
        listed = (await client.get(f"{ORG}/artifacts", params=node(system))).json()
        assert listed[0]["name"] == name and {"name", "size", "timestamp", "run_id"} <= set(listed[0])
        foreign = {**node(system), "structure_id": str(uuid.uuid4())}
        assert (await client.get(f"{ORG}/artifacts/{name}", params=foreign)).status_code == 404
        other = {**node(system), "role_id": "analyst"}
        assert (await client.get(f"{ORG}/artifacts/{name}", params=other)).status_code == 404


async def test_a_message_of_a_mebibyte_that_is_six_in_json_is_whole_everywhere(system: System) -> None:
    async with system.client(timeout_s=120) as client:
        thread = await new_thread(client)
        answer = await client.post(f"{THREADS}/{thread}/messages", params={"wait": "100"}, json={"content": LARGE})
        assert answer.status_code == 200, answer.text[:500]
        said = answer.json()["message"]["content"]
        assert said.startswith(f'You said: "{LARGE}" at '), "the answer has it, too"
        found = await messages(client, thread)
        assert found[0]["content"] == LARGE and found[-1]["content"] == said
        run = answer.json()["run"]["id"]
        frames = await collect(client, "GET", f"/api/v1/chat/runs/{run}/events")
        assert frames[0].data["content"] == LARGE
        assert "".join(frame.data["delta"] for frame in frames if frame.type == "text.delta") == said

        key = uuid.uuid4().hex
        body = {**node(system), "message": LARGE}
        streamed = await collect(client, "POST", f"{ORG}/message", json=body, headers={"Idempotency-Key": key})
        assert streamed[-1].type == "complete"
        assert LARGE in "".join(frame.data["content"] for frame in streamed if frame.type == "text")
        again = await client.post(f"{ORG}/message/sync", json=body, headers={"Idempotency-Key": key})
        assert again.headers["idempotency-replayed"] == "true"
        history = (await client.get(f"{ORG}/history", params={**node(system), "limit": "2"})).json()
        assert history[1]["content"] == LARGE
    await small_on_the_log(system, thread)


async def test_a_tool_result_of_three_mebibytes_is_kept_whole_and_shown_in_part(system: System) -> None:
    count = 3 * 1024 * 1024
    script = f'/tool repeat {{"text": "x", "times": {count}}}\n/show messages'
    async with system.client(timeout_s=120) as client:
        thread = await new_thread(client)
        frames = await collect(client, "POST", f"{THREADS}/{thread}/messages", json={"content": script})
        assert frames[-1].type == "run.completed"
        result = next(frame.data["tool_call"]["result"] for frame in frames if frame.type == "tool.returned")
        assert result == "x" * count
        shown = "".join(frame.data["delta"] for frame in frames if frame.type == "text.delta")
        assert f"these were 200000 of its {count} characters" in shown and shown.count("x") < 200_100
        found = await messages(client, thread)
        assert any(item["content"] == "x" * count for item in found)
    await small_on_the_log(system, thread, "tool.returned")


async def small_on_the_log(system: System, thread: str, only: str = "") -> None:
    """The records of this thread, or those of one type, are small: where the topics can be read from outside."""
    bootstrap = system.ready()["kafka"]
    if bootstrap is None:
        return
    for topic in ("parley.commands", "parley.events"):
        own = [record for record in await read_topic(bootstrap, topic) if record.key == thread.encode()]
        assert own
        sizes = {record.type: len(record.value or b"") for record in own if only in record.type}
        assert max(sizes.values(), default=0) < MOST_ON_THE_LOG, sizes


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"name": "../../etc/passwd"}, 400),
        ({"name": "/etc/passwd"}, 400),
        ({"name": "..\\..\\boot.ini"}, 400),
        ({"name": ".."}, 400),
        ({"name": "a\x00b"}, 400),
        ({"name": "invoice\u202efdp.exe"}, 400),
        ({"name": "x" * 256}, 400),
        ({"content_base64": ""}, 400),
        ({"content_base64": "not base64!"}, 400),
        ({"content_base64": base64.b64encode(bytes(26 * 1024 * 1024)).decode()}, 413),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else str(value),
)
async def test_bad_attachments_are_refused_and_nothing_is_written(
    standalone: System, changes: dict[str, str], status: int
) -> None:
    before = stored(standalone)
    file = {**attachment("a.txt", b"a"), **changes}
    async with standalone.client() as client:
        thread = await new_thread(client)
        answer = await client.post(f"{THREADS}/{thread}/messages", json={"content": "hi", "attachments": [file]})
        assert answer.status_code == status, answer.text[:300]
        assert set(answer.json()) - {"details"} == {"error", "message"}
        answer = await client.post(
            f"{ORG}/message/sync", json={**node(standalone), "message": "hi", "attachments": [file]}
        )
        assert answer.status_code == status, answer.text[:300]
        assert set(answer.json()["error"]) - {"details"} == {"code", "message"}
        assert await messages(client, thread) == []
    assert stored(standalone) == before


async def test_what_is_stored_is_closed_to_others(standalone: System) -> None:
    async with standalone.client() as client:
        thread = await new_thread(client)
        data = os.urandom(1000)
        sent = {"content": "", "attachments": [attachment("a.bin", data)]}
        answer = await client.post(f"{THREADS}/{thread}/messages", json=sent)
        assert answer.status_code == 202, answer.text

        async def downloaded() -> bool:
            out = await client.get(f"{THREADS}/{thread}/files/a.bin")
            return bool(out.content == data)

        await eventually(downloaded)
    folder = standalone.folder / "data" / "objects"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in stored(standalone)} == {0o600}
    assert any(path.read_bytes() == data for path in stored(standalone))


def stored(system: System) -> set[Path]:
    """Every object there is."""
    return {path for path in (system.folder / "data" / "objects").rglob("*") if path.is_file()}
