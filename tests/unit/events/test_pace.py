"""When batches leave: few at once, many gathered, and nobody waits in vain for long."""

from __future__ import annotations

import random

from parley_events.log.pace import FULL, Pace


def turns(pace: Pace, sent: list[tuple[float, bytes]]) -> list[tuple[float, int]]:
    """When turns come, and how many records leave with each, as a producer goes by them."""
    left: list[tuple[float, int]] = []
    due, count = 0.0, 0
    for now, stream in sent:
        if count and now >= due:
            left.append((due, count))
            count = 0
        if not count:
            due = now + pace.take(now, stream)
        elif pace.came(stream, now):
            due = min(due, now)
        count += 1
    return [*left, (due, count)]


def one_by_one(pace: Pace, count: int, think_s: float) -> float:
    """How long one client takes that waits for each answer: each record is of its own stream."""
    now = 0.0
    for number in range(count):
        now += pace.take(now, b"%d" % number) + think_s
    return now


def test_few_leave_at_once() -> None:
    pace = Pace(50, at_once=10)
    assert all(pace.take(0.0, b"%d" % n) == 0 for n in range(10))
    assert all(pace.take(1 + n / 40, b"%d" % n) == 0 for n in range(400))


def test_many_leave_together_at_the_rate_that_was_set() -> None:
    chance = random.Random(1)
    sent, now = [], 0.0
    for number in range(5000):
        now += chance.expovariate(50 * FULL / 2)
        sent.append((now, b"%d" % number))
    left = turns(Pace(50, at_once=10), sent)
    assert sum(count for _, count in left) == len(sent)
    assert len(left) <= 50 * now * 1.1 + 10
    waits = [then - sent[sum(count for _, count in left[:place])][0] for place, (then, _) in enumerate(left)]
    assert max(waits) <= 0.02 + 1e-9


def test_a_full_turn_is_not_waited_for_and_holds_up_none_after_it() -> None:
    pace = Pace(50, at_once=10)
    sent = [(number / 10_000, b"%d" % number) for number in range(10_000)]
    left = turns(pace, sent)
    assert {count for _, count in left[10:-1]} == {FULL + 1}
    now, waited = sent[-1][0], []
    for number in range(100):
        now += 0.025
        waited.append(pace.take(now, b"%d" % number))
    assert max(waited) <= 0.02 + 1e-9, "a load that has gone is not paid for"


def test_who_waits_for_each_answer_is_held_up_for_a_moment_only() -> None:
    alone = one_by_one(Pace(0), 1000, 0.006)
    assert one_by_one(Pace(50, at_once=10), 1000, 0.006) < 1.15 * alone
    assert alone < 6.01, "0: nobody waits"


def test_records_of_one_stream_are_no_company_to_each_other() -> None:
    pace = Pace(50, at_once=1)
    waited = []
    for number in range(100):
        waited.append(pace.take(number * 0.03 / 2, b"same"))
        pace.came(b"same", number * 0.03 / 2)
    assert sum(wait > 0 for wait in waited) < 15


def test_company_is_waited_for_again_once_there_is_some() -> None:
    pace, now = Pace(50, at_once=1), 0.0
    for number in range(200):
        now += 0.005 + pace.take(now, b"%d" % number)
    waited = 0
    for number in range(200):
        wait_s = pace.take(now, b"%d" % number)
        waited += wait_s > 0
        if wait_s:
            pace.came(b"another", now + wait_s)
        now += 0.005 + wait_s
    assert waited > 60
