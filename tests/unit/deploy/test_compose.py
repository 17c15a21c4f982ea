"""`docker-compose.yml` keeps what docs/deploy.md promises: few rights, limits, health, no secret, known settings."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from parley_dispatcher.settings import Settings as DispatcherSettings
from parley_events.pdf import AT_ONCE
from parley_events.pdf_reader import MEMORY_BYTES
from parley_events.settings import Settings as EventsSettings
from parley_gateway.settings import Settings as GatewaySettings
from parley_history.settings import Settings as HistorySettings
from parley_standalone.settings import Settings as CommandSettings

TOP = Path(__file__).parents[3]
TEXT = (TOP / "docker-compose.yml").read_text()
FILE: dict[str, Any] = yaml.safe_load(TEXT)
ALL: dict[str, dict[str, Any]] = FILE["services"]
OURS = ("gateway", "dispatcher", "history")
JOBS = ("topics", "migrate", "seed")
OTHERS = ("kafka", "postgres")
SETTINGS: dict[str, tuple[type[Any], ...]] = {
    "gateway": (GatewaySettings,),
    "dispatcher": (DispatcherSettings,),
    "history": (HistorySettings,),
    "migrate": (HistorySettings,),
    "topics": (EventsSettings,),
    "seed": (CommandSettings, GatewaySettings),
    "parley": (CommandSettings,),
}
DRAIN_S = {"gateway": GatewaySettings().drain_s, "dispatcher": DispatcherSettings().drain_s, "history": 3.0}
OF_LIBRARIES = re.compile(r"(AWS|OTEL|ANTHROPIC)_[A-Z_]+|PARLEY_TRACE_CONTENT")
SECRET = re.compile(r"PASSWORD|TOKEN|KEY|POSTGRES_(PROJECTOR|READER)$|PARLEY_POSTGRES$|SECRET")


def environment(name: str) -> dict[str, Any]:
    found: dict[str, Any] = ALL[name].get("environment", {})
    return found


def test_there_are_the_services_the_jobs_and_the_command() -> None:
    assert set(ALL) == {*OURS, *JOBS, *OTHERS, "parley"}


@pytest.mark.parametrize("name", ALL)
def test_every_container_has_no_rights_and_bounded_means(name: str) -> None:
    service = ALL[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service and "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    user, group = service["user"].split(":")
    assert int(user) > 0 and int(group) > 0
    for limit in ("mem_limit", "cpus", "pids_limit"):
        assert service[limit], limit
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert all("size=" in place for place in service["tmpfs"])
    assert not {"network_mode", "pid", "ipc", "devices"} & service.keys()


@pytest.mark.parametrize("name", [*OURS, *OTHERS])
def test_what_runs_for_long_comes_back_is_looked_at_and_is_given_time_to_end(name: str) -> None:
    service = ALL[name]
    assert service["restart"] == "unless-stopped"
    grace = int(service["stop_grace_period"].removesuffix("s"))
    if name in OURS:
        # The image's own check holds.
        assert "healthcheck" not in service and "HEALTHCHECK" in (TOP / "deploy/docker/Dockerfile").read_text()
        assert grace >= DRAIN_S[name] + 5
    else:
        assert service["healthcheck"]["test"][0] == "CMD" and grace >= 30


@pytest.mark.parametrize("name", JOBS)
def test_a_job_runs_once_and_somebody_waits_for_its_success(name: str) -> None:
    assert ALL[name]["restart"] == "no"
    assert ALL[name]["healthcheck"] == {"disable": True}
    waiting = [
        other
        for other in OURS
        if ALL[other]["depends_on"].get(name, {}).get("condition") == "service_completed_successfully"
    ]
    # Without one, `up --wait` takes the job's end for a failure.
    assert waiting


def test_what_takes_work_in_stops_first_and_the_stores_last() -> None:
    """Compose stops against the order of `depends_on`."""
    before: dict[str, set[str]] = {name: set(ALL[name].get("depends_on", {})) for name in ALL}
    assert {"dispatcher", "history", "kafka"} <= before["gateway"]
    assert {"history", "kafka"} <= before["dispatcher"]
    assert {"kafka", "postgres"} <= before["history"]
    for name in OURS:
        conditions = {ALL[name]["depends_on"][other]["condition"] for other in before[name] - set(JOBS)}
        assert conditions == {"service_healthy"}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_variable_is_a_setting_of_its_service(name: str) -> None:
    known = {f"PARLEY_{field.name.upper()}" for kind in SETTINGS[name] for field in dataclasses.fields(kind)}
    given = {f"PARLEY_{key}" if key == "AGENTS" else key for key in environment(name)}
    assert {key for key in given if not OF_LIBRARIES.fullmatch(key)} <= known


def test_only_history_is_told_of_the_database_and_only_the_migrations_of_its_owner() -> None:
    told = {name for name in SETTINGS if any("POSTGRES" in key for key in environment(name))}
    assert told == {"history", "migrate"}
    assert {name for name in SETTINGS if "PARLEY_POSTGRES" in environment(name)} == {"migrate"}
    assert {name for name, service in ALL.items() if "database" in service["networks"]} == {"postgres", *told}
    assert {name for name in SETTINGS if any("ANTHROPIC" in key for key in environment(name))} == {"dispatcher"}


def test_no_secret_stands_in_the_file_and_none_has_a_default() -> None:
    seen = 0
    for name in ALL:
        for key, value in environment(name).items():
            if key.startswith("KAFKA_") or not SECRET.search(key) or value is None:
                continue
            seen += 1
            asked = re.findall(r"\$\{(\w+):\?make \.env with deploy/new-env\.sh\}", value)
            assert len(asked) == 1, f"{name}: {key}"
            if value.startswith("postgresql://"):
                assert re.fullmatch(r"postgresql://\w+:\$\{[^}]+\}@postgres:5432/parley", value), key
            else:
                assert re.fullmatch(r"\$\{[^}]+\}", value), f"{name}: {key}"
    assert seen > 10


def test_every_variable_of_the_file_is_explained_and_every_one_explained_is_there() -> None:
    example = (TOP / ".env.example").read_text()
    passed_on = {key for name in ALL for key, value in environment(name).items() if value is None}
    used = set(re.findall(r"\$\{(\w+)", TEXT)) | passed_on
    explained = set(re.findall(r"^(?:# )?([A-Z][A-Z_]+)=", example, re.MULTILINE))
    assert used == explained
    defaults = dict(re.findall(r"^# (\w+)=(.+)$", example, re.MULTILINE))
    for name, default in re.findall(r"\$\{(\w+):-([^}]+)\}", TEXT):
        if name not in {"AGENTS", "SKILLS", "PARLEY_OBJECTS"}:
            assert defaults[name] == default


@pytest.mark.parametrize("name", OURS)
def test_what_telemetry_reads_is_passed_on(name: str) -> None:
    pages = [(TOP / "docs" / page).read_text() for page in ("settings.md", "telemetry.md")]
    written = {found for page in pages for found in re.findall(r"`((?:OTEL|PARLEY_TRACE)_[A-Z_]*[A-Z])`", page)}
    # One name for all would make one service of them.
    assert len(written) > 10 and written - {"OTEL_SERVICE_NAME"} <= environment(name).keys()
    assert "OTEL_SERVICE_NAME" not in environment(name)


def test_images_of_others_can_be_replaced_and_have_a_version() -> None:
    for name in OTHERS:
        found = re.fullmatch(rf"\$\{{{name.upper()}_IMAGE:-[a-z/]+:(\d[\d.]*)\}}", ALL[name]["image"])
        assert found is not None, name
    for name in (*OURS, "seed"):
        build = ALL[name]["build"]
        kind = "standalone" if name == "seed" else name
        assert build["args"]["SERVICE"] == kind and ALL[name]["image"] == f"parley-{kind}:${{PARLEY_TAG:-latest}}"
        assert (TOP / build["context"] / build["dockerfile"]).exists()
        assert "python:3.11" in build["args"]["BASE_IMAGE"]


def test_only_the_gateway_can_be_reached_and_by_default_only_from_this_machine() -> None:
    assert {name for name, service in ALL.items() if "ports" in service} == {"gateway"}
    assert ALL["gateway"]["ports"] == ["${BIND:-127.0.0.1}:${PORTS:-8080}:8080"]
    networks = FILE["networks"]
    for name in OTHERS:
        assert all(networks[network]["internal"] is True for network in ALL[name]["networks"])


def test_all_services_see_the_same_objects() -> None:
    for name in ("gateway", "dispatcher", "history"):
        assert environment(name)["PARLEY_OBJECTS"] == "${PARLEY_OBJECTS:-file:/data/objects}"
        # History fetches, and puts nothing there.
        assert ALL[name]["volumes"] == ["data:/data:ro" if name == "history" else "data:/data"]
    assert {name for name in ALL if "PARLEY_OBJECTS" in environment(name)} == {"gateway", "dispatcher", "history"}


@pytest.mark.parametrize("name", ["dispatcher", "gateway"])
def test_who_reads_pdfs_has_room_for_itself_and_for_its_readers(name: str) -> None:
    given = int(ALL[name]["mem_limit"].removesuffix("m")) * 1024**2
    assert given >= AT_ONCE * MEMORY_BYTES + 512 * 1024**2


def test_kafka_keeps_its_word_about_records_and_topics() -> None:
    kafka = environment("kafka")
    assert kafka["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert int(kafka["KAFKA_MESSAGE_MAX_BYTES"]) >= 8 * 1024 * 1024 + 64 * 1024
    assert {key for key in kafka if key.endswith("REPLICATION_FACTOR")} == {
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR",
        "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR",
    }
    # Its compression libraries are unpacked there, and mapped as code.
    assert any(place.startswith("/tmp:exec,") for place in ALL["kafka"]["tmpfs"])
