"""docs/scripted-model.md: every example on the page gives what stands below it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from parley_dispatcher.providers.script import turns_of
from tests.unit.dispatcher.providers.test_scripted import Heard, hear

PAGE = Path(__file__).parents[4] / "docs" / "scripted-model.md"
EXAMPLES = re.findall(r"```script\n(.*?)\n```\n\n```gives\n(.*?)\n```", PAGE.read_text(), re.DOTALL)
NOW = '{"now": "2026-01-02T03:04:05.678Z"}'


async def play(script: str) -> list[str]:
    """The lines that the page writes below this script."""
    lines: list[str] = []
    messages: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": script}]}]
    turns = len(turns_of(script) or [1, 2])
    for turn in range(turns):
        heard = Heard()
        for attempt in range(1, 10):
            heard = await hear(script, turn, attempt, messages=messages)
            place = f"turn {turn + 1}, attempt {attempt}" if "/error" in script else f"turn {turn + 1}"
            shown = "/show" in script and turn == turns - 1
            for kind, block in heard.blocks:
                if shown:
                    assert json.loads(block) == messages
                    lines.append(f"{place}: text of what it was shown")
                elif kind == "tool":
                    lines.append(f"{place}: tool {block[1]} {json.dumps(block[2], ensure_ascii=False)}")
                else:
                    lines.append(f"{place}: {kind} {json.dumps(block, ensure_ascii=False)}")
            assert heard.usage is not None
            tokens = f"{heard.usage.input_tokens} in, {heard.usage.output_tokens} out"
            end = heard.stop_reason if heard.error is None else f"fails with {heard.error.kind}"
            lines.append(f"{place}: {end}" + ("" if shown else f", {tokens}"))
            if heard.error is None:
                break
        results = [{"type": "tool_result", "content": NOW} for kind, _ in heard.blocks if kind == "tool"]
        messages += [{"role": "assistant", "content": []}, {"role": "user", "content": results}]
    return lines


@pytest.mark.parametrize(("script", "gives"), EXAMPLES, ids=[script.splitlines()[0] for script, _ in EXAMPLES])
async def test_an_example_gives_what_the_page_says(script: str, gives: str) -> None:
    assert await play(script) == gives.split("\n")


def test_no_example_is_left_out() -> None:
    assert len(EXAMPLES) == PAGE.read_text().count("```script") == PAGE.read_text().count("```gives") > 8


def test_every_directive_is_in_the_table_and_in_an_example() -> None:
    table = "".join(line for line in PAGE.read_text().splitlines() if line.startswith("| `/"))
    scripts = "\n".join(script for script, _ in EXAMPLES)
    for name in ("think", "text", "stream", "tool", "wait", "usage", "stop", "error", "show"):
        assert f"`/{name} " in table
        assert re.search(rf"^/{name} ", scripts, re.MULTILINE)
