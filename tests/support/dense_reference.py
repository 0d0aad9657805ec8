"""The classic script's mathematics in dense float64, independent of the package."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def classic_frame(rgb: NDArray[np.uint8], crop: tuple[int, ...] = (35, 195, 0, 160)) -> Array:
    """Crop, downsample by two, set both backgrounds to 0 and all else to 1, and flatten."""
    red = rgb[crop[0] : crop[1], crop[2] : crop[3]][::2, ::2, 0].astype(int)
    red[red == 144] = 0
    red[red == 109] = 0
    red[red != 0] = 1
    return red.astype(np.float64).ravel()


def forward(w1: Array, w2: Array, x: Array) -> tuple[Array, Array]:
    """Hidden activations and action probabilities, from w1 (D, H), w2 (H, A) and x (D,)."""
    hidden = w1.T @ x
    hidden[hidden < 0] = 0
    if w2.shape[1] == 2:  # the script's own sigmoid
        up = 1.0 / (1.0 + np.exp(-(w2[:, 0] @ hidden)))
        return hidden, np.array([up, 1.0 - up])
    exponentials = np.exp(np.append(w2[:, :-1].T @ hidden, 0.0))
    return hidden, exponentials / exponentials.sum()


def discount(rewards: Array, gamma: float) -> Array:
    """Discounted rewards, reset where a point was scored (Pong's rule)."""
    discounted = np.zeros(len(rewards))
    running = 0.0
    for t in reversed(range(len(rewards))):
        if rewards[t] != 0:
            running = 0.0
        running = running * gamma + rewards[t]
        discounted[t] = running
    return discounted


def gradient(
    w1: Array,
    w2: Array,
    xs: Array,
    actions: NDArray[np.int64],
    rewards: Array,
    gamma: float,
    *,
    learned_baseline: bool,
) -> tuple[Array, Array]:
    """Dense gradient of one episode, (D, H) and (H, A), from frames xs (T, D).

    With a learned baseline v(x), the last column of w2, the objective is that of the policy with
    normalized advantages G - v, minus (G - v)^2 / 4.
    """
    hiddens, dlogps = [], []
    for x, action in zip(xs, actions, strict=True):
        hidden, probabilities = forward(w1, w2, x)
        label = np.zeros(len(probabilities))
        label[action] = 1.0
        hiddens.append(hidden)
        dlogps.append((label - probabilities)[:-1])
    hidden_matrix = np.array(hiddens)
    advantages = discount(rewards, gamma)
    value_errors = np.zeros(len(advantages))
    if learned_baseline:
        advantages -= hidden_matrix @ w2[:, -1]
        value_errors = advantages / 2
    advantages = (advantages - advantages.mean()) / advantages.std()
    errors = np.column_stack([np.array(dlogps) * advantages[:, None], value_errors])
    back = errors @ w2.T
    back[hidden_matrix <= 0] = 0
    return xs.T @ back, hidden_matrix.T @ errors
