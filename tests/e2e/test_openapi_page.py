"""`docs/openapi.md`, run as it stands, and held to what is served."""

from __future__ import annotations

import json
import re
from pathlib import Path

from parley_gateway.openapi.contracts import CONTRACTS
from tests.support.pages import DOCS, outputs
from tests.support.system import System

PAGE = DOCS / "openapi.md"


def test_the_lines_of_the_page_give_what_it_says(standalone: System, tmp_path: Path) -> None:
    said, made = outputs(standalone, "openapi.md", tmp_path)
    listed = json.loads((tmp_path / "lines" / "list.json").read_text())["contracts"]
    assert [found["name"] for found in listed] == list(CONTRACTS)
    assert re.search(r"^404 .*`not_found`", said, re.MULTILINE) and re.search(r"^202 ", said, re.MULTILINE)
    assert json.loads(made)["title"] == "Leads"


async def test_everything_that_the_page_names_is_served(standalone: System) -> None:
    text = PAGE.read_text()
    documents, pages = set(re.findall(r"`(/openapi/\S+)`", text)), set(re.findall(r"`(/docs/\S+)`", text))
    assert documents == {f"/openapi/{name}.json" for name in CONTRACTS}
    assert pages == {f"/docs/{name}" for name in CONTRACTS}
    async with standalone.client() as client:
        del client.headers["Authorization"]
        for path in (*documents, *pages, "/openapi", "/docs"):
            answer = await client.get(path)
            assert answer.status_code == 200, path
            assert "script" not in answer.headers["content-security-policy"]
