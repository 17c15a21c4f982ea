"""Skills on both kinds of system: learned in one chat and found in a later one, given by a folder, kept over a restart,
and nobody else's."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import httpx2

from tests.support.system import System, collect, new_thread, start, stop

MESSAGES = "/api/v1/chat/threads/{}/messages"
AGENTS = """\
agents:
  - {id: scripted, name: Scripted, tools: ["*"], skills: skills/scripted}
  - {id: other, name: Other, tools: ["*"]}
"""
BOAT = "---\nname: Folding a boat\ndescription: From one sheet of paper.\n---\n\nFirst a crease."


async def call(client: httpx2.AsyncClient, tool: str, agent: str = "scripted", **arguments: Any) -> str:
    """The result of one call of a tool, in a thread of its own."""
    thread = await new_thread(client, agent)
    script = f"/tool {tool} {json.dumps(arguments)}\n/text done"
    frames = await collect(client, "POST", MESSAGES.format(thread), json={"content": script})
    [result] = [frame.data["tool_call"]["result"] for frame in frames if frame.type == "tool.returned"]
    return str(result)


async def found(client: httpx2.AsyncClient, query: str, agent: str = "scripted") -> list[str]:
    """The slugs that `list_skills` shows in a new chat."""
    return [skill["slug"] for skill in json.loads(await call(client, "list_skills", agent, query=query))["skills"]]


async def another_workspace(system: System) -> str:
    """A key of a workspace made just now."""
    async with system.client(key=system.ready()["admin_key"]) as admin:
        made = await admin.post("/api/v1/workspaces", json={"name": f"w {uuid.uuid4().hex[:8]}"})
        assert made.status_code == 201, made.text
        wanted = {"workspace": made.json()["id"], "user": "bob", "scopes": ["*"]}
        key = await admin.post("/api/v1/keys", json=wanted)
        assert key.status_code == 201, key.text
        return str(key.json()["key"])


async def test_a_skill_is_found_in_a_later_chat_and_only_by_its_own_agent(system: System) -> None:
    word = f"w{uuid.uuid4().hex[:10]}"
    async with system.client() as client:
        learned = await call(
            client,
            "learn_skill",
            slug=word,
            name="Brewing tea",
            description=f"When a guest likes {word}.",
            body="Boil.",
        )
        assert json.loads(learned)["slug"] == word
        listed = json.loads(await call(client, "list_skills", query=f"how is {word} made"))["skills"]
        assert listed[0] == {"slug": word, "name": "Brewing tea", "description": f"When a guest likes {word}."}
        assert (await call(client, "read_skill", slug=word)).endswith("\n---\n\nBoil.")
        assert await found(client, word, "researcher") == []
        assert "there is no skill" in await call(client, "read_skill", "researcher", slug=word)
    async with system.client(key=await another_workspace(system)) as stranger:
        assert await found(stranger, word) == []
        assert "there is no skill" in await call(stranger, "read_skill", slug=word)


async def test_a_folders_skills_are_there_from_the_start_and_the_newest_version_counts(tmp_path: Path) -> None:
    file = tmp_path / "agents.yaml"
    boat = tmp_path / "skills/scripted/fold-boat.md"
    boat.parent.mkdir(parents=True)
    boat.write_text(BOAT)
    file.write_text(AGENTS)

    def up() -> System:
        return start("up", tmp_path, AGENTS=str(file))

    async def boat_skill(client: httpx2.AsyncClient) -> str:
        """The last line of the skill as it stands."""
        return (await call(client, "read_skill", slug="fold-boat")).rpartition("\n")[2]

    system = up()
    async with system.client() as client:
        assert await found(client, "paper boat") == ["fold-boat"]
        assert await found(client, "paper boat", "other") == []
        assert await boat_skill(client) == "First a crease."
        await call(client, "learn_skill", slug="fold-boat", name="Folding a boat", body="Start with a hat.")
        assert await boat_skill(client) == "Start with a hat."
    assert stop(system) == 0

    system = up()
    async with system.client() as client:
        assert await boat_skill(client) == "Start with a hat.", "the same file undoes nothing"
    assert stop(system) == 0

    boat.write_text(BOAT.replace("a crease", "two creases"))
    system = up()
    async with system.client() as client:
        assert await boat_skill(client) == "First two creases.", "a changed file is the newest version"
        assert await found(client, "") == ["fold-boat"]
    assert stop(system) == 0
