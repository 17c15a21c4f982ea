"""The broker's jars: fetched once, checked against their pins, and each way to fail is one line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from parley_standalone.parts import kafka
from parley_standalone.parts.errors import PartError
from parley_standalone.parts.kafka import Kafka, install_jars, jars_are_here


@pytest.fixture
def jars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pinned jars that are not installed yet, and where they will be."""
    place = tmp_path / "share" / "kafka"
    monkeypatch.setattr(kafka, "JARS", place)
    pins = {name: hashlib.sha256(content).hexdigest() for name, content in (("a.jar", b"a\n"), ("b.jar", b"b\n"))}
    monkeypatch.setattr(kafka, "_pins", lambda: pins)
    return place


def maven(tmp_path: Path, script: str) -> dict[str, str]:
    """A PATH on which `mvn` is this script; `$out` is the folder that it is told to fill."""
    path = tmp_path / "bin" / "mvn"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        '#!/bin/sh\nfor word in "$@"; do case $word in -DoutputDirectory=*) out=${word#*=};; esac; done\n'
        f"echo run >> {tmp_path}/runs\nmkdir -p $out\n{script}\n"
    )
    path.chmod(0o755)
    return {"PATH": f"{path.parent}:/usr/bin:/bin"}


GOOD = "echo a > $out/a.jar; echo b > $out/b.jar"


def refusal(env: dict[str, str]) -> str:
    with pytest.raises(PartError) as caught:
        install_jars(env)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_jars_are_fetched_once_and_then_need_neither_maven_nor_a_network(tmp_path: Path, jars: Path) -> None:
    assert not jars_are_here()
    install_jars(maven(tmp_path, GOOD))
    assert jars_are_here()
    install_jars({"PATH": "/nowhere"})
    assert (tmp_path / "runs").read_text() == "run\n"
    assert sorted(path.name for path in jars.parent.iterdir()) == ["kafka"]


def test_a_jar_that_is_cut_or_gone_is_fetched_again(tmp_path: Path, jars: Path) -> None:
    env = maven(tmp_path, GOOD)
    install_jars(env)
    (jars / "a.jar").write_text("")
    assert not jars_are_here()
    install_jars(env)
    (jars / "b.jar").unlink()
    assert not jars_are_here()
    install_jars(env)
    assert jars_are_here()


def test_without_maven_one_line_says_what_is_missing(jars: Path) -> None:
    assert refusal({"PATH": "/nowhere"}).startswith("Maven (mvn) is not on the path")


def test_maven_without_a_network_is_one_line_with_its_reason(tmp_path: Path, jars: Path) -> None:
    line = refusal(
        maven(tmp_path, "echo '[INFO] x'; printf '\\033[0m[ERROR] Unknown host\\n'; echo '[ERROR] more'; exit 1")
    )
    assert line == "Maven could not fetch Apache Kafka 4.4.0 (is there a network?): [ERROR] Unknown host"
    assert refusal(maven(tmp_path, "echo 'no java' >&2; exit 1")).endswith(": no java")
    assert refusal(maven(tmp_path, "exit 1")).endswith(": no reason given")


def test_maven_that_hangs_or_cannot_be_run_is_one_line(
    tmp_path: Path, jars: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "_MAVEN_S", 0.2)
    assert refusal(maven(tmp_path, "exec sleep 60")).endswith("it was not done after 0.2 s")
    env = maven(tmp_path, "")
    (tmp_path / "bin" / "mvn").write_text("#!/no/such/shell\n")
    assert "mvn cannot be run: " in refusal(env)


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("echo other > $out/a.jar; echo b > $out/b.jar", "a.jar is not the file that Parley pins"),
        ("echo a > $out/a.jar", "b.jar is not the file that Parley pins"),
        (f"{GOOD}; echo c > $out/c.jar", "Maven brought jars that Parley does not pin: c.jar"),
    ],
)
def test_what_is_not_pinned_is_never_installed(tmp_path: Path, jars: Path, script: str, line: str) -> None:
    assert refusal(maven(tmp_path, script)).startswith(line)
    assert not jars.exists() and not jars_are_here()


def test_the_pins_name_the_broker_and_are_whole() -> None:
    pins = kafka._pins()
    assert f"kafka_2.13-{kafka.VERSION}.jar" in pins
    assert all(len(digest) == 64 and name.endswith(".jar") for name, digest in pins.items())


def test_a_broker_that_does_not_start_says_why_on_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "install_jars", lambda _: None)
    home = tmp_path / "home" / "bin"
    home.mkdir(parents=True)
    java = home / "java"
    java.write_text(
        '#!/bin/sh\ncase "$*" in *-version*) echo \'version "17"\' >&2; exit 0;; *StorageTool*) exit 0;; esac\n'
        "echo 'java.lang.RuntimeException: the disk is full'; printf '\\tat kafka.Kafka.main\\n'; exit 1\n"
    )
    java.chmod(0o755)
    broker = Kafka(tmp_path / "kafka", tmp_path / "kafka.log", {"JAVA_HOME": str(home.parent), "PATH": "/usr/bin:/bin"})
    with pytest.raises(PartError) as caught:
        broker.start()
    assert str(caught.value) == (
        f"Kafka did not start: java.lang.RuntimeException: the disk is full ({tmp_path}/kafka.log)"
    )
    assert not broker.alive


def test_a_path_with_a_comma_stays_one_folder(tmp_path: Path) -> None:
    broker = Kafka(tmp_path / "a, b", tmp_path / "log", {})
    broker._controller = 1
    [line] = [line for line in broker._settings().splitlines() if line.startswith("log.dirs=")]
    assert "," not in line


def test_the_port_is_kept_and_another_one_taken_only_when_it_is_taken(tmp_path: Path) -> None:
    broker = Kafka(tmp_path, tmp_path / "log", {})
    broker._choose_ports()
    again = Kafka(tmp_path, tmp_path / "log", {})
    again._choose_ports()
    assert again.port == broker.port
    assert json.loads((tmp_path / "ports.json").read_text())["broker"] == broker.port
