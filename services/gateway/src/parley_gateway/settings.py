"""The gateway's settings: read from the environment once, frozen. The only module that reads the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from parley_events.log.kafka_address import check_address
from parley_events.log.pace import BATCHES_PER_S
from parley_events.rates import Rate, parse_rate

Number = TypeVar("Number", int, float)

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class Settings:
    """What a gateway can be told. Each field is `PARLEY_<NAME>` in the environment, with the default shown here.

    `workspace_id` is the first workspace's: its admin key alone makes workspaces, and keys of others; empty: nobody's.
    `batches_per_s`: how often a producer sends before what it has to send is gathered (0: however often).
    `outcome_s`: how long a request waits for its command's outcome. `beat_s`: the pause after which an idle stream
    sends a comment. `stall_s`: how long a client may take no byte before it is let go. `uploads_mb`: what all large
    bodies may have together while they are read and stored. `kept_mb`: the pieces of unfinished calls that are kept for
    those who join late. `queue_mb`, `queue_items`: what may wait for one client. `rate_limit`: how often each key may
    ask that has no rate of its own (`60/minute`; empty: as often as it likes), `workspace_rate_limit` all keys of a
    workspace together. `session_idle_s`: how long a session of `org_agents` lives without activity (0: for ever).
    """

    log: str = "kafka"
    kafka: str = field(default="127.0.0.1:9092", repr=False)
    data: Path = Path(".parley")
    objects: str = ""
    partitions: int = 8
    group: str = "parley.dispatcher"
    batches_per_s: int = BATCHES_PER_S
    history_url: tuple[str, ...] = ("http://127.0.0.1:8082",)
    internal_token: str = field(default="", repr=False)
    host: str = "127.0.0.1"
    port: int = 8080
    log_file: Path | None = None
    log_level: str = "INFO"
    workspace_id: str = ""
    anonymous_key: str = field(default="", repr=False)
    anonymous_key_forced: bool = False
    outcome_s: float = 5.0
    beat_s: float = 15.0
    stall_s: float = 30.0
    drain_s: float = 5.0
    body_mb: int = 8
    uploads_mb: int = 128
    kept_mb: int = 64
    queue_mb: int = 16
    queue_items: int = 20_000
    loop_limit_s: float = 30.0
    poll_limit_s: float = 60.0
    rate_limit: str = ""
    workspace_rate_limit: str = ""
    session_idle_s: int = 3600

    def __post_init__(self) -> None:
        for name in ("rate_limit", "workspace_rate_limit"):
            try:
                self.rate(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"PARLEY_{name.upper()}: {error}") from None
        if self.anonymous_key and self.host not in LOOPBACK and not self.anonymous_key_forced:
            raise ValueError(
                f"PARLEY_ANONYMOUS_KEY lends a key to everyone who can reach {self.host}: listen on 127.0.0.1, or set "
                "PARLEY_ANONYMOUS_KEY_FORCED=1 if that is meant"
            )

    @staticmethod
    def rate(text: str) -> Rate | None:
        """A rate limit as it is set (empty: none)."""
        return parse_rate(text) if text else None

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """The settings that the environment asks for; ValueError names a variable that cannot be read."""
        env = os.environ if env is None else env
        default = cls()
        log_file = env.get("PARLEY_LOG_FILE")
        urls = env.get("PARLEY_HISTORY_URL")
        return cls(
            log=env.get("PARLEY_LOG", default.log),
            kafka=check_address(env.get("PARLEY_KAFKA", default.kafka)),
            data=Path(env.get("PARLEY_DATA", str(default.data))),
            objects=env.get("PARLEY_OBJECTS", default.objects),
            partitions=_number(env, "PARLEY_PARTITIONS", default.partitions),
            group=env.get("PARLEY_GROUP", default.group),
            batches_per_s=_number(env, "PARLEY_BATCHES_PER_S", default.batches_per_s),
            history_url=tuple(url.strip().rstrip("/") for url in urls.split(",")) if urls else default.history_url,
            internal_token=env.get("PARLEY_INTERNAL_TOKEN", ""),
            host=env.get("PARLEY_HOST", default.host),
            port=_number(env, "PARLEY_PORT", default.port),
            log_file=Path(log_file) if log_file else None,
            log_level=env.get("PARLEY_LOG_LEVEL", default.log_level),
            workspace_id=env.get("PARLEY_WORKSPACE_ID", ""),
            anonymous_key=env.get("PARLEY_ANONYMOUS_KEY", ""),
            anonymous_key_forced=env.get("PARLEY_ANONYMOUS_KEY_FORCED", "") in ("1", "true", "yes"),
            outcome_s=_number(env, "PARLEY_OUTCOME_S", default.outcome_s),
            beat_s=_number(env, "PARLEY_BEAT_S", default.beat_s),
            stall_s=_number(env, "PARLEY_STALL_S", default.stall_s),
            drain_s=_number(env, "PARLEY_DRAIN_S", default.drain_s),
            body_mb=_number(env, "PARLEY_BODY_MB", default.body_mb),
            uploads_mb=_number(env, "PARLEY_UPLOADS_MB", default.uploads_mb),
            kept_mb=_number(env, "PARLEY_KEPT_MB", default.kept_mb),
            queue_mb=_number(env, "PARLEY_QUEUE_MB", default.queue_mb),
            queue_items=_number(env, "PARLEY_QUEUE_ITEMS", default.queue_items),
            loop_limit_s=_number(env, "PARLEY_LOOP_LIMIT_S", default.loop_limit_s),
            poll_limit_s=_number(env, "PARLEY_POLL_LIMIT_S", default.poll_limit_s),
            rate_limit=env.get("PARLEY_RATE_LIMIT", ""),
            workspace_rate_limit=env.get("PARLEY_WORKSPACE_RATE_LIMIT", ""),
            session_idle_s=_number(env, "PARLEY_SESSION_IDLE_S", default.session_idle_s),
        )


def _number(env: Mapping[str, str], name: str, fallback: Number) -> Number:
    text = env.get(name)
    if text is None or text == "":
        return fallback
    try:
        value = type(fallback)(text)
    except ValueError:
        raise ValueError(f"{name}={text!r} is not a number") from None
    if value < 0:
        raise ValueError(f"{name}={text!r} is negative")
    return value
