"""RMSProp against the classic rule in float64."""

import numpy as np
import pytest

from distributed_pg.algo.policy import Policy
from distributed_pg.algo.rmsprop import RMSProp


def random_like(policy: Policy, seed: int, scale: float) -> Policy:
    random = np.random.default_rng(seed)
    return Policy(
        *((scale * random.standard_normal(a.shape)).astype(np.float32) for a in policy.arrays)
    )


def test_by_hand() -> None:
    policy = Policy(np.array([[1.0]], np.float32), np.array([[2.0]], np.float32))
    gradient = Policy(np.array([[3.0]], np.float32), np.array([[0.0]], np.float32))
    cache = policy.zeros_like()
    RMSProp(learning_rate=0.1, decay=0.99, columns=7).step(policy, cache, gradient)
    # cache = 0.01 * 9 = 0.09;  W = 1 + 0.1 * 3 / (0.3 + 1e-5)
    assert cache.w1.item() == pytest.approx(0.09)
    assert policy.w1.item() == pytest.approx(1.0 + 0.3 / 0.30001)
    assert policy.w2.item() == 2.0


@pytest.mark.parametrize("weight_decay", [0.0, 5.0])
def test_follows_the_classic_rule_over_many_steps(weight_decay: float) -> None:
    policy = Policy.init(seed=0, inputs=700, hidden_units=90, actions=2)  # not a whole of blocks
    weights = [array.astype(np.float64) for array in policy.arrays]
    caches = [np.zeros_like(array) for array in weights]
    optimizer, squares = RMSProp(1e-3, 0.99, 7, weight_decay), policy.zeros_like()
    for step in range(30):
        gradient = random_like(policy, step, scale=5.0)
        optimizer.step(policy, squares, gradient)
        weights[0] *= 1.0 - 1e-3 * weight_decay
        for w, cache, g in zip(weights, caches, gradient.arrays, strict=True):
            g64 = g.astype(np.float64)
            cache *= 0.99
            cache += 0.01 * g64**2
            w += 1e-3 * g64 / (np.sqrt(cache) + 1e-5)
    for ours, expected in zip(policy.arrays, weights, strict=True):
        assert ours.dtype == np.float32
        assert np.allclose(ours, expected, rtol=1e-4, atol=1e-6)
    for ours, expected in zip(squares.arrays, caches, strict=True):
        assert np.allclose(ours, expected, rtol=1e-4, atol=0)


def test_the_weights_of_the_current_frame_move_by_its_edges() -> None:
    """The rule for dense weights V of the edges, from which those of the pixels follow."""
    rows, columns, units = 6, 5, 4
    policy = Policy.init(0, rows * columns, units, 2, current_frame=True)
    policy.w1[...] = random_like(policy, 1, scale=1.0).w1
    difference, frame = np.hsplit(policy.w1.astype(np.float64), 2)
    # to_pixels[r, e]: how much the weights of edge row e count for pixel row r.
    to_pixels = np.kron(np.eye(rows) - np.eye(rows, k=1), np.eye(columns))
    edges = np.linalg.solve(to_pixels, frame)
    caches = [np.zeros_like(difference), np.zeros_like(edges)]
    optimizer, squares = RMSProp(1e-3, 0.99, columns, weight_decay=5.0), policy.zeros_like()
    for step in range(30):
        gradient = random_like(policy, step, scale=5.0)
        optimizer.step(policy, squares, gradient)
        of_difference, of_frame = np.hsplit(gradient.w1.astype(np.float64), 2)
        gradients = of_difference, to_pixels.T @ of_frame
        for v, cache, g in zip((difference, edges), caches, gradients, strict=True):
            cache *= 0.99
            cache += 0.01 * g**2
            v *= 0.995
            v += 1e-3 * g / (np.sqrt(cache) + 1e-5)
    expected = np.hstack([difference, to_pixels @ edges])
    assert np.allclose(policy.w1, expected, rtol=1e-4, atol=1e-6)
    assert np.allclose(squares.w1, np.hstack(caches), rtol=1e-4, atol=0)


def test_works_in_place_and_leaves_the_gradient_alone() -> None:
    policy = Policy.init(seed=0, inputs=50, hidden_units=10, actions=2)
    before, w1 = policy.copy(), policy.w1
    gradient = random_like(policy, 1, 1.0)
    kept = gradient.copy()
    RMSProp(1e-3, 0.99, 10).step(policy, policy.zeros_like(), gradient)
    assert policy.w1 is w1
    assert not np.array_equal(policy.w1, before.w1)
    assert np.array_equal(gradient.w1, kept.w1)


def test_weights_without_a_gradient_stay() -> None:
    policy = Policy.init(seed=0, inputs=50, hidden_units=10, actions=2)
    before = policy.copy()
    gradient = policy.zeros_like()
    gradient.w1[3] = 1.0
    RMSProp(1e-3, 0.99, 10).step(policy, policy.zeros_like(), gradient)
    assert np.array_equal(np.delete(policy.w1, 3, axis=0), np.delete(before.w1, 3, axis=0))
    assert np.all(policy.w1[3] > before.w1[3])
