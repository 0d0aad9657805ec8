"""The compiled step against numpy: the same bits, whatever is played."""

import stat
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_pg.algo.policy import Policy
from distributed_pg.algo.rollout import EVALUATION, Trajectory, episode_seed, play, play_episode
from distributed_pg.compiled import kernel, loading
from distributed_pg.compiled.loading import (
    Step,
    cache_folders,
    compiled_step,
    has_the_bits_of_numpy,
)
from distributed_pg.compiled.playing import fastest_play, play_compiled
from distributed_pg.envs.pong import PONG_ACTIONS, Crop, PongEnv, frame_shape

numba = pytest.importorskip("numba")


@pytest.fixture(autouse=True, scope="module")
def turned_on() -> Iterator[None]:
    """Compiled code is turned off in tests, since loading it takes longer than most of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("NUMBA_DISABLE_JIT", raising=False)
        patch.setattr(numba.config, "DISABLE_JIT", 0)
        compiled_step.cache_clear()  # an earlier test may have found it turned off
        yield
    compiled_step.cache_clear()


@pytest.fixture(scope="module")
def step() -> Step:
    found = compiled_step(200)
    assert found is not None, "it is not used on this machine"
    return found


def arrays_of(trajectory: Trajectory) -> list[np.ndarray]:
    names = ("pixels", "signs", "frame_starts", "hidden", "outputs", "actions", "rewards")
    return [np.asarray(getattr(trajectory, name)) for name in names]


@pytest.mark.parametrize(
    ("actions", "crop", "frame_skip", "hidden_units", "current_frame"),
    [
        (("UP", "DOWN"), (35, 195, 0, 160), 2, 200, False),
        (("UP", "DOWN"), (35, 195, 0, 160), 2, 200, True),
        (("UP", "DOWN", "NOOP"), (35, 195, 0, 160), 4, 200, False),
        (tuple(PONG_ACTIONS), (34, 194, 3, 158), 1, 100, True),
        (("DOWN", "UP"), (0, 210, 0, 160), 3, 4, True),
        (("UP", "DOWN"), (101, 102, 141, 142), 8, 12, False),
    ],
)
def test_games_have_the_same_bits(
    step: Step,
    monkeypatch: pytest.MonkeyPatch,
    actions: Sequence[str],
    crop: Crop,
    frame_skip: int,
    hidden_units: int,
    current_frame: bool,
) -> None:
    monkeypatch.setattr("distributed_pg.algo.rollout._BLOCK", 100)  # steps
    env = PongEnv(actions=actions, crop=crop, frame_skip=frame_skip, frame_limit=1000)
    rows, columns = frame_shape(crop)
    policy = Policy.init(2, rows * columns, hidden_units, len(actions), current_frame)
    random = np.random.default_rng(1)
    policy.w1[...] *= 8.0
    policy.w1[:, hidden_units:] = random.normal(0.0, 0.05, policy.w1[:, hidden_units:].shape)
    policy.w2[:, -1] = random.normal(0.0, 0.3, hidden_units)
    for episode in range(2):
        expected, game = (
            arrays_of(play_episode(env, policy, episode_seed(3, episode, EVALUATION), play=player))
            for player in (play, partial(play_compiled, step))
        )
        for ours, theirs in zip(game, expected, strict=True):
            assert ours.dtype == theirs.dtype
            assert np.array_equal(ours, theirs)
        assert len(expected[0]) > 10
        assert len(expected[5]) > 100  # longer than a block


def test_there_is_room_for_all_changed_pixels(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    env, policy = PongEnv(frame_limit=2000), Policy.init(0, 6400, 200, 2)
    monkeypatch.setattr("distributed_pg.compiled.playing._FIRST_PIXELS", 6400)
    expected, game = (
        play_episode(env, policy, episode_seed(0, 0, EVALUATION), play=player)
        for player in (play, partial(play_compiled, step))
    )
    assert len(game.pixels) > 6400
    assert np.array_equal(game.pixels, expected.pixels)
    assert np.array_equal(game.signs, expected.signs)


def test_it_is_compiled_once_for_the_arrays_of_ray_and_others(step: Any) -> None:
    env, policy = PongEnv(frame_limit=40), Policy.init(0, 6400, 200, 2)
    play_episode(env, policy, episode_seed(0, 0, EVALUATION), play=partial(play_compiled, step))
    for array in policy.arrays:
        array.flags.writeable = False
    play_episode(env, policy, episode_seed(0, 0, EVALUATION), play=partial(play_compiled, step))
    assert len(step.signatures) == 1


@given(
    st.sets(st.integers(0, 6399), max_size=300),
    st.integers(0, 2**32),
    st.sampled_from([4, 12, 200]),
    st.booleans(),
)
def test_any_pixels_give_the_same_bits(
    step: Step, pixels: set[int], seed: int, hidden_units: int, current_frame: bool
) -> None:
    policy = Policy.init(seed, 6400, hidden_units, 2, current_frame)
    planes = policy.w1[:, hidden_units:]
    planes[...] = np.random.default_rng(seed).normal(0.0, 0.1, planes.shape)
    assert loading._agrees(step, policy, np.array(sorted(pixels), np.intp))


def test_the_source_gives_them_too() -> None:
    for current_frame in (False, True):
        policy = Policy.init(1, 6400, 200, 2, current_frame)
        assert loading._agrees(kernel.step, policy, np.array([0, 7, *range(3000, 3011), 6399]))


def test_a_step_that_sums_in_another_order_is_noticed() -> None:
    def backwards(*arguments: Any) -> int:
        *_, hidden, _, pixels, signs, start = arguments
        end = kernel.step(*arguments)
        rows = arguments[5][pixels[start:end]] * signs[start:end, None]
        hidden[:] = np.maximum(np.add.reduce(rows[::-1], axis=0), 0.0)
        return end

    assert not has_the_bits_of_numpy(backwards, 200)


def test_it_is_left_out_where_it_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fastest_play(200) is not play
    assert fastest_play(202) is play
    anew = compiled_step.__wrapped__
    with monkeypatch.context() as patch:
        patch.setenv("NUMBA_DISABLE_JIT", "1")
        assert anew(200) is None
    monkeypatch.setattr(loading, "has_the_bits_of_numpy", lambda *_: False)
    assert anew(200) is None
    monkeypatch.setattr(loading, "is_installed", lambda: False)
    assert anew(200) is None


def test_it_is_compiled_in_memory_where_no_folder_can_keep_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loading, "cache_folders", lambda: iter(()))
    assert compiled_step.__wrapped__(200) is not None


def test_compiled_code_is_kept_where_nobody_else_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    mine, temporary = cache_folders()
    assert mine == tmp_path / "cache/distributed_pg"
    assert temporary.parent == tmp_path
    assert stat.S_IMODE(mine.stat().st_mode) == stat.S_IMODE(temporary.stat().st_mode) == 0o700
    mine.chmod(0o770)
    assert list(cache_folders()) == [temporary]
    temporary.rmdir()
    temporary.symlink_to(tmp_path)
    assert not list(cache_folders())
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert not list(cache_folders())
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # there is no home
    assert not list(cache_folders())
