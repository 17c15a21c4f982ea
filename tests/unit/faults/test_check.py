"""The checker as a whole: sound evidence passes, none at all does not, and evidence can be kept and looked at again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.faults.check import CHECKS, PROMISES, check
from tests.faults.check.__main__ import main
from tests.faults.check.report import details, table
from tests.faults.check.stops import unpaired
from tests.faults.evidence import Evidence, dump, load
from tests.unit.faults.made import PARTITIONS
from tests.unit.faults.sound import sound

SOUND = sound()


def test_sound_evidence_passes() -> None:
    assert check(SOUND.evidence) == []


def test_no_evidence_is_no_proof() -> None:
    found = check(Evidence("nothing", 1, PARTITIONS))
    assert {"there are no commands: nothing can be told from that", "there is not one run on the log that counts"} <= {
        violation.what for violation in found
    }


@pytest.mark.parametrize(
    "part", ["commands", "events", "requests", "followers", "views", "ends", "committed", "memory", "ledger"]
)
def test_each_part_is_needed_unless_it_was_left_out_on_purpose(part: str) -> None:
    empty: Any = {} if isinstance(getattr(SOUND.evidence, part), dict) else ()
    assert 0 in {violation.promise for violation in check(replace(SOUND.evidence, **{part: empty}))}


def test_evidence_is_kept_and_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump(SOUND.evidence, tmp_path / "sound.json")
    assert load(tmp_path / "sound.json") == SOUND.evidence
    dump(replace(SOUND.evidence, committed={0: 0, 1: 0}), tmp_path / "broken.json")
    assert main([str(tmp_path / "sound.json")]) == 0
    assert main([str(tmp_path / "sound.json"), str(tmp_path / "broken.json")]) == 1
    assert "6 recovery: the offset 0 is committed" in capsys.readouterr().out
    assert main([]) == 2


def test_the_table_has_every_fault_and_promise() -> None:
    broken = check(replace(SOUND.evidence, committed={}))
    text = table([("SIGKILL", []), ("broker restart", broken)])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert [row[0] for row in rows] == ["fault", rows[1][0], "SIGKILL", "broker restart", "2 faults"]
    assert rows[0][1:] == [f"{number} {name}" for number, name in PROMISES.items()]
    assert rows[2][1:] == ["ok"] * len(PROMISES)
    assert dict(zip(rows[0], rows[3], strict=True))["0 evidence"] == "1"
    assert dict(zip(rows[0], rows[4], strict=True))["0 evidence"] == "1/2"
    assert details([("SIGKILL", [])]) == ""
    assert details([("broker restart", broken * 20)]).endswith("  6 … and 30 more")
    assert set(CHECKS) == set(PROMISES)


def test_a_check_that_breaks_does_not_pass() -> None:
    views: Any = {**SOUND.evidence.views, "runs": ({"no": "id"},)}
    [found] = check(replace(SOUND.evidence, views=views))
    assert found.promise == 4 and "broke on this evidence" in found.what
    events: Any = ("no record",)
    assert [one.promise for one in check(replace(SOUND.evidence, events=events))] == [0]


def test_calls_and_results_are_matched_message_by_message() -> None:
    def message(role: str, *parts: dict[str, str]) -> dict[str, Any]:
        return {"role": role, "content": list(parts)}

    call = {"type": "tool_use", "id": "a"}
    result = {"type": "tool_result", "tool_use_id": "a"}
    assert list(unpaired([message("user"), message("assistant", call, call), message("user", result, result)])) == []
    assert list(unpaired([message("assistant", call)])) == ["the call a without a result"]
    assert list(unpaired([message("assistant", call), message("user")])) == ["the call a without a result"]
    assert list(unpaired([message("assistant", call), message("user", result, result)])) == [
        "a result of a, which was not called in the message before"
    ]
    assert list(unpaired([message("user"), message("user")])) == ["two messages of the user after one another"]
