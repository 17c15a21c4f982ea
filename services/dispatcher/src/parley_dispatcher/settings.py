"""The dispatcher's settings: read from the environment once, frozen. The only module that reads the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from parley_events.declared import OURS
from parley_events.log.kafka_address import check_address
from parley_events.log.pace import BATCHES_PER_S

Number = TypeVar("Number", int, float)

CURRENT_CLAUDE = "claude-sonnet-5-5"
"""What `model: default` means where there is a key for it."""
UNPREFIXED = ("anthropic_api_key", "anthropic_base_url")
"""Fields whose variable is known by its own name, without `PARLEY_`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a dispatcher can be told. Each field is `PARLEY_<NAME>` in the environment (`<NAME>` for those of
    `UNPREFIXED`), with the default shown here."""

    log: str = "kafka"
    kafka: str = field(default="127.0.0.1:9092", repr=False)
    data: Path = Path(".parley")
    objects: str = ""
    partitions: int = 8
    history_url: tuple[str, ...] = ("http://127.0.0.1:8082",)
    internal_token: str = field(default="", repr=False)
    host: str = "127.0.0.1"
    port: int = 8081
    log_file: Path | None = None
    log_level: str = "INFO"
    group: str = "parley.dispatcher"
    session_ms: int = 6000
    batches_per_s: int = BATCHES_PER_S
    run_slots: int = 2000
    anthropic_api_key: str = field(default="", repr=False)
    anthropic_base_url: str = ""
    model: str = ""
    model_attempts: int = 5
    model_backoff_ms: int = 500
    model_stall_s: float = 60.0
    tool_timeout_s: float = 120.0
    mcp_commands: bool = False
    mcp_start_s: float = 5.0
    mcp_idle_s: float = 600.0
    delta_tick_ms: int = 45
    timer_ms: int = 1000
    cache_mb: int = 256
    window_mb: int = 64
    drain_s: float = 8.0
    run_crashes: int = 10
    loop_limit_s: float = 30.0
    poll_limit_s: float = 60.0
    stuck_s: float = 120.0

    @property
    def default_model(self) -> str:
        """What `model: default` means."""
        return self.model or (CURRENT_CLAUDE if self.anthropic_api_key else "scripted")

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """The settings that the environment asks for; ValueError names a variable that cannot be read."""
        env = os.environ if env is None else env
        default = cls()

        def number(name: str, fallback: int) -> int:
            return _parse(env, name, int, fallback)

        def real(name: str, fallback: float) -> float:
            return _parse(env, name, float, fallback)

        log_file = env.get("PARLEY_LOG_FILE")
        urls = env.get("PARLEY_HISTORY_URL")
        return cls(
            log=env.get("PARLEY_LOG", default.log),
            kafka=check_address(env.get("PARLEY_KAFKA", default.kafka)),
            data=Path(env.get("PARLEY_DATA", str(default.data))),
            objects=env.get("PARLEY_OBJECTS", default.objects),
            partitions=number("PARLEY_PARTITIONS", default.partitions),
            history_url=tuple(urls.split(",")) if urls else default.history_url,
            internal_token=env.get("PARLEY_INTERNAL_TOKEN", ""),
            host=env.get("PARLEY_HOST", default.host),
            port=number("PARLEY_PORT", default.port),
            log_file=Path(log_file) if log_file else None,
            log_level=env.get("PARLEY_LOG_LEVEL", default.log_level),
            group=env.get("PARLEY_GROUP", default.group),
            session_ms=number("PARLEY_SESSION_MS", default.session_ms),
            batches_per_s=number("PARLEY_BATCHES_PER_S", default.batches_per_s),
            run_slots=number("PARLEY_RUN_SLOTS", default.run_slots),
            anthropic_api_key=env.get("ANTHROPIC_API_KEY", "").strip(),
            anthropic_base_url=env.get("ANTHROPIC_BASE_URL", "").strip(),
            model=env.get("PARLEY_MODEL", "").strip(),
            model_attempts=number("PARLEY_MODEL_ATTEMPTS", default.model_attempts),
            model_backoff_ms=number("PARLEY_MODEL_BACKOFF_MS", default.model_backoff_ms),
            model_stall_s=real("PARLEY_MODEL_STALL_S", default.model_stall_s),
            tool_timeout_s=real("PARLEY_TOOL_TIMEOUT_S", default.tool_timeout_s),
            mcp_commands=env.get("PARLEY_MCP_COMMANDS", "") in ("1", "true", "yes"),
            mcp_start_s=real("PARLEY_MCP_START_S", default.mcp_start_s),
            mcp_idle_s=real("PARLEY_MCP_IDLE_S", default.mcp_idle_s),
            delta_tick_ms=number("PARLEY_DELTA_TICK_MS", default.delta_tick_ms),
            timer_ms=number("PARLEY_TIMER_MS", default.timer_ms),
            cache_mb=number("PARLEY_CACHE_MB", default.cache_mb),
            window_mb=number("PARLEY_WINDOW_MB", default.window_mb),
            drain_s=real("PARLEY_DRAIN_S", default.drain_s),
            run_crashes=number("PARLEY_RUN_CRASHES", default.run_crashes),
            loop_limit_s=real("PARLEY_LOOP_LIMIT_S", default.loop_limit_s),
            poll_limit_s=real("PARLEY_POLL_LIMIT_S", default.poll_limit_s),
            stuck_s=real("PARLEY_STUCK_S", default.stuck_s),
        )


def secret_of(reference: str, env: Mapping[str, str] | None = None) -> str | None:
    """The value behind `env:NAME`, as agents refer to their secrets; None: not set, or not theirs to name. It is looked
    up at each use and goes nowhere else."""
    env = os.environ if env is None else env
    kind, _, name = reference.partition(":")
    if kind != "env" or name.upper().startswith(OURS):
        return None
    return env.get(name) or None


def named_value(name: str) -> str | None:
    """What the environment has under a name that a declaration gives (`env:NAME`); never logged."""
    return secret_of(f"env:{name}")


def _parse(env: Mapping[str, str], name: str, kind: type[Number], fallback: Number) -> Number:
    text = env.get(name)
    if text is None or text == "":
        return fallback
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(f"{name}={text!r} is not a number") from None
    if value < 0:
        raise ValueError(f"{name}={text!r} is negative")
    return value
