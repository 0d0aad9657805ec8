"""A trained policy chooses actions as its probabilities say."""

from dataclasses import replace

import numpy as np
import pytest

from distributed_pg.algo.policy import Policy
from distributed_pg.algo.state import Progress
from distributed_pg.config import TrainConfig
from distributed_pg.storage.policy_file import TrainedPolicy

CONFIG = TrainConfig(hidden_units=1, crop=(35, 39, 0, 4))
W1 = np.array([[1.0], [0.0], [0.0], [0.0]], np.float32)
WINS, LOSES = (Policy(W1, np.array([[logit, 9.0]], np.float32)) for logit in (1.0, -1.0))
TRAINED = TrainedPolicy(CONFIG, WINS, Progress())
SEEN, UNSEEN = np.array([[1, 0], [0, 0]], np.int8), np.array([[-1, 0], [0, 0]], np.int8)
"""The hidden unit is 1 and 0; the first action's logit is 1 or -1 times that, the last one's 0."""


def test_the_most_probable_action_is_taken() -> None:
    for policy, expected in ((WINS, 0), (LOSES, 1)):
        action, state = replace(TRAINED, policy=policy).predict(SEEN, deterministic=True)
        assert action == expected
        assert state is None


def test_actions_of_a_batch_are_sampled() -> None:
    trained = replace(TRAINED, random=np.random.default_rng(0))
    batch = np.stack([SEEN, UNSEEN] * 2000)
    actions, state = trained.predict(batch)
    assert state is None
    assert isinstance(actions, np.ndarray)
    assert actions.shape == (4000,)
    assert actions.dtype == np.int64
    # 1 / (1 + e) and 1/2; four standard errors are 0.04 and 0.045.
    assert actions[::2].mean() == pytest.approx(1 / (1 + np.e), abs=0.04)
    assert actions[1::2].mean() == pytest.approx(0.5, abs=0.045)


def test_what_stands_still_counts_if_the_policy_sees_the_current_frame() -> None:
    w1 = np.array([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], np.float32)
    trained = TrainedPolicy(
        replace(CONFIG, current_frame=True),
        Policy(w1, WINS.w2),
        Progress(),
        np.random.default_rng(0),
    )
    nothing = np.zeros((2, 2), np.int8)
    there, gone = np.stack([nothing, SEEN]), np.stack([-SEEN, nothing])
    actions, _ = trained.predict(np.stack([there, gone] * 2000))
    assert isinstance(actions, np.ndarray)
    assert actions[::2].mean() == pytest.approx(1 / (1 + np.e), abs=0.04)
    assert actions[1::2].mean() == pytest.approx(0.5, abs=0.045)
    assert trained.predict(there, deterministic=True)[0] == 0
    with pytest.raises(
        ValueError, match=r"^observation: .*; allowed: \(2, 2, 2\), or a batch \(N, 2"
    ):
        trained.predict(nothing)


@pytest.mark.parametrize("shape", [(2,), (3, 2), (1, 1, 2, 2), (4, 3, 2)])
def test_another_shape_is_refused_in_one_line(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^observation: has the shape .*; allowed: \(2, 2\), or"):
        TRAINED.predict(np.zeros(shape, np.int8))
