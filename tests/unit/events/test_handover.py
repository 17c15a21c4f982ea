"""Partitions move only when their owner gives them; every partition has exactly one owner; shares come out even."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from parley_events.log.handover import Held, Share, shares

PARTITIONS = range(8)


def held(number: int, *partitions: int) -> Held:
    return Held(number, frozenset(partitions))


def play(members: dict[str, Held]) -> dict[str, Held]:
    """Rebalance after rebalance, each member giving at once what is wanted of it, until nothing is."""
    for _ in range(10):
        told = shares(PARTITIONS, members)
        members = {name: Held(share.round, share.partitions - share.wanted) for name, share in told.items()}
        if not any(share.wanted for share in told.values()):
            return members
    raise AssertionError("it never comes to rest")


def test_the_first_member_gets_everything() -> None:
    assert shares(PARTITIONS, {"a": Held()}) == {"a": Share(0, frozenset(PARTITIONS))}


def test_a_new_member_gets_nothing_before_the_others_give_it() -> None:
    told = shares(PARTITIONS, {"a": held(0, *PARTITIONS), "b": Held()})
    assert told["a"].partitions == frozenset(PARTITIONS) and told["b"].partitions == frozenset()
    assert len(told["a"].wanted) == 4
    after = shares(PARTITIONS, {"a": Held(1, told["a"].partitions - told["a"].wanted), "b": Held(1)})
    assert after["b"].partitions == told["a"].wanted
    assert after["a"].wanted == frozenset() == after["b"].wanted


def test_what_a_member_that_died_held_goes_to_those_that_have_least() -> None:
    told = shares(PARTITIONS, {"a": held(3, 0, 1, 2), "b": held(3, 3, 4)})
    assert told["a"].partitions >= {0, 1, 2} and len(told["a"].partitions) == 4
    assert told["b"].partitions >= {3, 4} and len(told["b"].partitions) == 4
    assert not told["a"].wanted | told["b"].wanted


def test_what_a_member_held_before_it_was_away_does_not_count() -> None:
    told = shares(PARTITIONS, {"a": held(2, *PARTITIONS), "b": held(7, *range(4)), "c": held(7, *range(4, 8))})
    assert (told["b"].partitions, told["c"].partitions) == (frozenset(range(4)), frozenset(range(4, 8)))
    assert told["a"].partitions == frozenset() and told["a"].round == 8


def test_what_a_member_says_may_be_anything() -> None:
    assert [Held.decode(data) for data in (b"", b"\xff", b"[1]", b'["x", []]', b"{}", b"[0, 5]")] == [Held()] * 6
    assert Held.decode(held(4, 2, 1).encode()) == held(4, 1, 2)
    share = Share(4, frozenset({1, 2}), frozenset({2}))
    assert Share.decode([2, 1], share.encode()) == share


@given(
    st.dictionaries(
        st.text("abcdef", min_size=1, max_size=2),
        st.builds(Held, st.integers(-1, 5), st.frozensets(st.integers(0, 9), max_size=10)),
        min_size=1,
        max_size=6,
    )
)
def test_each_partition_has_one_owner_and_nobody_loses_what_it_alone_holds(members: dict[str, Held]) -> None:
    told = shares(PARTITIONS, members)
    assert sorted(p for share in told.values() for p in share.partitions) == list(PARTITIONS)
    for name, share in told.items():
        assert share.wanted <= share.partitions
        others = frozenset().union(*(member.partitions for other, member in members.items() if other != name))
        assert members[name].partitions & frozenset(PARTITIONS) - others <= share.partitions
    sizes = [len(member.partitions) for member in play(members).values()]
    assert max(sizes) - min(sizes) <= 1
