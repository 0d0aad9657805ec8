"""Plays an episode and computes its gradient."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from distributed_pg.algo.gradient import Gradient, backpropagate
from distributed_pg.algo.noise import Noise, choose, gumbel_noise
from distributed_pg.algo.policy import Floats, Policy, action_probabilities
from distributed_pg.algo.returns import discounted_returns, normalized
from distributed_pg.config import TrainConfig
from distributed_pg.envs.pong import PongEnv

TRAINING, EVALUATION = 0, 1
"""Independent streams of random numbers: no seed makes them overlap."""
_VALUE_WEIGHT = 0.5
"""Weight of the values' squared error relative to the policy's objective."""
_BLOCK = 1024
"""Steps per block of preallocated activations."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The T steps of one episode."""

    pixels: NDArray[np.intp]
    """Positions of the changed pixels of all steps, (n,)."""
    signs: Floats
    """Values of the difference frame at those positions, (n,)."""
    frame_starts: NDArray[np.intp]
    """Those of step t are at ``frame_starts[t]`` to ``frame_starts[t + 1]``, (T + 1,)."""
    hidden: Floats
    """Hidden activations, (T, H)."""
    outputs: Floats
    """The logits of all actions but the last, and the value, (T, A)."""
    actions: list[int]
    rewards: list[float]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Probability of each action, (T, A)."""
        return action_probabilities(self.outputs)


Play: TypeAlias = Callable[[PongEnv, Policy, Noise], Trajectory]
""":func:`play`, or another function with the same result."""


def play(env: PongEnv, policy: Policy, noise: Noise) -> Trajectory:
    """Play the episode that has begun, with numpy."""
    hidden_blocks: list[Floats] = []
    output_blocks: list[Floats] = []
    rows = activation_rows(policy, hidden_blocks, output_blocks)
    all_pixels: list[NDArray[np.intp]] = []
    all_signs: list[Floats] = []
    actions: list[int] = []
    rewards: list[float] = []
    pixels, signs, frame_sum = first_step(env, policy)
    done = False
    while not done:
        _, outputs = policy.forward(pixels, signs, frame_sum, next(rows))
        action = choose(outputs, next(noise))
        all_pixels.append(pixels)
        all_signs.append(signs)
        actions.append(action)
        pixels, signs, reward, terminated, truncated = env.step_sparse(action)
        rewards.append(reward)
        done = terminated or truncated
    return Trajectory(
        pixels=np.concatenate(all_pixels),
        signs=np.concatenate(all_signs),
        frame_starts=np.cumsum([0, *map(len, all_pixels)]),
        hidden=np.concatenate(hidden_blocks)[: len(actions)],
        outputs=np.concatenate(output_blocks)[: len(actions)],
        actions=actions,
        rewards=rewards,
    )


def episode_seed(seed: int, episode: int, stream: int) -> np.random.SeedSequence:
    """The seed of all random numbers of an episode of a run or an evaluation with this seed."""
    return np.random.SeedSequence(seed, spawn_key=(stream, episode))


def play_episode(
    env: PongEnv,
    policy: Policy,
    seed: np.random.SeedSequence,
    *,
    greedy: bool = False,
    repeat_noise: float = 0.0,
    play: Play = play,
) -> Trajectory:
    """Play one full game; ``seed`` is the only source of random numbers."""
    return play(env, policy, begin_episode(env, seed, greedy=greedy, repeat_noise=repeat_noise))


def activation_rows(
    policy: Policy, hidden_blocks: list[Floats], output_blocks: list[Floats]
) -> Iterator[tuple[Floats, Floats]]:
    """Yield each step's arrays for hidden activations (H,) and outputs (A,), without end.

    They are rows of blocks that are appended to the lists, as the length of a game is unknown.
    """
    hidden_units, outputs = policy.w2.shape
    while True:
        hidden_blocks.append(np.empty((_BLOCK, hidden_units), np.float32))
        output_blocks.append(np.empty((_BLOCK, outputs), np.float32))
        yield from zip(hidden_blocks[-1], output_blocks[-1], strict=True)


def first_step(env: PongEnv, policy: Policy) -> tuple[NDArray[np.intp], Floats, Floats | None]:
    """What :meth:`Policy.forward` takes at the first step of an episode.

    A policy that sees the current frame sees the first one come up on a blank screen; for others,
    nothing has changed yet.
    """
    if policy.sees_current_frame:
        return *env.first_frame(), np.zeros(len(policy.w2), np.float32)
    return np.empty(0, np.intp), np.empty(0, np.float32), None


def begin_episode(
    env: PongEnv,
    seed: np.random.SeedSequence,
    *,
    greedy: bool = False,
    repeat_noise: float = 0.0,
) -> Noise:
    """Reset the environment for an episode.

    Returns:
        The noise to choose the episode's actions with, repeated with probability ``repeat_noise``;
        all zeros if ``greedy``.
    """
    env_seed, action_seed = seed.spawn(2)
    env.reset(seed=int(env_seed.generate_state(1, np.uint64)[0]))
    actions = int(env.action_space.n)
    if greedy:
        return itertools.repeat([0.0] * actions)
    return gumbel_noise(np.random.default_rng(action_seed), actions, repeat_noise)


def episode_gradient(policy: Policy, trajectory: Trajectory, config: TrainConfig) -> Gradient:
    """The REINFORCE gradient of an episode: sum of advantage times grad log pi(action).

    Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement
    learning", 1992. The advantage is the return, normalized over the episode. With a learned
    baseline (Sutton and Barto, "Reinforcement learning", 2018, section 13.4) the value is
    subtracted before normalization, and its squared error is a second objective.
    """
    steps = len(trajectory.actions)
    outputs, learned = trajectory.outputs, config.baseline == "learned"
    advantages = discounted_returns(trajectory.rewards, config.gamma)
    if learned:
        advantages -= outputs[:, -1]
    output_gradients = -action_probabilities(outputs)
    output_gradients[np.arange(steps), trajectory.actions] += 1.0
    output_gradients *= normalized(advantages)[:, None]
    # The last action has no logit; its column holds the value.
    output_gradients[:, -1] = _VALUE_WEIGHT * advantages if learned else 0.0
    return backpropagate(
        policy,
        trajectory.pixels,
        trajectory.signs,
        trajectory.frame_starts,
        trajectory.hidden,
        output_gradients.astype(np.float32),
    )
