"""The method of the classic 130-line Pong script: RGB frames of gymnasium, dense float64 numpy.

For a policy that sees the current frame, the dense input holds that, too.
"""

import ale_py
import gymnasium
import numpy as np
from numpy.typing import NDArray

from distributed_pg.algo.policy import Policy

Dense = NDArray[np.float64]


def dense_weights(policy: Policy) -> list[Dense]:
    """The weights of ``policy`` in the classic script's layout: float64 (H, D) and (H,).

    For a policy that sees the current frame, (H, 2 D): its weights follow those of the difference.
    """
    w1 = np.concatenate(policy.planes)
    return [w1.T.astype(np.float64, order="C"), policy.w2[:, 0].astype(np.float64)]


class ClassicPlayer:
    """Plays ALE/Pong-v5 and computes gradients as the classic script does.

    Args:
        seed: seed of the games and the sampling.
        frame_skip: emulated frames per step.
    """

    def __init__(self, seed: int, frame_skip: int) -> None:
        gymnasium.register_envs(ale_py)
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._frame_skip = frame_skip
        self._env = gymnasium.make("ALE/Pong-v5", frameskip=frame_skip)
        self._random = np.random.default_rng(seed)
        self._screen, _ = self._env.reset(seed=seed)

    def episode(self, weights: list[Dense]) -> tuple[list[Dense], int]:
        """Play one game; return its gradient, shaped like ``weights``, and its emulated frames."""
        w1, w2 = weights
        frames, hiddens, errors, rewards = [], [], [], []
        previous: Dense | None = None
        done = False
        while not done:
            current = classic_frame(self._screen)
            x = current - previous if previous is not None else np.zeros_like(current)
            previous = current
            if w1.shape[1] > len(x):
                x = np.concatenate([x, current])
            hidden = np.dot(w1, x)
            hidden[hidden < 0] = 0
            p_up = 1.0 / (1.0 + np.exp(-np.dot(w2, hidden)))
            up = self._random.uniform() < p_up
            frames.append(x)
            hiddens.append(hidden)
            errors.append((1.0 if up else 0.0) - p_up)
            self._screen, reward, terminated, truncated, _ = self._env.step(2 if up else 3)
            rewards.append(float(reward))
            done = terminated or truncated
        self._screen, _ = self._env.reset()
        x_all, hidden_all, error_all = np.vstack(frames), np.vstack(hiddens), np.array(errors)
        returns = _discounted(np.array(rewards))
        returns -= returns.mean()
        returns /= returns.std()
        error_all *= returns
        back = np.outer(error_all, w2)
        back[hidden_all <= 0] = 0
        gradient = [np.dot(back.T, x_all), np.dot(hidden_all.T, error_all)]
        return gradient, self._frame_skip * len(rewards)


def classic_frame(screen: NDArray[np.uint8]) -> Dense:
    """Preprocess an RGB screen (210, 160, 3) into 80x80 pixels, flattened, float64 (6400,)."""
    frame = screen[35:195][::2, ::2, 0].copy()
    frame[frame == 144] = 0
    frame[frame == 109] = 0
    frame[frame != 0] = 1
    return frame.astype(np.float64).ravel()


def add(gradient: list[Dense], total: list[Dense]) -> None:
    """Add ``gradient`` to ``total`` in place."""
    for summed, array in zip(total, gradient, strict=True):
        summed += array


def rmsprop(weights: list[Dense], caches: list[Dense], gradient: list[Dense]) -> None:
    """Apply the script's update in place, with steps too small to change any weight."""
    for array, cache, grad in zip(weights, caches, gradient, strict=True):
        cache *= 0.99
        cache += 0.01 * grad**2
        array += 1e-12 * grad / (np.sqrt(cache) + 1e-5)


def _discounted(rewards: Dense) -> Dense:
    returns = np.zeros_like(rewards)
    following = 0.0
    for step in reversed(range(len(rewards))):
        if rewards[step] != 0:
            following = 0.0
        following = following * 0.99 + rewards[step]
        returns[step] = following
    return returns
