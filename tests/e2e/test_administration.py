"""`docs/administration.md`, run as it stands; what holds over restarts; keys and limits on two real gateways."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import httpx2
import yaml

from tests.support.pages import outputs
from tests.support.system import System, eventually, new_thread, start, stop
from tests.support.system import stream as open_stream

BASE = "/api/v1"
AGENT = {"id": "cook", "name": "Cook", "system_prompt": "You cook."}


def answers(text: str) -> list[Any]:
    """Every JSON value in a text, one after the other."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while (at := text.find("{", at)) >= 0:
        value, at = decoder.raw_decode(text, at)
        found.append(value)
    return found


def test_the_lines_of_the_page_give_what_it_says(standalone: System, tmp_path: Path) -> None:
    _, keys, rotated, few, agents, teams, gone, aside, still, once = outputs(
        standalone, "administration.md", tmp_path, "admin_key"
    )
    [listed] = answers(keys)
    assert [(key["user"], key["scopes"], key["rate_limit"]) for key in listed["items"]] == [
        ("ann", ["chat", "read"], "100/minute")
    ]
    [again] = answers(rotated)
    assert again["id"] == listed["items"][0]["id"] and again["key"].startswith("pk_")
    assert rotated.split("}")[-1].split() == ["401", "204"]
    assert re.findall(r"ratelimit-(\w+): (\d+)", few.lower()) == [
        ("limit", "1"), ("remaining", "0"), ("reset", few.lower().split("reset: ")[1].split()[0])
    ]  # fmt: skip
    assert re.search(r"retry-after: \d+", few.lower()) and '"code":"rate_limited"' in few
    made, changed, page, first, versions = answers(agents)
    assert (made["version"], made["tools"], made["limits"]["steps"]) == (1, ["clock", "calculator"], 10)
    assert changed == {**made, "description": "Knows what to do with everything.", "version": 2}
    assert changed in page["items"] and first == made
    assert [item["version"] for item in versions["items"]] == [2, 1]
    team, led, page, shown, versions = answers(teams)
    assert (team["members"], team["mode"], team["lead"]) == (["cook", "assistant"], "sequential", None)
    assert shown == led == {**team, "lead": "cook", "version": 2} and led in page["items"] and versions["total"] == 2
    assert gone.split() == ["409", "204", "204"]
    first, second = answers(once)
    assert first == second and once.lower().count("idempotency-replayed: true") == 1
    listed, *refused = answers(aside)
    assert "items" in listed and [one["error"]["code"] for one in refused] == ["not_found"] * 2
    stopped, refused_skip, skipped = answers(still)
    assert stopped == {"items": []} and skipped == {"items": [], "total": 0}
    assert refused_skip["error"]["code"] == "not_found"


async def test_what_was_changed_over_http_stands_after_a_restart_and_so_do_idempotency_keys(tmp_path: Path) -> None:
    """The file declares an agent, a second one with a skill, and a team: one is edited, the others are deleted."""
    (tmp_path / "skills" / "tea").mkdir(parents=True)
    (tmp_path / "skills" / "tea" / "SKILL.md").write_text("---\nname: Tea\ndescription: Hot.\n---\nBoil water.\n")
    declared: dict[str, Any] = {
        "agents": [
            {"id": "assistant", "name": "Assistant"},
            {"id": "skilled", "name": "Skilled", "skills": "skills"},
        ],
        "teams": [{"id": "pair", "name": "Pair", "members": ["assistant", "skilled"]}],
    }
    file = tmp_path / "agents.yaml"
    file.write_text(yaml.safe_dump(declared))
    posts: dict[str, dict[str, Any]] = {
        "/agents": AGENT,
        "/teams": {"name": "T", "members": ["assistant"]},
        "/keys": {"user": "ann", "scopes": ["read"]},
        "/workspaces": {"name": "acme"},
        "/chat/threads": {"title": "kept"},
    }

    async def post_all(client: httpx2.AsyncClient) -> dict[str, httpx2.Response]:
        headers = {"Idempotency-Key": "over restarts"}
        return {path: await client.post(BASE + path, json=body, headers=headers) for path, body in posts.items()}

    system = start("up", tmp_path / "run", AGENTS=str(file))
    try:
        async with system.client(key=system.ready()["admin_key"]) as client:
            first = await post_all(client)
            assert {answer.status_code for answer in first.values()} == {201}
            edit = await client.patch(f"{BASE}/agents/assistant", json={"system_prompt": "Edited."})
            assert edit.status_code == 200, edit.text
            for path in ("/teams/pair", "/agents/skilled"):
                assert (await client.delete(BASE + path)).status_code == 204
    finally:
        assert stop(system) == 0

    system = start("up", tmp_path / "run", AGENTS=str(file))
    try:
        async with system.client(key=system.ready()["admin_key"]) as client:
            agents = {agent["id"]: agent for agent in (await client.get(f"{BASE}/agents")).json()["items"]}
            assert set(agents) == {"assistant", "cook"}
            assert (agents["assistant"]["system_prompt"], agents["assistant"]["version"]) == ("Edited.", 2)
            assert (await client.get(f"{BASE}/teams/pair")).status_code == 404
            again = await post_all(client)
            assert {path: answer.text for path, answer in again.items()} == {
                path: answer.text for path, answer in first.items()
            }
            assert {answer.headers["idempotency-replayed"] for answer in again.values()} == {"true"}
        screen = (tmp_path / "run" / "screen.txt").read_text()
        assert "note: skilled: was deleted over the API" in screen and "note: pair: was deleted" in screen
    finally:
        assert stop(system) == 0

    declared["agents"][0]["description"] = "The file says something new."
    file.write_text(yaml.safe_dump(declared))
    system = start("up", tmp_path / "run", AGENTS=str(file))
    try:
        async with system.client() as client:
            agent = (await client.get(f"{BASE}/agents/assistant")).json()
            assert (agent["version"], agent["system_prompt"]) == (3, ""), "the file was changed: it counts"
            assert (await client.get(f"{BASE}/agents/skilled")).status_code == 404
    finally:
        assert stop(system) == 0


async def test_a_rotated_and_a_revoked_key_are_out_within_a_second_at_every_gateway(cluster: System) -> None:
    async with cluster.client(key=cluster.ready()["admin_key"]) as admin:
        made = (await admin.post(f"{BASE}/keys", json={"user": "ann", "scopes": ["*"]})).json()
        for act, path in (("POST", f"{BASE}/keys/{made['id']}/rotate"), ("DELETE", f"{BASE}/keys/{made['id']}")):
            async with cluster.client(0, made["key"]) as one, cluster.client(1, made["key"]) as two:
                clients = (one, two)

                async def let_in(client: httpx2.AsyncClient) -> bool:
                    return (await client.get(f"{BASE}/chat/threads")).status_code == 200

                for client in clients:
                    assert await eventually(lambda client=client: let_in(client))
                thread = await new_thread(two)
                async with open_stream(two, "GET", f"{BASE}/chat/threads/{thread}/events") as (_, frames):
                    assert (await anext(frames)).type == "thread.created"
                    done = await admin.request(act, path)
                    assert done.status_code in (200, 204)
                    before = time.monotonic()
                    for client in clients:
                        assert await eventually(lambda client=client: _refused(client), 5)
                    assert [frame.type async for frame in frames] == [], "its open stream ends"
                    assert time.monotonic() - before < 1.0
            if act == "POST":
                made["key"] = done.json()["key"]


async def _refused(client: httpx2.AsyncClient) -> bool:
    return (await client.get(f"{BASE}/chat/threads")).status_code == 401


async def test_two_gateways_hold_a_key_to_one_limit(cluster: System) -> None:
    """A client that hurries from one to the other may have one burst too many, and is then let in by neither."""
    async with cluster.client(key=cluster.ready()["admin_key"]) as admin:
        body = {"user": "ann", "scopes": ["*"], "rate_limit": "60/hour"}
        key = (await admin.post(f"{BASE}/keys", json=body)).json()["key"]
    async with cluster.client(0, key) as one, cluster.client(1, key) as two:
        clients = (one, two)
        for client in clients:
            # Until it has heard of the key: what is 401 is not counted.
            assert await eventually(lambda client=client: _left(client))
        for number in range(20):
            await _left(clients[number % 2])
        told = time.monotonic()
        for client in clients:

            async def knows(client: httpx2.AsyncClient = client) -> bool:
                return (await _left(client) or 0) < 60 - 22

            assert await eventually(knows, 5)
        assert time.monotonic() - told < 2.0
        statuses = [(await clients[number % 2].get(f"{BASE}/agents")).status_code for number in range(100)]
        assert set(statuses) == {200, 429}
        assert statuses[-20:] == [429] * 20, "none of them lets it in any more"
        for client in clients:
            refused = await client.get(f"{BASE}/chat/threads")
            assert refused.json()["error"] == "rate_limited" and 0 < int(refused.headers["retry-after"]) <= 3660


async def _left(client: httpx2.AsyncClient) -> int | None:
    """How often the key may still ask, as this gateway knows it; None while it does not let it in."""
    left = (await client.get(f"{BASE}/agents")).headers.get("ratelimit-remaining")
    return None if left is None else int(left)
