"""`docs/tools.md` lists the built-in tools as they are, and its limits are the code's."""

from __future__ import annotations

import re
from pathlib import Path

from parley_dispatcher.answers import MAX_RESULT_CHARS
from parley_dispatcher.tools import TOOLS, mcp, mcp_http, remote

PAGE = (Path(__file__).parents[2] / "docs" / "tools.md").read_text()


def test_the_page_lists_every_built_in_tool_with_its_effect_and_no_other() -> None:
    [shown] = re.findall(r"<!-- tools -->\n(.*?)<!-- /tools -->", PAGE, re.DOTALL)
    head = "| tool | effect | what it does |\n|---|---|---|\n"
    rows = [f"| `{tool.name}` | {tool.effect} | {tool.description} |\n" for tool in TOOLS.values()]
    assert shown == head + "".join(rows)


def test_the_page_says_the_limits_of_the_code() -> None:
    for said in (
        f"{remote.MAX_SCHEMA_BYTES // 1024} KiB",
        f"deeper than {remote.MAX_SCHEMA_DEPTH} levels",
        f"cut at {remote.MAX_DESCRIPTION_CHARS} characters",
        f"at most {remote.MAX_FILES} files and {mcp_http.MAX_FILES_BYTES // 1024 // 1024} MiB",
        f"One answer has at most {mcp_http.MAX_ANSWER_BYTES // 1024 // 1024} MiB.",
        f"list at {mcp.MAX_TOOLS} tools",
        f"A result may have {MAX_RESULT_CHARS:,} characters",
        f'_meta["{remote.EFFECT_KEY}"]',
    ):
        assert said in " ".join(PAGE.split()), said
