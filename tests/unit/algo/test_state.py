"""The counters and means of a run, against their definitions over all episodes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distributed_pg.algo.state import WINDOW, Progress


@given(
    batch_size=st.integers(1, 70),
    rewards=st.lists(st.integers(-21, 21), min_size=1, max_size=400),
)
def test_the_peak_is_the_first_highest_mean_of_the_last_100(
    batch_size: int, rewards: list[int]
) -> None:
    progress = Progress()
    means: dict[int, float] = {}
    for end in range(batch_size, len(rewards) + 1, batch_size):
        progress = progress.after_update(rewards[end - batch_size : end], 20, 1.0)
        if end >= WINDOW:
            means[end] = float(np.mean(rewards[max(0, end - WINDOW) : end]))
    if not means:
        assert progress.peak_mean_100 is None
        assert progress.episodes_since_peak == 0
        return
    assert progress.peak_mean_100 == max(means.values())
    at = min(end for end, mean in means.items() if mean == max(means.values()))
    assert progress.peak_episodes == at
    assert progress.episodes_since_peak == max(means) - at
