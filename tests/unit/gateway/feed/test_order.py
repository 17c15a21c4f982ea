"""A listener of many streams gets the facts of a partition in their order, though the hub has some of them late."""

from __future__ import annotations

from typing import Any

import pytest

from parley_events.pieces import Piece
from parley_gateway.feed.hub import every_thread
from parley_gateway.feed.order import InOrder, tap
from tests.unit.gateway.feed.test_hub import (
    LARGE,
    NEIGHBOUR,
    THREAD,
    WORKSPACE,
    Bench,
    Store,
    bench,
    called,
    created,
    heard,
    large,
    returned,
    until,
)

__all__ = ["bench"]

BOTH = (THREAD, NEIGHBOUR)


def idle(listener: InOrder) -> bool:
    return listener.empty


def over(listener: InOrder) -> bool:
    return listener.closed


def places(facts: list[Any]) -> list[tuple[str, int]]:
    return [(fact.stream, fact.seq) for fact in facts]


async def test_what_stands_behind_a_late_fact_waits_for_it_whatever_its_stream(bench: Bench) -> None:
    store = bench.objects = Store(bench.objects)
    epoch = await bench.claim()
    hub = await bench.start()
    listener, plain = InOrder(hub, BOTH, ""), hub.listen(NEIGHBOUR)
    hub.attend(listener)
    store.away = True
    await bench.fact(1, called(), epoch)
    await large(bench, 2, epoch)
    await bench.fact(1, created(), epoch, NEIGHBOUR)
    await bench.fact(3, called(2), epoch)
    await bench.fact(2, created(), epoch, NEIGHBOUR)
    assert places(await heard(plain, 2)) == [(NEIGHBOUR, 1), (NEIGHBOUR, 2)]
    assert places(listener.grab()) == [(THREAD, 1)]
    assert not idle(listener) and listener.queued[0] == 2, "what waits counts"
    store.away = False
    facts = await heard(listener, 4)
    assert places(facts) == [(THREAD, 2), (NEIGHBOUR, 1), (THREAD, 3), (NEIGHBOUR, 2)]
    assert facts[0].body.blocks[0].text == LARGE
    assert idle(listener) and [fact.offset for fact in facts] == sorted(fact.offset for fact in facts)
    await bench.fact(3, created(), epoch, NEIGHBOUR)
    assert places(await heard(listener, 1)) == [(NEIGHBOUR, 3)]


async def test_who_comes_while_a_fact_is_late_is_not_held_up_by_it(bench: Bench) -> None:
    store = bench.objects = Store(bench.objects)
    epoch = await bench.claim()
    hub = await bench.start()
    first = hub.listen(THREAD)
    store.away = True
    await large(bench, 1, epoch)
    await until(lambda: hub._held)
    listener = InOrder(hub, BOTH, "")
    hub.attend(listener)
    await bench.fact(1, created(), epoch, NEIGHBOUR)
    assert places(await heard(listener, 1)) == [(NEIGHBOUR, 1)]
    store.away = False
    assert places(await heard(first, 1)) == [(THREAD, 1)]
    assert places(await heard(listener, 1)) == [(THREAD, 1)], "it lies below where that began to listen"


async def test_a_fact_that_does_not_come_closes_it_and_nothing_after_it_is_given(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_gateway.feed.hub.CONTENTS_S", 0.05)
    store = bench.objects = Store(bench.objects)
    epoch = await bench.claim()
    hub = await bench.start()
    listener = InOrder(hub, BOTH, "")
    hub.attend(listener)
    store.away = True
    await large(bench, 1, epoch)
    await bench.fact(1, created(), epoch, NEIGHBOUR)
    await until(lambda: listener.closed)
    assert await listener.take(0) == []


async def test_a_fact_whose_contents_are_of_no_use_closes_it(bench: Bench) -> None:
    """It cannot be decoded: a listener of one stream finds the hole at the next fact, this one must be told."""
    epoch = await bench.claim()
    hub = await bench.start()
    listener = InOrder(hub, BOTH, "")
    hub.attend(listener)
    listener.held(hub.partition(THREAD), 99)
    listener.lost(hub.partition(THREAD), 98)
    assert not over(listener)
    listener.lost(hub.partition(THREAD), 99)
    assert over(listener)
    await bench.fact(1, created(), epoch, NEIGHBOUR)
    assert await listener.take(0) == []


async def test_what_waits_behind_a_late_fact_is_bounded(bench: Bench) -> None:
    store = bench.objects = Store(bench.objects)
    epoch = await bench.claim()
    hub = await bench.start(queue_items=3)
    listener = InOrder(hub, BOTH, "")
    hub.attend(listener)
    store.away = True
    await large(bench, 1, epoch)
    for seq in range(1, 6):
        await bench.fact(seq, created(), epoch, NEIGHBOUR)
    await until(lambda: listener.closed)
    assert await listener.take(0) == [] and hub.counts.closed == 1


async def test_it_is_closed_with_its_owner_and_left_by_all_its_streams(bench: Bench) -> None:
    hub = await bench.start()
    mine, other = InOrder(hub, BOTH, "key-1"), InOrder(hub, BOTH, "key-2")
    hub.mute(mine)
    assert hub.listening == 0
    hub.attend(mine)
    hub.attend(other)
    assert hub.listening == 2
    hub.close_owned_by("key-1")
    assert mine.closed and not other.closed
    hub.leave(mine)
    hub.leave(other)
    assert hub.listening == 0 and not hub._listeners and not hub._muted
    hub.mute(unheard := InOrder(hub, BOTH, "key-1"))
    hub.close_owned_by("key-1")
    assert unheard.closed, "before it listens, too"


async def test_what_a_workspace_has_itself_holds_up_no_thread_of_it(bench: Bench) -> None:
    """A document may be large; it is nothing to those who follow threads."""
    store = bench.objects = Store(bench.objects)
    epoch = await bench.claim()
    hub = await bench.start()
    listener = InOrder(hub, (every_thread(WORKSPACE),), "")
    hub.attend(listener)
    store.away = True
    own = next(f"ws:{n}" for n in range(99) if hub.partition(f"ws:{n}") == hub.partition(THREAD))
    await large(bench, 1, epoch, own)
    await until(lambda: hub.end_of(THREAD).endswith(".2"))
    assert idle(listener) and not hub._held and store.asked == 0


async def test_a_tap_brings_pieces_alone_and_can_be_closed(bench: Bench) -> None:
    epoch = await bench.claim()
    hub = await bench.start()
    listener = InOrder(hub, BOTH, "")
    hub.attend(listener)
    await bench.piece(1, 0, "unheard", epoch)
    await until(lambda: hub.kept(THREAD))
    close = tap(hub, THREAD, listener)
    await bench.piece(1, 7, "heard", epoch)
    (piece,) = await heard(listener, 1)
    assert isinstance(piece, Piece) and piece.text == "heard"
    await bench.fact(1, returned(1, "all"), epoch)
    assert places(await heard(listener, 1)) == [(THREAD, 1)], "once"
    close()
    assert hub.listening == 1
