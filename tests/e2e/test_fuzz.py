"""Every OpenAPI document against a running Parley, by schemathesis: whatever is asked, nothing is a 500, and nothing is
answered that the document does not know. `make fuzz` asks more (COUNT=, SEED=)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from parley_gateway.administration import openapi as administration
from parley_gateway.dialects.org_chat import openapi as org_chat
from parley_gateway.dialects.team_chat import openapi as team_chat
from parley_gateway.dialects.threads import openapi as threads
from parley_gateway.openapi.contracts import CONTRACTS
from tests.support.system import System, start, stop

FOLDER = Path(__file__).parent / "fuzz"
ROOT = Path(__file__).parents[2]
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
COUNT = os.environ.get("FUZZ_COUNT", "5")
"""How many requests are made up for an operation, beside those that its document implies."""
SEED = os.environ.get("FUZZ_SEED", "1")
LIMIT_S = float(os.environ.get("FUZZ_LIMIT_S", "240"))
"""How long one document may take on a machine that is busy with other things; on a quiet one it takes seconds."""
AGAIN = "BelowApi$"
"""Operations that are others at a second address: `make fuzz` asks these, too."""
ALL = "FUZZ_COUNT" in os.environ
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)
NEVER_WELL = {
    "POST /api/v1/chat/runs/{run_id}/tools/{tool_call_id}": "no call here waits for its client",
    "POST /api/v1/chat/runs/{run_id}/tools/{tool_call_id}/settle": "no call here has an unknown outcome",
    "GET /api/v1/rejected/{rejected_id}": "nothing was set aside",
    "POST /api/v1/history/stopped/{record_id}/skip": "history stands still nowhere",
    "POST /api/v1/rejected/{rejected_id}/redrive": "nothing was set aside",
}
"""Operations that cannot succeed here, and why."""
SAVES = '/tool save_artifact {"name": "plan.md", "content": "# Plan"}'
PUBLISHES = '/tool publish {"text": "Hello"}'


@pytest.fixture(scope="module")
def parley(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A Parley of its own, since agents and keys come and go."""
    system = start("up", tmp_path_factory.mktemp("fuzz"))
    yield system
    assert stop(system) == 0


class Things(NamedTuple):
    """`real`: for each contract what there is in the place of its examples. `kept`: ids of what must stay."""

    real: dict[str, dict[str, str]]
    kept: list[str]


def things(system: System) -> Things:
    """One of each, made as clients make them; the fuzzer may delete them."""
    ready = system.ready()
    head = {"Authorization": f"Bearer {ready['admin_key']}"}
    with httpx2.Client(base_url=ready["base_url"], headers=head, timeout=60, trust_env=False) as client:

        def post(path: str, body: dict[str, Any], **params: str) -> Any:
            answer = client.post(path, json=body, params=params)
            assert answer.status_code < 300, answer.text
            return answer.json()

        listed = client.get("/api/v1/keys").json()["items"]
        keys = [key["id"] for key in listed if key["user"] == ready["user"]]
        chat = "/api/v3/organizations/default/ai/agents/assistant/chat"
        session = post(chat, {"message": "Hello!"})["sessionId"]
        run = post(f"/api/v1/chat/threads/{session}/messages", {"content": SAVES}, wait="")["run"]["id"]
        [*_, said] = client.get("/agents/assistant/history", params={"conversation_id": session}).json()["messages"]
        answer = said["id"]
        doomed = {
            f"DELETE {base}/agents/{{agent_id}}/conversations/{{conversation_id}}": post(
                "/agents/assistant/conversations", {}
            )["id"]
            for base in ("", "/api")
        }
        played = client.post("/teams/founders/chat", json={"message": "Hello!"}).headers["parley-run-id"]
        own = doomed | {
            f"GET {base}/teams/{{team_id}}/runs/{{run_id}}{of_it}": played
            for base in ("", "/api")
            for of_it in ("", "/events")
        }
        parked = post("/api/v1/chat/threads", {"agent_id": "scripted"})["id"]
        post(f"/api/v1/chat/threads/{parked}/messages", {"content": PUBLISHES}, wait="1")
        [approval, *_] = client.get("/api/v1/chat/approvals", params={"status": "open"}).json()["items"]
        document = post("/api/v1/knowledge", threads.ADDED)["id"]
        key = post("/api/v1/keys", {"user": "ann", "scopes": ["chat"]})["id"]
        structure = ready["workspace_id"]
        post("/api/org/chat/message/sync", {"structure_id": structure, "role_id": "assistant", "message": SAVES})
    chats = {threads.THREAD_ID: session, threads.RUN: run}
    node = {org_chat.STRUCTURE: structure, org_chat.ROLE: "assistant", "campaign-config.json": "plan.md"}
    real = {
        "threads": {**chats, threads.APPROVAL["id"]: approval["id"], threads.DOCUMENT["id"]: document},
        "org_chat": {**chats, **node},
        "org_agents": chats,
        "tool_chat": chats,
        "team_chat": {**chats, **own, team_chat.ANSWER: answer},
        "administration": {administration.ID: key},
    }
    return Things(real, [*keys, "assistant"])


@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.parametrize("name", list(CONTRACTS))
def test_nothing_is_a_500_and_nothing_is_answered_that_is_not_documented(
    parley: System, name: str, tmp_path: Path
) -> None:
    ready, given = parley.ready(), things(parley)
    tally = tmp_path / "tally.json"
    done = subprocess.run(
        [
            *(str(SCHEMATHESIS), "--config-file", str(FOLDER / "schemathesis.toml"), "run"),
            f"{ready['base_url']}/openapi/{name}.json",
            *("--header", f"Authorization: Bearer {ready['admin_key']}"),
            *("--checks", ",".join(CHECKS), "--max-examples", COUNT, "--seed", SEED),
            *(() if ALL else ("--exclude-operation-id-regex", AGAIN)),
            *("--phases", "examples,coverage,fuzzing,stateful", "--request-timeout", "30"),
            *("--continue-on-failure", "--no-color", "--warnings", "off"),
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": "tests.e2e.fuzz.hooks",
            "PARLEY_FUZZ_REAL": json.dumps(given.real[name]),
            "PARLEY_FUZZ_KEPT": json.dumps(given.kept),
            "PARLEY_FUZZ_TALLY": str(tally),
        },
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"([0-9]+) generated, \1 passed", done.stdout), done.stdout
    answers: dict[str, int] = json.loads(tally.read_text())
    well = {answer.rpartition(" ")[0] for answer in answers if answer.rpartition(" ")[2] < "3"}
    operations = {
        f"{operation.method} {operation.path}"
        for operation in CONTRACTS[name].operations
        if ALL or not re.search(AGAIN, operation.id)
    }
    assert operations - well <= set(NEVER_WELL), "each succeeds at least once, so that more than its door is tried"
    statuses = Counter[str]()
    for answer, count in answers.items():
        statuses[answer.rpartition(" ")[2]] += count
    assert not [status for status in statuses if status >= "5"], statuses
    print(f"{name}: {sum(answers.values())} requests, {dict(sorted(statuses.items()))}")
