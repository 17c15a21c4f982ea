"""What can go wrong with records and logs, named by what to do next.

EventsError
├── LogError
│   ├── LogUnavailable      try again later; a write may or may not have landed
│   ├── ProducerBroken      make a new producer, send the unacknowledged again in order
│   ├── RecordTooLarge      refuse the input; nothing was written
│   ├── RetentionGap        stop and page: records were deleted before they were read
│   ├── BadAddress          correct PARLEY_KAFKA; trying again is of no use
│   ├── LogInUse            another process holds the folder of the embedded log
│   └── TopicMismatch       the topics are missing or differ from the catalogue: `topics apply`
├── ObjectError
│   ├── ObjectMissing       the object is not there, or is another workspace's
│   └── ObjectsUnavailable  try again later; a write may or may not have landed
├── PdfUnreadable           tell whoever sent it; reading it again is of no use
└── RecordError
    └── Undecodable         the bytes are not a record: to `parley.rejected` (command), stop (fact)
"""

from __future__ import annotations


class EventsError(Exception):
    """The root of this package's errors."""


class LogError(EventsError):
    """The log could not do what was asked."""


class LogUnavailable(LogError):
    """The log cannot be reached, or did not answer in time; the outcome of a write is unknown."""


class ProducerBroken(LogError):
    """This producer failed once and takes nothing any more."""


class RecordTooLarge(LogError):
    """The record is larger than the log takes (8 MiB)."""


class RetentionGap(LogError):
    """The position asked for is below the oldest record kept."""

    def __init__(self, topic: str, partition: int, wanted: int, oldest: int) -> None:
        super().__init__(f"{topic}[{partition}]: wanted offset {wanted}, the oldest kept is {oldest}")
        self.topic, self.partition, self.wanted, self.oldest = topic, partition, wanted, oldest


class LogInUse(LogError):
    """The folder of the embedded log is held by another process."""

    def __init__(self, folder: str, pid: int | None) -> None:
        super().__init__(f"{folder} is in use" + (f" by process {pid}" if pid else ""))
        self.folder, self.pid = folder, pid


class BadAddress(LogError, ValueError):
    """The address of Kafka cannot be read; the message shows no secret."""


class TopicMismatch(LogError):
    """A topic is missing, or differs from the catalogue in a way that breaks a promise."""


class ObjectError(EventsError):
    """The object store could not do what was asked."""


class ObjectMissing(ObjectError):
    """There is no such object in this workspace."""


class ObjectsUnavailable(ObjectError):
    """The object store cannot be reached, or did not answer in time."""


class PdfUnreadable(EventsError):
    """There is no text to be had of a PDF; the message is a sentence that says why."""


class RecordError(EventsError):
    """A record is not what it should be."""


class Undecodable(RecordError):
    """The bytes cannot be read as a record; the message says why, without quoting content."""
