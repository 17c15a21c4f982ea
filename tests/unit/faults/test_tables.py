"""The suite's tables agree: every guard has its scenario, every scenario says what it breaks and what is expected."""

from __future__ import annotations

from tests.faults.boundaries import WRAP
from tests.faults.cluster import COUNTS
from tests.faults.guards import NEEDED
from tests.faults.scenarios import SCENARIOS, SHORT, strikes
from tests.faults.unguarded import GUARDS


def test_every_guard_has_a_scenario_that_needs_it() -> None:
    assert NEEDED.keys() == GUARDS.keys()
    for name, need in NEEDED.items():
        assert need.scenario in SCENARIOS, name
        assert need.why and GUARDS[name].what and set(GUARDS[name].takers) <= set(COUNTS)


def test_every_scenario_says_what_when_and_what_is_expected() -> None:
    for name, scenario in SCENARIOS.items():
        assert scenario.name == name
        assert scenario.fault and scenario.when and scenario.expected
    assert set(SHORT) <= set(SCENARIOS)
    assert WRAP.keys() == COUNTS.keys()


def test_every_boundary_of_a_dispatcher_is_struck_by_kills_and_by_stops() -> None:
    for action in ("kill", "stop"):
        blows = strikes.blows(action)
        assert len(blows) == len({blow.name for blow in blows})
        struck = {name for name, scenario in SCENARIOS.items() if name.startswith(f"{action} ") and name[-1].isdigit()}
        said = "; ".join(SCENARIOS[name].when for name in sorted(struck))
        for blow in blows:
            assert blow.name.removeprefix(f"{action} at ") in said
