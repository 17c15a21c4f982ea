"""Rate limits: how often a key, and all keys of a workspace together, may ask. Counted here, told to the others.

No request waits for another machine: each gateway decides on what it has counted and what it has heard so far. It tells
what it counted a few times a second (`parley.counts`), so gateways agree within a second; in between, and while the log
is away, a key may be let in a little more often than its limit says, never less. A gateway that starts reads what was
counted within the longest window. Without any limit nothing is counted, told or read.

Below it: the log port. Above it: `http.endpoint`, which counts every request of a key once, streams too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from parley_events.clock import Clock
from parley_events.counts import COUNTS_PARTITION, COUNTS_TOPIC, Count, decode_counts, encode_counts
from parley_events.errors import EventsError, ProducerBroken, RetentionGap, Undecodable
from parley_events.log import Incoming, Log, Outgoing, Tail
from parley_events.rates import LONGEST_MS, Rate
from parley_gateway.auth import Principal
from parley_gateway.errors import Problem

log = logging.getLogger(__name__)

SLOTS = 60
"""A window is counted in so many slots: a request is forgotten at most one slot later than it could be."""
TELL_S = 0.25
"""How long a count may wait before the others are told."""
MOST_SUBJECTS = 50_000
MOST_TOLD = 20_000
"""What is beyond either in one go counts at this gateway alone."""
_AGAIN_S = 0.5
_NOTHING: Mapping[str, str] = {}


class Window:
    """The requests of one subject by slots of time, wherever they were counted. Pure."""

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots: dict[int, int] = {}

    def add(self, at_ms: int, requests: int) -> None:
        """Count requests of the slot that began at `at_ms`."""
        self._slots[at_ms] = self._slots.get(at_ms, 0) + requests

    def counted(self, window_ms: int, now_ms: int) -> int:
        """The requests within the window that ends now. Slots that have left it are forgotten."""
        over = now_ms - window_ms - slot_ms(window_ms)
        gone = [at_ms for at_ms in self._slots if at_ms <= over]
        for at_ms in gone:
            del self._slots[at_ms]
        return sum(self._slots.values())

    def free_ms(self, window_ms: int, now_ms: int, below: int) -> int:
        """In how many ms fewer than `below` requests are left within the window, if none are added."""
        left, wait_ms = sum(self._slots.values()), 0
        for at_ms in sorted(self._slots):
            if left < below:
                break
            left -= self._slots[at_ms]
            wait_ms = max(at_ms + slot_ms(window_ms) + window_ms - now_ms, 0)
        return wait_ms


def slot_ms(window_ms: int) -> int:
    """How long a slot of a window is."""
    return window_ms // SLOTS


@dataclass(frozen=True, slots=True)
class _Asked:
    """One limit that a request falls under. `who`: as it is called when it is refused."""

    subject: str
    rate: Rate
    who: str


class Limits:
    """All that is counted at this gateway, and heard of the others."""

    def __init__(
        self,
        of_keys: Rate | None,
        of_workspaces: Rate | None,
        clock: Clock,
        gateway: str,
        log: Callable[[], Log | None],
    ) -> None:
        """`of_keys` holds for keys without a rate of their own; `gateway` is this one's name among the others."""
        self._of_keys, self._of_workspaces = of_keys, of_workspaces
        self._clock, self._gateway, self._log = clock, gateway, log
        self._windows: OrderedDict[str, Window] = OrderedDict()
        self._untold: dict[tuple[str, int, int], int] = {}
        self._position: int | None = None
        self._back_ms = LONGEST_MS
        self._to_tell = asyncio.Event()
        self._needed = asyncio.Event()
        if of_keys is not None or of_workspaces is not None:
            self._needed.set()

    def count(self, who: Principal) -> Mapping[str, str]:
        """Count a request: the headers that its answer carries (none for a key without a limit). A Problem 429 when the
        key has asked too often; such a request is not counted."""
        own = who.rate or self._of_keys
        if own is None and self._of_workspaces is None:
            return _NOTHING
        self._needed.set()
        asked = []
        if own is not None:
            asked.append(_Asked(f"{who.workspace_id}/{who.key_id}", own, "this key"))
        if self._of_workspaces is not None:
            asked.append(_Asked(who.workspace_id, self._of_workspaces, "all keys of this workspace together"))
        now_ms = self._clock()
        taken = [(limit, self._window(limit.subject).counted(limit.rate.window_ms, now_ms)) for limit in asked]
        full = [limit for limit, requests in taken if requests >= limit.rate.count]
        if full:
            raise self._refusal(full, now_ms)
        for limit in asked:
            at_ms = now_ms - now_ms % slot_ms(limit.rate.window_ms)
            self._window(limit.subject).add(at_ms, 1)
            self._tell(limit.subject, at_ms, limit.rate.window_ms)
        tightest, requests = min(taken, key=lambda pair: pair[0].rate.count - pair[1])
        reset_ms = self._window(tightest.subject).free_ms(tightest.rate.window_ms, now_ms, requests + 1)
        return _headers(tightest.rate, tightest.rate.count - requests - 1, reset_ms)

    async def run(self) -> None:
        """Tell and hear, for ever, from the first limited request on; goes on by itself after every outage."""
        await self._needed.wait()
        await asyncio.gather(self._for_ever(self._go_on_telling), self._for_ever(self._hear))

    async def _for_ever(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except Exception:
                # Without the others' counts this gateway still holds to the limits, by its own.
                log.exception("counts are not exchanged right now")
            await asyncio.sleep(_AGAIN_S)

    # ---- counting

    def _window(self, subject: str) -> Window:
        window = self._windows.get(subject)
        if window is None:
            window = self._windows[subject] = Window()
            if len(self._windows) > MOST_SUBJECTS:
                self._windows.popitem(last=False)
        else:
            self._windows.move_to_end(subject)
        return window

    def _refusal(self, full: list[_Asked], now_ms: int) -> Problem:
        waits = [
            (self._window(limit.subject).free_ms(limit.rate.window_ms, now_ms, limit.rate.count), limit)
            for limit in full
        ]
        wait_ms, limit = max(waits, key=lambda pair: pair[0])
        headers = _headers(limit.rate, 0, max(wait_ms, 1))
        again = headers["RateLimit-Reset"]
        message = (
            f"{limit.who} may ask {limit.rate.count} times in {limit.rate.window_ms // 1000} s; try again in {again} s"
        )
        return Problem("rate_limited", message, 429, headers={**headers, "Retry-After": again})

    # ---- telling and hearing

    def _tell(self, subject: str, at_ms: int, window_ms: int) -> None:
        place = (subject, at_ms, window_ms)
        if place in self._untold or len(self._untold) < MOST_TOLD:
            self._untold[place] = self._untold.get(place, 0) + 1
            self._to_tell.set()

    async def _go_on_telling(self) -> None:
        """Tell what is counted, with one producer, until that breaks."""
        await self._to_tell.wait()
        ready = self._log()
        if ready is None:
            return
        try:
            producer = await ready.producer()
        except (EventsError, OSError, TimeoutError) as error:
            log.warning("the other gateways cannot be told what was counted: %s", error)
            return
        try:
            while not producer.broken:
                await self._to_tell.wait()
                await asyncio.sleep(TELL_S)
                producer.send(self._record()).add_done_callback(_noted)
                self._untold.clear()
                self._to_tell.clear()
        except ProducerBroken:
            pass  # nothing was handed over: the next one tells it
        finally:
            await producer.close(0.5)

    def _record(self) -> Outgoing:
        untold = self._untold.items()
        return encode_counts(self._gateway, [Count(subject, at, n, window) for (subject, at, window), n in untold])

    async def _hear(self) -> None:
        """Follow what the others tell, from the longest window ago on."""
        ready = self._log()
        if ready is None:
            return
        tail: Tail | None = None
        try:
            if self._position is None:
                starts = await ready.at_time(COUNTS_TOPIC, self._clock() - self._back_ms)
                self._position = starts[COUNTS_PARTITION]
            tail = await ready.tail(COUNTS_TOPIC, {COUNTS_PARTITION: self._position})
            while True:
                for record in await tail.batch():
                    self._heard(record)
                    self._position = record.offset + 1
        except RetentionGap:
            # It was away for longer than any window: what it has missed counts no more, what it has would twice.
            self._position, self._back_ms = None, 0
        except (EventsError, OSError, TimeoutError) as error:
            log.warning("what other gateways count cannot be read right now: %s", error)
        finally:
            if tail is not None:
                await tail.close()

    def _heard(self, record: Incoming) -> None:
        try:
            gateway, counts = decode_counts(record)
        except Undecodable as error:
            log.error("%s[%d]@%d: %s", record.topic, record.partition, record.offset, error)
            return
        if gateway == self._gateway:
            return
        now_ms = self._clock()
        for subject, at_ms, requests, window_ms in counts:
            if 0 < window_ms <= LONGEST_MS and at_ms + window_ms > now_ms:
                window = self._window(subject)
                window.add(at_ms, requests)
                window.counted(window_ms, now_ms)


def _headers(rate: Rate, free: int, reset_ms: int) -> dict[str, str]:
    """What every answer says; `RateLimit-Reset` is in how many seconds (upwards) more is free than now."""
    return {
        "RateLimit-Limit": str(rate.count),
        "RateLimit-Remaining": str(free),
        "RateLimit-Reset": str(-(-reset_ms // 1000)),
    }


def _noted(sent: asyncio.Future[int]) -> None:
    """Take note of a failed send; what it told counts at this gateway alone then."""
    with contextlib.suppress(asyncio.CancelledError):
        if (error := sent.exception()) is not None:
            log.warning("the other gateways may not have been told what was counted: %s", error)
