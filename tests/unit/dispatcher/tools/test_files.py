"""The shelf's tools: what people attached is read, what agents make is kept, and bad input is told to the model."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from parley_dispatcher.errors import ToolError
from parley_dispatcher.tools import TOOLS, files
from parley_dispatcher.tools.base import Call, Result
from parley_events.body import Attachment
from parley_events.objects import Objects
from tests.support.pdf import pdf
from tests.unit.dispatcher.tools.test_everyday import call_of
from tests.unit.dispatcher.world import WORKSPACE


class Shelf:
    """A thread's shelf, and calls of tools that stand before it."""

    def __init__(self, folder: Path) -> None:
        self.attachments: dict[str, Attachment] = {}
        self.artifacts: dict[str, Attachment] = {}
        self.call: Call = replace(
            call_of(folder), workspace_id=WORKSPACE, attachments=self.attachments, artifacts=self.artifacts
        )

    async def attach(self, name: str, data: bytes, content_type: str = "application/octet-stream") -> None:
        sha256 = await self.call.objects.put(WORKSPACE, data)
        self.attachments[name] = Attachment(name=name, content_type=content_type, size=len(data), sha256=sha256)

    async def use(self, name: str, /, **arguments: Any) -> Result:
        return await TOOLS[name].run(self.call, TOOLS[name].arguments.model_validate(arguments))

    async def read(self, name: str) -> Any:
        return json.loads((await self.use("read_attachment", name=name)).text)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


async def test_attachments_are_listed_and_texts_are_read(shelf: Shelf) -> None:
    assert json.loads((await shelf.use("list_attachments")).text) == {"attachments": []}
    await shelf.attach("a.md", "# Größe\n".encode(), "text/markdown")
    await shelf.attach("b.csv", "\ufeffä;b".encode("utf-16"), "text/csv")
    await shelf.attach("c", b"\xef\xbb\xbf{}")
    assert [file["name"] for file in json.loads((await shelf.use("list_attachments")).text)["attachments"]] == [
        *("a.md", "b.csv", "c")
    ]
    assert await shelf.read("a.md") == {
        "name": "a.md",
        "content_type": "text/markdown",
        "size": 10,
        "text": "# Größe\n",
    }
    assert (await shelf.read("b.csv"))["text"].lstrip("\ufeff") == "ä;b"
    assert (await shelf.read("c"))["text"] == "{}"


async def test_what_is_no_text_is_given_in_base64_and_no_more_than_is_of_use(shelf: Shelf) -> None:
    data = b"\x89PNG" + bytes(range(256))
    await shelf.attach("a.png", data, "image/png")
    assert base64.b64decode((await shelf.read("a.png"))["content_base64"]) == data
    large = os.urandom(files.MAX_DATA_BYTES + 1)
    await shelf.attach("b.bin", large)
    found = await shelf.read("b.bin")
    assert found["truncated"] and found["size"] == len(large)
    assert base64.b64decode(found["content_base64"]) == large[:-1]


async def test_a_long_text_is_cut_and_says_so(shelf: Shelf) -> None:
    await shelf.attach("a.txt", ("é" * 300_000).encode(), "text/plain")
    found = await shelf.read("a.txt")
    assert found["truncated"] and found["characters"] == 300_000 and 150_000 < len(found["text"]) < 200_000


async def test_the_text_of_a_pdf_is_read_page_after_page(shelf: Shelf) -> None:
    await shelf.attach("plan", pdf("Buy tea", "Boil water"), "application/pdf")
    found = await shelf.read("plan")
    assert (found["text"], found["pages"], "truncated" in found) == ("Buy tea\n\nBoil water", 2, False)


@pytest.mark.parametrize("data", [b"%PDF-", b"%PDF-1.7\n" + b"garbage" * 100, pdf("x")[:200], b"%PDF-1.4\n%%EOF"])
async def test_a_broken_pdf_is_an_error_for_the_model(shelf: Shelf, data: bytes) -> None:
    await shelf.attach("a.pdf", data, "application/pdf")
    with pytest.raises(ToolError, match=r"The PDF cannot be read"):
        await shelf.read("a.pdf")


async def test_what_is_saved_travels_in_the_calls_own_fact_and_is_read_again(shelf: Shelf) -> None:
    result = await shelf.use("save_artifact", name="re\u0301sume.md", content="# é")
    (file,) = result.files
    assert (file.name, file.content_type, file.size) == ("résume.md", "text/markdown", 4)
    assert await shelf.call.objects.get(WORKSPACE, file.sha256) == "# é".encode()
    again = await shelf.use("save_artifact", name="re\u0301sume.md", content="# é")
    assert again.files == result.files, "a second call does nothing more"
    with pytest.raises(ToolError, match="none was saved"):
        await shelf.use("read_artifact", name="résume.md")
    shelf.artifacts[file.name] = file
    assert json.loads((await shelf.use("read_artifact", name="résume.md")).text)["text"] == "# é"
    with pytest.raises(ToolError, match=r"there are: résume\.md"):
        await shelf.use("read_artifact", name="other")


async def test_bytes_are_saved_from_base64_with_the_type_that_is_given(shelf: Shelf) -> None:
    data = bytes(range(256))
    text = base64.encodebytes(data).decode()
    (file,) = (await shelf.use("save_artifact", name="x", content_base64=text, content_type="Image/PNG")).files
    assert (file.content_type, await shelf.call.objects.get(WORKSPACE, file.sha256)) == ("image/png", data)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "../x", "content": "a"}, "no path"),
        ({"name": "a\nb", "content": "a"}, "control characters"),
        ({"name": "a"}, "either"),
        ({"name": "a", "content": "a", "content_base64": "YQ=="}, "either"),
        ({"name": "a", "content": ""}, "empty"),
        ({"name": "a", "content_base64": "YQ"}, "not base64"),
        ({"name": "a", "content_base64": "é"}, "not base64"),
        ({"name": "a", "content": "a", "content_type": "nonsense"}, "media type"),
    ],
)
async def test_what_cannot_be_saved_is_told_to_the_model(shelf: Shelf, arguments: dict[str, str], says: str) -> None:
    with pytest.raises(ToolError, match=says):
        await shelf.use("save_artifact", **arguments)


async def test_a_file_that_is_too_large_is_not_saved(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_ARTIFACT_BYTES", 3)
    with pytest.raises(ToolError, match="3 are the most"):
        await shelf.use("save_artifact", name="a", content="four")


async def test_what_is_not_there_says_what_is(shelf: Shelf) -> None:
    for name in ("a", "../a", "/etc/passwd"):
        with pytest.raises(ToolError):
            await shelf.use("read_attachment", name=name)
    shelf.attachments["gone"] = Attachment(name="gone", content_type="a/b", size=1, sha256="0" * 64)
    with pytest.raises(ToolError, match="not in the object store"):
        await shelf.use("read_attachment", name="gone")
    with pytest.raises(ValidationError):
        await shelf.use("read_attachment", name="x" * 1001)


async def test_of_large_files_only_so_many_are_in_memory_at_once(shelf: Shelf) -> None:
    await shelf.attach("large.txt", b"x" * (files.LARGE_BYTES + 1))
    counted = Counted(shelf.call.objects)
    shelf.call = replace(shelf.call, objects=counted)
    async with asyncio.timeout(20):
        await asyncio.gather(*(shelf.read("large.txt") for _ in range(3 * files.LARGE_AT_ONCE)))
    assert (counted.most, counted.now) == (files.LARGE_AT_ONCE, 0)


class Counted:
    """Objects, and how many are being fetched."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.now = self.most = 0

    async def put(self, workspace_id: str, data: bytes) -> str:
        return await self._objects.put(workspace_id, data)

    async def get(self, workspace_id: str, sha256: str) -> bytes:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self._objects.get(workspace_id, sha256)
        finally:
            self.now -= 1
