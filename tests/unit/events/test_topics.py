"""The topic catalogue, and the command that shows it."""

from __future__ import annotations

import pytest

from parley_events.__main__ import main
from parley_events.codec import COMMANDS_TOPIC, EVENTS_TOPIC, MAX_VALUE_BYTES
from parley_events.counts import COUNTS_TOPIC
from parley_events.pieces import DELTAS_TOPIC
from parley_events.settings import Settings
from parley_events.topics import MAX_RECORD_BYTES, TOPICS


def test_the_catalogue_has_what_is_promised_of_each_topic() -> None:
    assert list(TOPICS) == [COMMANDS_TOPIC, EVENTS_TOPIC, DELTAS_TOPIC, COUNTS_TOPIC, "parley.rejected"]
    days = {name: (topic.retention_ms or 0) / 86_400_000 for name, topic in TOPICS.items()}
    hints = {DELTAS_TOPIC: 2 / 24, COUNTS_TOPIC: 2 / 24}
    assert days == {COMMANDS_TOPIC: 14, EVENTS_TOPIC: 0, **hints, "parley.rejected": 90}
    assert TOPICS[EVENTS_TOPIC].retention_ms is None, "facts are kept for ever"
    assert TOPICS[EVENTS_TOPIC].writers == TOPICS[DELTAS_TOPIC].writers == ("dispatcher",)
    assert [name for name, topic in TOPICS.items() if not topic.durable] == list(hints)


@pytest.mark.parametrize("name", sorted(TOPICS))
def test_a_broker_keeps_a_topic_as_the_catalogue_says(name: str) -> None:
    topic = TOPICS[name]
    settings = topic.settings()
    assert settings["cleanup.policy"] == "delete", "nothing is ever compacted away"
    assert settings["retention.ms"] == ("-1" if topic.retention_ms is None else str(topic.retention_ms))
    assert settings["retention.bytes"] == "-1"
    assert settings["message.timestamp.type"] == "LogAppendTime"
    assert settings["unclean.leader.election.enable"] == "false"
    assert int(settings["max.message.bytes"]) > MAX_RECORD_BYTES > MAX_VALUE_BYTES


def test_the_list_shows_every_topic_with_who_writes_and_reads_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topics", "list"]) == 0
    shown = capsys.readouterr().out
    for topic in TOPICS.values():
        assert f"{topic.name}\n    {topic.holds}; kept " in shown
        assert f"written by {', '.join(topic.writers)}; read by {', '.join(topic.readers)}" in shown
    assert "kept for ever" in shown and "kept 336 h" in shown


@pytest.mark.parametrize("arguments", [[], ["topics"], ["topics", "drop"], ["topics", "apply", "--partitions", "many"]])
def test_what_the_command_does_not_know_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m parley_events" in capsys.readouterr().err


def test_the_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PARLEY_KAFKA", "PARLEY_PARTITIONS", "PARLEY_REPLICATION"):
        monkeypatch.delenv(name, raising=False)
    assert Settings.from_env() == Settings("127.0.0.1:9092", 8, 1)
    monkeypatch.setenv("PARLEY_KAFKA", "kafka.example.org:9093")
    monkeypatch.setenv("PARLEY_PARTITIONS", "48")
    monkeypatch.setenv("PARLEY_REPLICATION", "3")
    assert Settings.from_env() == Settings("kafka.example.org:9093", 48, 3)


@pytest.mark.parametrize("name", ["PARLEY_PARTITIONS", "PARLEY_REPLICATION"])
def test_a_setting_that_is_no_number_is_one_clear_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "many")
    assert main(["topics", "list"]) == 1
    assert capsys.readouterr().err == f"{name} must be a whole number, not 'many'\n"
