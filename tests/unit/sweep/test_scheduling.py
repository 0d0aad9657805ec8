"""How CPUs are shared among trials."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_pg.sweep.scheduling import is_worth_a_restart, shares


@given(st.integers(0, 50), st.lists(st.integers(1, 20), max_size=12))
def test_cpus_are_shared_evenly_and_all_of_them(cpus: int, limits: list[int]) -> None:
    given_ = shares(cpus, limits)
    assert len(given_) == len(limits)
    assert sum(given_) == min(cpus, sum(limits))
    assert all(0 <= share <= limit for share, limit in zip(given_, limits, strict=True))
    for share, limit in zip(given_, limits, strict=True):
        assert share == limit or max(given_) - share <= 1
    assert given_[len(limits) :] == []
    if cpus < len(limits):
        assert given_ == [1] * cpus + [0] * (len(limits) - cpus)


@pytest.mark.parametrize(
    ("cpus", "limits", "expected"),
    [
        (2, [4, 4], [1, 1]),
        (2, [4], [2]),
        (8, [4, 4, 4], [3, 3, 2]),
        (8, [1, 4, 4], [1, 4, 3]),
        (9, [2, 2], [2, 2]),
    ],
)
def test_some_shares(cpus: int, limits: list[int], expected: list[int]) -> None:
    assert shares(cpus, limits) == expected


def test_a_restart_has_to_pay() -> None:
    assert is_worth_a_restart(1, 2)
    assert not is_worth_a_restart(2, 3)
    assert not is_worth_a_restart(4, 4)
