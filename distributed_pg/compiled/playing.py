"""Plays an episode with the compiled step."""

from functools import partial

import numpy as np

from distributed_pg.algo.noise import Noise, choose
from distributed_pg.algo.policy import Floats, Policy
from distributed_pg.algo.rollout import Play, Trajectory, activation_rows, first_step, play
from distributed_pg.compiled.loading import Step, compiled_step, read_only
from distributed_pg.envs.pong import PongEnv

_FIRST_PIXELS = 2**17
"""Changed pixels that there is room for at first; a beginner's game has fewer."""


def fastest_play(hidden_units: int) -> Play:
    """The fastest way to play with policies of this size; see :func:`compiled_step`."""
    step = compiled_step(hidden_units)
    return play if step is None else partial(play_compiled, step)


def play_compiled(step: Step, env: PongEnv, policy: Policy, noise: Noise) -> Trajectory:
    """:func:`distributed_pg.algo.rollout.play`, with a compiled step between emulator calls."""
    hidden_blocks: list[Floats] = []
    output_blocks: list[Floats] = []
    rows = activation_rows(policy, hidden_blocks, output_blocks)
    raw, has_two_actions = env.raw_screen(), policy.w2.shape[1] == 2
    first, values, frame_sum = first_step(env, policy)
    pixels, signs = np.empty(_FIRST_PIXELS, np.intp), np.empty(_FIRST_PIXELS, np.float32)
    end = len(first)
    pixels[:end], signs[:end] = first, values
    most_changes = len(policy.w1)
    emulate, look, frames = env.emulate, env.look, env.frame_skip
    hidden, outputs = policy.forward(first, values, frame_sum, next(rows))
    fixed = (
        *(raw.screen, raw.before, raw.seen, raw.foreground, raw.crop, *read_only(policy)),
        np.empty(policy.w1.shape[1], np.float32),
        np.empty(0, np.float32) if frame_sum is None else frame_sum,
    )
    actions: list[int] = []
    rewards: list[float] = []
    frame_starts = [0, end]
    while True:
        action = choose(outputs, next(noise))
        actions.append(action)
        rewards.append(emulate(action, frames))
        terminated, truncated = look()
        if terminated or truncated:
            break
        if end + most_changes > len(pixels):  # there may be no room for the next frame
            pixels = np.concatenate([pixels[:end], np.empty_like(pixels)])
            signs = np.concatenate([signs[:end], np.empty_like(signs)])
        hidden, outputs = next(rows)
        end = step(*fixed, hidden, outputs, pixels, signs, end)
        if not has_two_actions:
            hidden.dot(policy.w2, outputs)
        frame_starts.append(end)
    return Trajectory(
        pixels=pixels[:end],
        signs=signs[:end],
        frame_starts=np.array(frame_starts, np.intp),
        hidden=np.concatenate(hidden_blocks)[: len(actions)],
        outputs=np.concatenate(output_blocks)[: len(actions)],
        actions=actions,
        rewards=rewards,
    )
