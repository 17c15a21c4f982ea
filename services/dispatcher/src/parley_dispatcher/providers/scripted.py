"""The scripted model: deterministic (but for the time, where a script asks for it), local, in need of nothing. It plays
the script in the message it answers.

The place in the script follows from the journal (the request's turn and attempt), so a run that moves to another
process goes on at the right line. `script` reads the message; docs/scripted-model.md is the manual.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable

from parley_dispatcher.errors import ModelError
from parley_dispatcher.providers import script as s
from parley_dispatcher.providers.base import Event, Request, Said, Stopped, Used
from parley_events.body import Json
from parley_events.body import Usage as Tokens
from parley_events.clock import Clock, system_clock

_MESSAGES = {
    "400": "the request was refused as invalid",
    "401": "the key was refused",
    "429": "too many requests",
    "500": "the model had an internal error",
    "529": "the model is overloaded",
    "cut": "the stream broke off",
    "stall": "the model said nothing for too long",
}
_FINAL = ("400", "401")


class ScriptedModel:
    """The provider `scripted`. `stall_s` is how long a stalled stream is waited for."""

    def __init__(self, stall_s: float, clock: Clock = system_clock) -> None:
        self._stall_s, self._clock = stall_s, clock

    async def stream(self, request: Request) -> AsyncIterator[Event]:
        turns = s.turns_of(request.question)
        if turns is None:
            turns = _default(request)
        turn = turns[request.turn] if request.turn < len(turns) else s.ScriptTurn()
        active = [
            d for d in turn.directives if isinstance(d, s.Fail) and (d.times is None or request.attempt <= d.times)
        ]
        for failure in active:
            if failure.kind not in ("cut", "stall"):
                raise ModelError(failure.kind, _MESSAGES[failure.kind], retry=failure.kind not in _FINAL)
        said_words = 0
        said = ""
        block = -1
        open_text = False
        tool_index = 0
        usage = next((d for d in reversed(turn.directives) if isinstance(d, s.Usage)), None)
        stop = next((d.reason for d in reversed(turn.directives) if isinstance(d, s.Stop)), None)
        words_in = usage.input_tokens if usage else len(request.question.split())
        for directive in turn.directives:
            match directive:
                case s.Think(text):
                    open_text = False
                    if text:
                        block += 1
                        yield Said(block, "thought", text)
                case s.Text() | s.Show() | s.Stream() | s.Stamp():
                    if not open_text and not _empty(directive):
                        block, open_text = block + 1, True
                    for piece, pause_ms in self._pieces(directive, request):
                        said += piece
                        yield Said(block, "text", piece)
                        await asyncio.sleep(pause_ms / 1000)
                case s.Tool(name, arguments):
                    block, open_text = block + 1, False
                    yield Used(block, f"call_{request.call_id}_{tool_index}", name, arguments)
                    tool_index += 1
                case s.Wait(ms):
                    await asyncio.sleep(ms / 1000)
                case s.Fail(kind):
                    if directive in active:
                        if kind == "stall":
                            await asyncio.sleep(self._stall_s)
                        said_words = len(said.split())
                        raise ModelError(
                            kind,
                            _MESSAGES[kind],
                            retry=True,
                            usage=Tokens(input_tokens=words_in, output_tokens=said_words),
                        )
                case _:
                    pass
        words_out = usage.output_tokens if usage else len(said.split())
        yield Stopped(
            stop or ("tool_use" if tool_index else "end_turn"), Tokens(input_tokens=words_in, output_tokens=words_out)
        )

    def _pieces(self, directive: s.Text | s.Show | s.Stream | s.Stamp, request: Request) -> Iterable[tuple[str, int]]:
        """Each piece, made when it is asked for, and the pause after it in ms."""
        match directive:
            case s.Stream(count, delay_ms, start):
                return ((f"{start + i:04d} ", delay_ms) for i in range(count))
            case s.Stamp(count, delay_ms):
                return ((f"{self._clock()} ", delay_ms) for _ in range(count))
            case s.Text(text):
                return ((word, 0) for word in s.words_of(text))
        return ((word, 0) for word in s.words_of(_shown(directive, request)))


def _empty(directive: s.Text | s.Show | s.Stream | s.Stamp) -> bool:
    match directive:
        case s.Text(text):
            return not text
        case s.Stream(count) | s.Stamp(count):
            return not count
    return False


def _shown(directive: s.Show, request: Request) -> str:
    value: object = {"system": request.system, "messages": request.messages, "tools": request.tools}[directive.what]
    return json.dumps(value, ensure_ascii=False)


def _default(request: Request) -> list[s.ScriptTurn]:
    """What a message without directives gets: a look at the clock, then an echo with the time."""
    said = f'You said: "{request.question}"'
    time = _last_result(request.messages)
    return [
        s.ScriptTurn([s.Tool("clock", {})]),
        s.ScriptTurn([s.Text(f"{said} at {time}" if time else said)]),
    ]


def _last_result(messages: list[Json]) -> str:
    content = messages[-1]["content"] if messages else None
    if not isinstance(content, list):
        return ""
    results = [block for block in content if block.get("type") == "tool_result" and not block.get("is_error")]
    if not results:
        return ""
    text = results[-1]["content"]
    try:
        return str(json.loads(text)["now"])
    except (ValueError, KeyError, TypeError):
        return ""
