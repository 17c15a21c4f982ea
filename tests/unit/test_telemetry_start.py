"""A telemetry setting that cannot be is refused at the start of any process, in one line that names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import parley_dispatcher.__main__
import parley_gateway.__main__
import parley_history.__main__
from parley_standalone.errors import CommandError
from parley_standalone.settings import Settings
from parley_standalone.up import up

WRONG = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
NEEDED = {
    "PARLEY_POSTGRES_PROJECTOR": "postgresql://parley_projector:p@db/parley",
    "PARLEY_POSTGRES_READER": "postgresql://parley_reader:p@db/parley",
    "PARLEY_INTERNAL_TOKEN": "0123456789",
}
MAINS: dict[str, Callable[[], int]] = {
    "gateway": parley_gateway.__main__.main,
    "dispatcher": parley_dispatcher.__main__.main,
    "history": lambda: parley_history.__main__.main([]),
}


@pytest.mark.parametrize("service", MAINS)
def test_a_service_does_not_start(
    service: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (WRONG | NEEDED).items():
        monkeypatch.setenv(name, value)
    assert MAINS[service]() == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("OTEL_EXPORTER_OTLP_PROTOCOL='grpc': only http/protobuf is spoken")


async def test_parley_up_does_not_start_and_leaves_nothing_behind(tmp_path: Path) -> None:
    settings = Settings.from_env({**WRONG, "DATA": str(tmp_path / "data"), "PORT": "0"})
    with pytest.raises(CommandError, match="OTEL_EXPORTER_OTLP_PROTOCOL"):
        await up(settings)
    assert not (tmp_path / "data").exists()
