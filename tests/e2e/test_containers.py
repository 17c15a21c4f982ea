"""docker-compose.yml on a real engine: a chat in containers, which have no rights, come back, stop in order, and keep
what was said. Only where an engine answers; everything else that is promised of the files is tested in unit/deploy."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.containers import DOCKER, TAG, Project, build_images, docker, engine
from tests.support.pdf import pdf
from tests.support.sse import Frame, frames_of
from tests.support.system import eventually
from tests.support.terminal import Tty

_WHY_NOT = engine()
pytestmark = [
    pytest.mark.skipif(_WHY_NOT is not None, reason=_WHY_NOT or ""),
    pytest.mark.timeout(1200),
]
CHAT = "/api/v1/chat"
COLLECTOR = """
import http.server, re
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        print(self.path, *{name.decode() for name in re.findall(rb"parley-[a-z]+", body)}, flush=True)
        self.send_response(200)
        self.end_headers()
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(("", 4318), Handler).serve_forever()
"""
"""Says who sent it which signal."""


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


async def new_thread(http: httpx2.AsyncClient, agent: str = "scripted") -> str:
    answer = await http.post(f"{CHAT}/threads", json={"agent_id": agent, "title": "A tour"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def say(
    http: httpx2.AsyncClient, thread: str, script: str, files: Mapping[str, bytes] | None = None
) -> list[Frame]:
    """Every frame of the answer."""
    body: dict[str, Any] = {"content": script}
    if files:
        body["attachments"] = [
            {"name": name, "content_base64": base64.b64encode(data).decode()} for name, data in files.items()
        ]
    words: dict[str, Any] = {"json": body, "headers": {"Accept": "text/event-stream"}}
    async with http.stream("POST", f"{CHAT}/threads/{thread}/messages", **words) as response:
        assert response.status_code == 200
        return [frame async for frame in frames_of(response)]


async def found(http: httpx2.AsyncClient, path: str) -> httpx2.Response | None:
    """What lies there, once it does: another gateway's reads may be a moment behind."""
    answer = await http.get(path)
    return answer if answer.status_code == 200 else None


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


async def test_a_file_is_read_by_the_dispatcher_and_what_it_saves_comes_out_of_any_gateway(project: Project) -> None:
    script = "\n".join(
        (
            '/tool read_attachment {"name": "plan.pdf"}',
            '/tool save_artifact {"name": "result.html", "content": "<b>ü</b>"}',
            "/text Saved.",
        )
    )
    data = os.urandom(1024 * 1024)
    async with client(project, 0) as one, client(project, 1) as other:
        thread = await new_thread(one)
        frames = await say(one, thread, script, {"plan.pdf": pdf("Buy tea", "Boil water"), "data.bin": data})
        calls = [frame.data["tool_call"] for frame in frames if frame.type == "tool.returned"]
        results = {call["name"]: json.loads(call["result"]) for call in calls}
        read = results["read_attachment"]
        assert (read["text"], read["pages"]) == ("Buy tea\n\nBoil water", 2)
        for name, wanted in (("result.html", "<b>ü</b>".encode()), ("data.bin", data)):
            answer = await eventually(lambda at=f"{CHAT}/threads/{thread}/files/{name}": found(other, at))
            assert answer.content == wanted


async def test_a_message_of_a_mebibyte_is_whole_everywhere_and_not_on_the_log(project: Project) -> None:
    large = "\x01" * (1024 * 1024)
    before = _objects(project)
    async with client(project, 0) as one, client(project, 1) as other:
        thread = await new_thread(one)
        frames = await say(one, thread, large)
        assert frames[-1].type == "run.completed"

        async def kept() -> str | None:
            items = (await other.get(f"{CHAT}/threads/{thread}/messages")).json()["items"]
            return str(items[0]["content"]) if items else None

        # History fetches it from the volume that it may only read.
        assert (await eventually(kept)) == large
        assert _objects(project) > before


def _objects(project: Project) -> int:
    found = project.compose("exec", "-T", "history", "sh", "-c", "find /data/objects -type f -size +1024k | wc -l")
    return int(found)


def test_every_container_is_what_the_file_says(project: Project) -> None:
    containers = project.containers()
    assert len(containers) == 9
    for name, one in containers.items():
        host, service = one["HostConfig"], name.rpartition("-")[0]
        assert host["ReadonlyRootfs"] is True, name
        assert host["CapDrop"] == ["ALL"] and not host["CapAdd"] and host["Privileged"] is False, name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert int(one["Config"]["User"].split(":")[0]) > 0, name
        assert 0 < host["Memory"] <= 3 * 2**30 and host["PidsLimit"] > 0 and host["NanoCpus"] > 0, name
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


def test_the_command_chats_with_a_file_of_this_machine(project: Project, tmp_path: Path) -> None:
    plan = tmp_path / "plan.txt"
    plan.write_text("Buy tea.")
    plan.chmod(0o644)
    script = '/tool read_attachment {"name": "plan.txt"}\n/text Read it.'
    words = ["chat", "--agent", "scripted", "--attach", "plan.txt", "--json", script]
    said = project.compose("run", "--rm", "-T", "-v", f"{plan}:/data/plan.txt:ro", "parley", *words)
    assert "Buy tea." in said and "run.completed" in said


async def test_a_person_chats_on_a_terminal_of_a_container(project: Project) -> None:
    words = project.words("run", "--rm", "parley", "chat", "--agent", "scripted")
    tty = Tty([DOCKER, *words], {**os.environ, **project.env})
    try:
        await tty.until(lambda text: text.rstrip().endswith("scripted ›"))
        tty.type("/text A **bold** one.\r")
        await tty.until(lambda text: "\nA bold one." in text)
        tty.type("/stream 300 50\r")
        await tty.until(lambda text: "0005" in text)
        tty.type("\x03")
        await tty.until(lambda text: "parley chat --thread" in text)
    finally:
        tty.close()


async def test_the_skills_of_a_folder_are_sown_beside_the_file(project: Project, tmp_path: Path) -> None:
    agents, skills = tmp_path / "my-agents.yaml", tmp_path / "my-skills"
    agents.write_text('agents: [{id: sailor, name: Sailor, model: scripted, tools: ["*"], skills: skills/sailor}]\n')
    (skills / "sailor").mkdir(parents=True)
    (skills / "sailor" / "fold-boat.md").write_text("First a crease.")
    given = {"AGENTS": str(agents), "SKILLS": str(skills)}
    said = project.compose("run", "--rm", "-T", "--no-deps", "seed", env=given)
    assert "1 agents" in said
    async with client(project) as http:
        thread = await new_thread(http, "sailor")
        frames = await say(http, thread, '/tool read_skill {"slug": "fold-boat"}\n/text Aye.')
        [result] = [frame.data["tool_call"]["result"] for frame in frames if frame.type == "tool.returned"]
        assert result.endswith("First a crease.")


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


async def test_spans_and_metrics_of_every_service_reach_a_collector_on_the_network(project: Project) -> None:
    name = f"{project.name}-collector"
    network = ["--network", f"{project.name}_log", "--network-alias", "collector"]
    docker("run", "-d", "--name", name, *network, "--entrypoint", "python", f"parley-history:{TAG}", "-c", COLLECTOR)
    try:
        project.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://collector:4318"
        project.env["OTEL_METRIC_EXPORT_INTERVAL"] = "1000"
        await asyncio.to_thread(project.up, gateway=2)
        async with client(project) as http:
            await say(http, await new_thread(http), "/text A trace.")
        wanted = {
            f"/v1/{signal} parley-{service}"
            for signal in ("traces", "metrics")
            for service in ("gateway", "dispatcher", "history")
        }

        async def have_come() -> bool:
            return wanted <= set((await asyncio.to_thread(docker, "logs", name)).splitlines())

        await eventually(have_come, 30)
    finally:
        docker("rm", "-f", name)


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
    # Telemetry is on, and what it is sent to is away.
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
