"""docker-compose.yml on a real engine: a chat in containers, which have no rights, come back, stop in order, and keep
what was said. Only where an engine answers; everything else that is promised of the files is tested in unit/deploy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.support.containers import Project, build_images, engine
from tests.support.sse import Frame, frames_of
from tests.support.system import eventually

_WHY_NOT = engine()
pytestmark = [
    pytest.mark.skipif(_WHY_NOT is not None, reason=_WHY_NOT or ""),
    pytest.mark.timeout(1200),
]
CHAT = "/api/v1/chat"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Two gateways, a dispatcher, a history, built and brought up; taken down with its volumes."""
    folder = tmp_path_factory.mktemp("containers")
    made = Project(folder / "project", build_images(folder))
    try:
        made.up(gateway=2)
        yield made
    finally:
        made.compose("down", "-v", "--timeout", "5", check=False)
        assert made.containers() == {}


def client(project: Project, gateway: int = 0) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        base_url=project.gateways()[gateway],
        headers={"Authorization": f"Bearer {project.secrets['PARLEY_API_KEY']}"},
        timeout=60.0,
        trust_env=False,
    )


async def new_thread(http: httpx2.AsyncClient) -> str:
    answer = await http.post(f"{CHAT}/threads", json={"agent_id": "scripted", "title": "A tour"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def say(http: httpx2.AsyncClient, thread: str, script: str) -> list[Frame]:
    """Every frame of the answer."""
    words: dict[str, Any] = {"json": {"content": script}, "headers": {"Accept": "text/event-stream"}}
    async with http.stream("POST", f"{CHAT}/threads/{thread}/messages", **words) as response:
        assert response.status_code == 200
        return [frame async for frame in frames_of(response)]


async def test_the_tour_of_the_readme_is_played_and_any_gateway_serves_the_rest(project: Project) -> None:
    async with client(project, 0) as one, client(project, 1) as other:
        thread = await new_thread(one)
        frames = await say(
            one, thread, '/think Two numbers.\n/tool calculator {"expression": "6*7"}\n/text The answer is 42.'
        )
        assert json.loads(next(f for f in frames if f.type == "tool.returned").data["tool_call"]["result"]) == {
            "result": 42
        }
        assert frames[-1].type == "run.completed"
        again = await say(other, thread, "/text Here, too.")
        assert again[-1].type == "run.completed" and again[0].data["seq"] > frames[-1].data["seq"]


async def test_the_line_that_greets_a_newcomer_works_with_the_shipped_agents(project: Project) -> None:
    async with client(project) as http:
        body = {
            "structure_id": project.secrets["PARLEY_WORKSPACE_ID"],
            "role_id": "assistant",
            "message": "Hello, who is there?",
        }
        async with http.stream("POST", "/api/org/chat/message", json=body) as response:
            assert response.status_code == 200
            assert len([frame async for frame in frames_of(response)]) > 2


def test_every_container_is_what_the_file_says(project: Project) -> None:
    containers = project.containers()
    assert len(containers) == 9
    for name, one in containers.items():
        host, service = one["HostConfig"], name.rpartition("-")[0]
        assert host["ReadonlyRootfs"] is True, name
        assert host["CapDrop"] == ["ALL"] and not host["CapAdd"] and host["Privileged"] is False, name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert int(one["Config"]["User"].split(":")[0]) > 0, name
        assert 0 < host["Memory"] <= 2**31 and host["PidsLimit"] > 0 and host["NanoCpus"] > 0, name
        if service in ("topics", "migrate", "seed"):
            assert (one["State"]["Status"], one["State"]["ExitCode"]) == ("exited", 0), name
        else:
            assert one["State"]["Health"]["Status"] == "healthy", name
    labels = containers["gateway-1"]["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "parley-gateway"


@pytest.mark.parametrize("service", ["gateway", "dispatcher", "history"])
def test_a_service_can_write_nowhere_but_to_its_data(project: Project, service: str) -> None:
    tried = "for at in / /opt/parley /opt/parley/lib /usr /etc /data /tmp; do touch $at/x 2>/dev/null && echo $at; done"
    written = project.compose("exec", "-T", service, "sh", "-c", f"{tried}; exit 0").split()
    assert written == (["/tmp"] if service == "history" else ["/data", "/tmp"])
    rights = project.compose("exec", "-T", service, "cat", "/proc/self/status")
    assert "CapEff:\t0000000000000000" in rights and "NoNewPrivs:\t1" in rights


def test_the_database_is_for_history_alone(project: Project) -> None:
    ask = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
    project.compose("exec", "-T", "history", "python", "-c", ask, "postgres", "5432")
    for service in ("gateway", "dispatcher"):
        project.compose("exec", "-T", service, "python", "-c", ask, "kafka", "9092")
        with pytest.raises(AssertionError, match="gaierror"):
            project.compose("exec", "-T", service, "python", "-c", ask, "postgres", "5432")


def test_the_command_reaches_the_gateway_and_administers(project: Project) -> None:
    made = json.loads(
        project.compose("run", "--rm", "-T", "parley", "keys", "create", "--user", "ann", "--scopes", "chat", "--json")
    )
    listed = project.compose("run", "--rm", "-T", "parley", "keys", "list")
    assert made["id"] in listed and made["key"] not in listed


async def test_a_run_goes_on_when_its_dispatcher_dies_and_the_container_comes_back(project: Project) -> None:
    async with client(project) as http:
        thread = await new_thread(http)
        running = asyncio.create_task(say(http, thread, "/stream 60 100"))
        seen = f"{CHAT}/threads/{thread}/events"

        async def has_begun() -> bool:
            answer = await http.get(seen, headers={"Accept": "application/json"})
            return "model.called" in answer.text

        await eventually(has_begun)
        await asyncio.to_thread(project.crash, "dispatcher-1")
        frames = await asyncio.wait_for(running, 90)
        assert frames[-1].type == "run.completed"
        assert {frame.data["attempt"] for frame in frames if frame.type == "model.called"} == {1, 2}

        async def is_back() -> bool:
            one = (await asyncio.to_thread(project.containers))["dispatcher-1"]
            return (one["RestartCount"], one["State"]["Health"]["Status"]) == (1, "healthy")

        await eventually(is_back, 60)


def test_no_secret_was_said_by_anybody(project: Project) -> None:
    said = project.compose("logs", "--no-color", limit_s=60)
    assert "Uvicorn running" in said
    for name, value in project.secrets.items():
        if name not in ("PARLEY_WORKSPACE_ID", "KAFKA_CLUSTER_ID"):
            assert value not in said, name


async def test_a_stop_is_clean_and_in_order_and_all_is_there_at_the_next_start(project: Project) -> None:
    async with client(project) as http:
        thread = await new_thread(http)
        await say(http, thread, "/text Remember me.")
    project.compose("stop")
    ended = {name: one["State"] for name, one in project.containers().items()}
    for service in ("gateway-1", "gateway-2", "dispatcher-1", "history-1", "postgres-1"):
        assert ended[service]["ExitCode"] == 0, service
    # The broker ends by the signal, once it has closed its files.
    assert ended["kafka-1"]["ExitCode"] in (0, 143)

    def order(*services: str) -> list[str]:
        return sorted(services, key=lambda name: str(ended[name]["FinishedAt"]))

    assert order("kafka-1", "history-1", "dispatcher-1", "gateway-2")[0] == "gateway-2"
    assert order("kafka-1", "history-1", "dispatcher-1") == ["dispatcher-1", "history-1", "kafka-1"]
    assert order("postgres-1", "history-1") == ["history-1", "postgres-1"]
    project.compose("down")
    assert project.containers() == {}
    project.up(gateway=1, dispatcher=2, history=2)
    async with client(project) as http:
        answer = await http.get(f"{CHAT}/threads/{thread}/messages")
        assert [item["content"] for item in answer.json()["items"]] == ["/text Remember me.", "Remember me."]
        assert (await say(http, thread, "/text Still here."))[-1].type == "run.completed"
