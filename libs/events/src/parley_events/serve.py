"""How every service runs as a process: JSON logs, uvicorn on uvloop, an end within seconds on SIGTERM and SIGINT."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from parley_events.clock import rfc3339
from parley_events.garbage import seldom_collected
from parley_events.lasting import lasting
from parley_events.telemetry.port import ABOUT
from parley_events.watch import LoopWatch


class JsonLines(logging.Formatter):
    """One JSON object per line: time, level, logger, message, the ids of what it is about (trace, span, thread, run)
    where they are known, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": rfc3339(int(record.created * 1000)),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **ABOUT.get(),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def set_up_logs(level: str, file: Path | None) -> None:
    """Send the process's logs to a file, or to stderr."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(file) if file is not None else logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx2", "httpcore2", "anthropic", "asyncio", "urllib3", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class Http(HttpToolsProtocol):
    """What is no HTTP at all belongs to no contract; it is refused in the shape that most of them have."""

    def send_400_response(self, msg: str) -> None:
        """Refuse it, and close the connection."""
        body = orjson.dumps({"error": {"code": "invalid_request", "message": "this is no HTTP request"}})
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()


class _Server(uvicorn.Server):
    """Says that it stops before it waits for open answers to end."""

    on_stop: Callable[[], None] | None = None
    own_signals = True
    watch: LoopWatch | None = None

    async def startup(self, sockets: Any = None) -> None:
        if self.watch is not None:
            self.watch.start()
        await super().startup(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at a signal, and leave it at that: uvicorn would raise it again and so end the process half-way."""
        if not self.own_signals:
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: Any = None) -> None:
        if self.on_stop is not None:
            self.on_stop()
        await super().shutdown(sockets)


def server_of(
    app: Any,
    host: str,
    port: int,
    *,
    grace_s: float = 3.0,
    on_stop: Callable[[], None] | None = None,
    signals: bool = True,
) -> uvicorn.Server:
    """A server for an ASGI application. `on_stop` is called when it is told to stop, so that open streams can be ended;
    they get `grace_s`. Without `signals` only `should_exit` stops it."""
    config = uvicorn.Config(
        lasting(app),
        http=Http,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=int(grace_s),
        lifespan="on",
        server_header=False,
    )
    server = _Server(config)
    server.on_stop = on_stop
    server.own_signals = signals
    return server


def serve(
    app: Any,
    host: str,
    port: int,
    *,
    loop_limit_s: float,
    grace_s: float = 3.0,
    on_stop: Callable[[], None] | None = None,
) -> int:
    """Serve an ASGI application (see `server_of`) until a signal; the exit status. An event loop that is blocked for
    `loop_limit_s` ends the process."""
    server = server_of(app, host, port, grace_s=grace_s, on_stop=on_stop)
    assert isinstance(server, _Server)
    server.watch = LoopWatch(loop_limit_s)
    with seldom_collected():
        server.run()
    server.watch.stop()
    return 0 if server.started else 1


def end_process(why: str) -> None:
    """End this process soon, because a part of it died: others take its work over. A clean stop gets 10 s."""
    logging.getLogger("parley").critical("ending: %s", why)
    timer = threading.Timer(10.0, os._exit, (1,))
    timer.daemon = True
    timer.start()
    os.kill(os.getpid(), signal.SIGTERM)
