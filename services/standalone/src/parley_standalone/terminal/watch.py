"""Showing a run as it happens: events become rows, some final, some alive, drawn 25 times a second at most.

Above it: `chat` and `once`. Below it: `story` (what happens), `prose` (texts), `region` (the end of the screen).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import suppress

from parley_standalone.terminal import save, story
from parley_standalone.terminal.native import Frame
from parley_standalone.terminal.prose import Prose
from parley_standalone.terminal.region import EMPTY, Region, Row
from parley_standalone.terminal.screen import Screen

FRAME_S = 0.04
SPIN_S = 0.12
SETTLE_S = 0.3
"""How long a run that waits is looked at: what is stored may say that somebody has answered since."""
BAR_BYTES = 512 * 1024
"""A message that is smaller is sent before a bar could be read."""
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
Open = story.ApprovalAsked | story.HandedOver
"""What a run waits for."""
_SIGNS = {"ok": ("✓", "green"), "error": ("✗", "red"), "cancelled": ("–", "yellow"), "denied": ("✗", "yellow")}


class Watch:
    """One run on the screen. `hint`: what the status line says of keys. `parked`: what it was known to wait for. In the
    end `parked` has what it waits for, and `last` the id of the last frame, to go on from."""

    def __init__(self, screen: Screen, now: Callable[[], float], hint: str = "", parked: Iterable[Open] = ()) -> None:
        self._screen, self._now, self._hint = screen, now, hint
        self._prose = Prose(screen)
        self._region = Region()
        self._final: list[Row] = []
        self._tools: dict[str, tuple[story.ToolBegan, float]] = {}
        self._began = now()
        self._trouble: str | None = None
        self._sent = (0, 0)
        self._changed = asyncio.Event()
        self._said = False
        self._after = ""
        self.ended: story.Ended | None = None
        self.parked: dict[str, Open] = {one.id: one for one in parked}
        self.waits = self.queued = False
        self.last: str | None = None

    def trouble(self, text: str | None) -> None:
        """What the connection waits for, or that it waits no more."""
        self._trouble = text
        self._changed.set()

    def cancelling(self) -> None:
        """The run was told to stop."""
        self._hint = "cancelling"
        self._changed.set()

    def sending(self, done: int, total: int) -> None:
        """How much of the message is on its way."""
        self._sent = (done, total)
        self._changed.set()

    async def run(
        self, frames: AsyncIterator[Frame], *, question: bool = False, leaves: bool = False, behind: bool = False
    ) -> story.Ended | None:
        """Show the frames until they end. `question`: the question, too. `leaves`: only until the run waits for
        somebody, or (`behind`) is queued. The screen is left in order whatever comes."""
        drawing = asyncio.ensure_future(self._draw_often())
        try:
            while (frame := await self._next(frames, leaves and self.waits)) is not None:
                self.last = frame.id or self.last
                for event in story.events(frame.data):
                    self.show(event, question=question)
                self._changed.set()
                if behind and self.queued:
                    break
        finally:
            drawing.cancel()
            with suppress(asyncio.CancelledError):
                await drawing
            if isinstance(frames, AsyncGenerator):
                await frames.aclose()
            self._prose.close()
            self._close()
        return self.ended

    async def _next(self, frames: AsyncIterator[Frame], leaving: bool) -> Frame | None:
        """The next frame, or None when there is none. `leaving`: the run waits, unless what is stored goes on."""
        coming = asyncio.ensure_future(anext(frames, None))
        try:
            done, _ = await asyncio.wait({coming}, timeout=SETTLE_S if leaving else None)
            return coming.result() if done else None
        finally:
            if not coming.done():
                coming.cancel()
                with suppress(asyncio.CancelledError):
                    await coming

    def show(self, event: story.Event, *, question: bool = False) -> None:
        """Take one event in."""
        match event:
            case story.Piece(kind, text):
                if not self._said and text.strip():
                    self._apart(kind)
                    self._said = True
                elif text.strip() and self._after != kind:
                    self._flush()
                    self._apart(kind)
                self._prose.feed(kind, text)
            case story.Closed():
                self._flush()
            case story.Anew(attempt):
                self._prose.drop()
                again = f"the model begins this turn again (attempt {attempt})"
                self._line(f"  ↻ {again if attempt else 'what it had begun to say is void'}", "yellow")
                self._final.append(EMPTY)
            case story.Asked():
                self.queued = event.queued
                if question:
                    self._final += asked(self._screen, event, self._screen.columns)
                    self._after = "question"
            case story.ToolBegan():
                self._flush()
                self._tools[event.id] = (event, self._now())
            case story.ToolEnded():
                self._flush()
                handed = self._goes_on(event.id)
                if handed is not None:
                    event = event._replace(name=handed.name, arguments=event.arguments or handed.arguments)
                began = self._tools.pop(event.id, None)
                if began is not None and not event.arguments:
                    event = event._replace(arguments=began[0].arguments)
                self._apart("tool")
                self._final += tool(self._screen, event, self._screen.columns)
            case story.ApprovalAsked() | story.HandedOver():
                self._flush()
                self.parked[event.id] = event
                self._apart("tool")
                self._final += waiting(self._screen, event, self._screen.columns)
            case story.ApprovalOver():
                self._goes_on(event.id)
                self._line(f"    {event.text}", "dim")
            case story.Waits():
                self._flush()
                self.waits = True
            case story.Note(text):
                self._line(f"  {text}", "dim")
            case story.Ended():
                self._flush()
                self.ended = event
                self.parked.clear()
                self._final += ending(self._screen, event, self._screen.columns)

    def _goes_on(self, one: str) -> Open | None:
        """Somebody answered: the run does not wait for this any more."""
        self.waits = False
        return self.parked.pop(one, None)

    def _apart(self, kind: str) -> None:
        """A blank row where something of another kind follows."""
        if self._after not in (kind, ""):
            self._final.append(EMPTY)
        self._after = kind

    def _line(self, text: str, style: str) -> None:
        self._flush()
        self._final += self._screen.line((text, style), columns=self._screen.columns, whole=True)
        self._after = self._after or "note"

    def _flush(self) -> None:
        """What was said so far is final: what comes now stands below it."""
        self._prose.close()
        final, _ = self._prose.rows(self._screen.columns)
        self._final += final

    # ---- drawing

    async def _draw_often(self) -> None:
        while True:
            self._changed.clear()
            begun = self._now()
            self._draw()
            # A terminal or a text that is slow to draw does not get the whole processor.
            await asyncio.sleep(max(FRAME_S, 3 * (self._now() - begun)))
            with suppress(TimeoutError):
                async with asyncio.timeout(SPIN_S):
                    await self._changed.wait()

    def _draw(self) -> None:
        columns, (width, height) = self._screen.columns, self._screen.size
        final, live = self._prose.rows(columns)
        self._final += final
        self._screen.write(self._region.draw(self._final, [*live, *self._status(columns)], width, height))
        self._final = []

    def _close(self) -> None:
        width, height = self._screen.size
        final, _ = self._prose.rows(self._screen.columns)
        self._screen.write(self._region.close([*self._final, *final], width, height))
        self._final = []

    def _status(self, columns: int) -> list[Row]:
        now = self._now()
        spinner = _SPINNER[int((now - self._began) / SPIN_S) % len(_SPINNER)]
        rows: list[Row] = []
        for began, since in self._tools.values():
            took = f" {now - since:.0f} s" if now - since >= 1 else ""
            parts = ((f"  {spinner} ", "cyan"), (began.name, "bold"), (f" {began.arguments}", "dim"), (took, "dim"))
            rows += self._screen.line(*parts, columns=columns)
        if self._trouble is not None:
            return [
                *rows,
                *self._screen.line((f"  {spinner} trying again: {self._trouble}", "yellow"), columns=columns),
            ]
        done, total = self._sent
        if done < total and total > BAR_BYTES:
            what = f"{spinner} sending {done / 2**20:.1f} of {total / 2**20:.1f} MiB"
            return [*rows, *self._screen.bar(what, done, total, columns)]
        state = f"  {spinner} {now - self._began:.0f} s"
        return [
            *rows,
            *self._screen.line((state, "dim"), (f"   {self._hint}" if self._hint else "", "dim"), columns=columns),
        ]


def asked(screen: Screen, event: story.Asked, columns: int) -> list[Row]:
    """A question, as it stands above its answer."""
    text = screen.line((event.text.strip("\n"), "bold"), columns=columns - 2, whole=True)
    signs = [screen.line(("› ", "bold cyan"), columns=4)[0]] + [Row("  ", 2, "  ")] * (len(text) - 1)
    rows = [
        Row(sign.ansi + row.ansi, 2 + row.cells, sign.plain + row.plain) for sign, row in zip(signs, text, strict=True)
    ]
    if event.files:
        rows += screen.line((f"  with {', '.join(event.files)}", "dim"), columns=columns, whole=True)
    return rows


def ending(screen: Screen, event: story.Ended, columns: int) -> list[Row]:
    """How a run ended, where that needs a word."""
    if event.status == "failed":
        return screen.line((f"  ✗ failed: {event.text}", "red"), columns=columns, whole=True)
    if event.status == "cancelled":
        why = f": {event.text}" if event.text else ""
        return screen.line((f"  – cancelled{why}", "yellow"), columns=columns, whole=True)
    return screen.line((f"  the model stopped: {event.text}", "yellow"), columns=columns) if event.text else []


def waiting(screen: Screen, event: Open, columns: int) -> list[Row]:
    """Something that somebody has to answer: whole, since one cannot say yes to what one has not read."""
    what = "approval" if isinstance(event, story.ApprovalAsked) else "client"
    rows = screen.line(
        ("  ◇ ", "magenta"),
        (f"{what} ", "magenta"),
        (event.name, "bold"),
        (f" {event.arguments}" if event.arguments else "", ""),
        columns=columns,
        whole=True,
    )
    if isinstance(event, story.ApprovalAsked) and event.question:
        rows += screen.line((f"    {event.question}", "bold"), columns=columns, whole=True)
    return rows


def tool(screen: Screen, event: story.ToolEnded, columns: int) -> list[Row]:
    """A tool call that has its answer: one row, and one for each file that it made, with the order that fetches it."""
    sign, colour = _SIGNS.get(event.status, ("?", "yellow"))
    took = "" if event.duration_ms is None else f" {event.duration_ms / 1000:.1f} s" if event.duration_ms >= 100 else ""
    status = "" if event.status == "ok" else f" {event.status}"
    rows = screen.line(
        (f"  {sign} ", colour),
        (event.name, "bold"),
        (f" {event.arguments}" if event.arguments else "", "dim"),
        (f"{status}{took}", colour if status else "dim"),
        (f" → {event.result}" if event.result else "", ""),
        columns=columns,
    )
    for name in event.files:
        rows += screen.line((f"    made {name} · {save.order(name)}", "dim"), columns=columns, whole=True)
    return rows
