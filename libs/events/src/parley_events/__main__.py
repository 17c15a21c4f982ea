"""`python -m parley_events topics list | apply | check`: the topic catalogue, and a broker held against it."""

from __future__ import annotations

import argparse
import asyncio
import sys

from parley_events.errors import EventsError
from parley_events.settings import Settings
from parley_events.topics import TOPICS


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0, or 1 with one line that says what is wrong."""
    try:
        settings = Settings.from_env()
    except EventsError as error:
        print(error, file=sys.stderr)
        return 1
    parser = argparse.ArgumentParser(prog="python -m parley_events", description=__doc__)
    topics = parser.add_subparsers(dest="noun", required=True).add_parser("topics")
    topics.add_argument("verb", choices=["list", "apply", "check"])
    topics.add_argument("--bootstrap", default=settings.kafka)
    topics.add_argument("--partitions", type=int, default=settings.partitions)
    topics.add_argument("--replication", type=int, default=settings.replication)
    chosen = parser.parse_args(arguments)
    if chosen.verb == "list":
        for topic in TOPICS.values():
            kept = "for ever" if topic.retention_ms is None else f"{topic.retention_ms / 3_600_000:g} h"
            print(f"{topic.name}\n    {topic.holds}; kept {kept}")
            print(f"    written by {', '.join(topic.writers)}; read by {', '.join(topic.readers)}")
        return 0
    from parley_events.log.kafka_topics import apply_topics, check_topics

    try:
        if chosen.verb == "apply":
            for line in asyncio.run(apply_topics(chosen.bootstrap, chosen.partitions, chosen.replication)):
                print(line)
        print(f"{asyncio.run(check_topics(chosen.bootstrap))} partitions on each topic, as the catalogue says")
    except (EventsError, TimeoutError) as error:
        print(str(error) or "Kafka did not answer in time", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
