"""What every consumer of Kafka needs: started and stopped whole, answers in time, and no silence of dead tasks.

`kafka_tail` and `kafka_group` read with it, `kafka` asks where topics begin and end. `kafka` has the list of aiokafka's
traps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError, RebalanceInProgressError

from parley_events.errors import LogUnavailable

ANSWER_S = 5.0
POLL_S = 0.5
Answer = TypeVar("Answer")


async def in_time(work: Awaitable[Answer], limit_s: float = ANSWER_S) -> Answer:
    """The answer, or LogUnavailable when the broker does not give one in time."""
    try:
        return await asyncio.wait_for(work, limit_s)
    except TimeoutError:
        raise LogUnavailable(f"Kafka did not answer within {limit_s:g} s") from None
    except (KafkaError, OSError) as error:
        raise LogUnavailable(f"Kafka: {type(error).__name__}") from error


async def started(consumer: AIOKafkaConsumer, limit_s: float) -> None:
    """Start a consumer; what could not be started leaves nothing behind."""
    try:
        await in_time(consumer.start(), limit_s)
    except BaseException:
        await stop(consumer)
        raise


async def stop(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer, in time and whole. While the broker is away aiokafka's own `stop` waits for long, or breaks off
    with the cancellation of one of its tasks as if it were ours: what it leaves is ended here."""
    if await ended(consumer.stop(), ANSWER_S):
        return
    tasks = {getattr(consumer._fetcher, "_fetch_task", None), *getattr(consumer._fetcher, "_pending_tasks", ())}
    for name in ("_coordination_task", "_heartbeat_task", "_commit_refresh_task", "_reset_committed_task"):
        tasks.add(getattr(consumer._coordinator, name, None))
    left = {task for task in tasks if task is not None and not task.done()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=1.0)
    await ended(consumer._client.close(), 1.0)


async def ended(work: Coroutine[Any, Any, Any], limit_s: float) -> bool:
    """Whether the work came to a good end in time; else it is cancelled."""
    task = asyncio.create_task(work)
    done, _ = await asyncio.wait({task}, timeout=limit_s)
    if not done:
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)
        return False
    return not task.cancelled() and task.exception() is None


def keep_commits_out_of_joins(consumer: AIOKafkaConsumer) -> None:
    """A commit that is sent while the group is joined again names no generation, or the one before, and is refused.
    aiokafka then forgets what it was just told and joins as yet another member, for which everyone waits until the one
    that it was has expired: with a commit each second that never ends, and the whole group stands still with it."""
    coordinator, send = consumer._coordinator, consumer._coordinator._do_commit_offsets

    async def outside(assignment: Any, offsets: Any) -> None:
        if consumer._subscription.reassignment_in_progress or coordinator.generation < 0:
            raise RebalanceInProgressError
        await send(assignment, offsets)

    coordinator._do_commit_offsets = outside


def check_alive(consumer: AIOKafkaConsumer) -> None:
    """Raise when one of aiokafka's own tasks has died: it would idle for ever and say nothing (#983, #1154)."""
    fetcher = consumer._fetcher
    if fetcher is not None and fetcher._fetch_task.done():
        raise LogUnavailable("aiokafka's fetch task is dead")
    coordinator = consumer._coordinator
    task = getattr(coordinator, "_coordination_task", None)
    if task is not None and task.done():
        raise LogUnavailable("aiokafka's group coordination task is dead")
