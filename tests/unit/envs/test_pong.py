"""PongEnv is ALE's Pong, seen as the classic script sees it."""

import warnings
from typing import Any

import ale_py
import gymnasium
import numpy as np
import pytest
from ale_py import Action
from dense_reference import classic_frame
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

from distributed_pg.envs.pong import PONG_ACTIONS, Crop, PongEnv
from distributed_pg.errors import ConfigError, RomNotFoundError

gymnasium.register_envs(ale_py)


@pytest.fixture(scope="module")
def pair(pong: PongEnv) -> tuple[PongEnv, PongEnv]:
    """Two environments that other tests have played; to make one takes a tenth of a second."""
    return pong, PongEnv()


def rendered(env: PongEnv) -> NDArray[np.uint8]:
    screen = env.render()
    assert screen is not None
    return screen


def ale_pong(frame_skip: int) -> gymnasium.Env[np.ndarray, int]:
    """Gymnasium's own Pong, with stickiness off."""
    return gymnasium.make("ALE/Pong-v5", frameskip=frame_skip, repeat_action_probability=0.0)


@pytest.mark.parametrize("actions", [("UP", "DOWN"), ("NOOP", "UP", "DOWN"), tuple(PONG_ACTIONS)])
def test_passes_gymnasiums_checker(actions: tuple[str, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # An environment made without gymnasium.make has no spec; the checker says so.
        warnings.filterwarnings("ignore", message=".*not.*registered|.*spec.*")
        check_env(PongEnv(actions=actions, render_mode="rgb_array"), skip_render_check=False)


@pytest.mark.parametrize(("frame_skip", "games"), [(2, 0), (4, 1)])
def test_same_screens_rewards_and_ends_as_ale_pong_v5(frame_skip: int, games: int) -> None:
    """For whole games, and for the first points of the next one."""
    theirs = ale_pong(frame_skip)
    ours = PongEnv(
        actions=tuple(PONG_ACTIONS),
        frame_skip=frame_skip,
        repeat_action_probability=0.0,
        render_mode="rgb_array",
    )
    theirs_action = {a: i for i, a in enumerate(theirs.unwrapped.ale.getMinimalActionSet())}  # type: ignore[attr-defined]
    random = np.random.default_rng(0)
    screen, _ = theirs.reset(seed=11)
    ours.reset(seed=5)
    assert np.array_equal(rendered(ours), screen)
    previous = classic_frame(screen)
    played, steps_of_the_next = 0, 0
    while steps_of_the_next < 1200 // frame_skip:
        steps_of_the_next += played == games
        name = random.choice(list(PONG_ACTIONS))
        screen, reward, terminated, truncated, _ = theirs.step(theirs_action[PONG_ACTIONS[name]])
        seen = ours.step(list(PONG_ACTIONS).index(name))
        frame = classic_frame(screen)
        assert np.array_equal(rendered(ours), screen)
        assert np.array_equal(seen[0].ravel(), frame - previous)
        assert seen[1:4] == (reward, terminated, truncated)
        previous = frame
        if terminated or truncated:
            played += 1
            screen, _ = theirs.reset()
            ours.reset()
            assert np.array_equal(rendered(ours), screen)
            previous = classic_frame(screen)
    assert played == games


def test_actions_move_the_paddle_as_named() -> None:
    env = PongEnv(render_mode="rgb_array", repeat_action_probability=0.0)

    def paddle_row(action: int) -> float:
        env.reset(seed=0)
        for _ in range(40):
            env.step(action)
        rows, _ = np.nonzero(rendered(env)[35:194, 140:144, 0] == 92)
        return float(rows.mean())

    assert paddle_row(0) < 40  # UP
    assert paddle_row(1) > 110  # DOWN


def test_sticky_rate_is_a_quarter_of_the_emulated_frames(
    monkeypatch: pytest.MonkeyPatch, pong: PongEnv
) -> None:
    """Alternate two actions and count the frames in which the one before was applied.

    Of the four frames of a step, the first k repeat the old action with probability 0.25^k each
    after the other; so the share of frames that repeat is (0.25 + 0.25^2 + 0.25^3 + 0.25^4) / 4.
    """
    pong.reset(seed=1)
    applied: list[Action] = []
    real = pong._ale

    class Recorder:
        def act(self, action: Action) -> int:
            applied.append(action)
            return real.act(action)

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

    monkeypatch.setattr(pong, "_ale", Recorder())
    asked = []
    for step in range(2500):
        asked += [(PONG_ACTIONS["UP"], PONG_ACTIONS["DOWN"])[step % 2]] * 4
        *_, terminated, _truncated, _ = pong.step(step % 2)
        if terminated:
            pong.reset()
    first_frames = np.array([a != b for a, b in zip(asked, applied, strict=True)]).reshape(-1, 4)
    rates = first_frames.mean(axis=0)
    for k, rate in enumerate(rates):
        expected = 0.25 ** (k + 1)
        four_sigma = 4 * np.sqrt(expected * (1 - expected) / len(first_frames))
        assert abs(rate - expected) < four_sigma


def test_an_episode_is_a_function_of_its_seed(pair: tuple[PongEnv, PongEnv]) -> None:
    def play(env: PongEnv, seed: int) -> tuple[bytes, float]:
        env.reset(seed=seed)
        screens, total = b"", 0.0
        for step in range(150):
            observation, reward, *_ = env.step(step // 7 % 2)
            screens += observation.tobytes()
            total += reward
        return screens, total

    one, other = pair
    first = play(one, 42)
    play(one, 7)  # what was played before does not matter
    assert play(one, 42) == first
    assert play(other, 42) == first
    assert play(other, 43) != first


def test_first_observation_is_zero_and_observations_are_signed_differences(pong: PongEnv) -> None:
    observation, _ = pong.reset(seed=0)
    assert observation.dtype == np.int8
    assert observation.shape == (80, 80)
    assert not observation.any()
    values = set()
    for _ in range(200):
        observation, *_ = pong.step(0)
        values |= set(np.unique(observation).tolist())
    assert values == {-1, 0, 1}


def test_sparse_step_lists_exactly_the_non_zero_pixels(pair: tuple[PongEnv, PongEnv]) -> None:
    dense, sparse = pair
    dense.reset(seed=9)
    sparse.reset(seed=9)
    for step in range(300):
        observation, *rest, _ = dense.step(step % 2)
        pixels, signs, *sparse_rest = sparse.step_sparse(step % 2)
        assert np.array_equal(observation.ravel().nonzero()[0], pixels)
        assert np.array_equal(observation.ravel()[pixels], signs)
        assert rest == sparse_rest


@pytest.mark.parametrize(
    "crop", [(35, 195, 0, 160), (0, 210, 20, 160), (50, 151, 0, 81), (34, 194, 33, 140)]
)
def test_crop_chooses_rows_and_columns(crop: Crop) -> None:
    env = PongEnv(crop=crop, render_mode="rgb_array")
    env.reset(seed=2)
    before = rendered(env)
    observation, *_ = env.step(1)
    expected = classic_frame(rendered(env), crop) - classic_frame(before, crop)
    assert np.array_equal(observation.ravel(), expected)
    assert observation.shape == env.observation_space.shape


def test_the_current_frame_is_behind_the_difference() -> None:
    env = PongEnv(current_frame=True, frame_skip=2, render_mode="rgb_array")
    observation, _ = env.reset(seed=4)
    before = np.zeros((80, 80))  # the first frame comes up on a blank screen
    random = np.random.default_rng(0)
    for _ in range(300):
        assert env.observation_space.contains(observation)
        frame = classic_frame(rendered(env)).reshape(80, 80)
        assert np.array_equal(observation, [frame - before, frame])
        before = frame
        observation, *_ = env.step(random.integers(2))
    assert before.any()


def test_frame_limit_truncates() -> None:
    env = PongEnv(frame_limit=40)
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(10)]
    assert ends == [(False, False)] * 9 + [(False, True)]
    assert env.emulated_frames == 40
    env.reset(seed=0)
    assert env.step(0)[2:4] == (False, False)


def test_a_later_reset_does_not_load_the_game_again(
    monkeypatch: pytest.MonkeyPatch, pong: PongEnv
) -> None:
    """That nothing slow is called; what it costs is measured by scripts/profile_episode.py."""
    pong.reset(seed=0)
    pong.step(0)
    calls = []
    real = pong._ale

    class Recorder:
        def __getattr__(self, name: str) -> object:
            calls.append(name)
            return getattr(real, name)

    monkeypatch.setattr(pong, "_ale", Recorder())
    pong.reset(seed=1)
    assert set(calls) <= {"restoreState", "getEpisodeFrameNumber"}


def test_unknown_action_and_render_mode_are_named() -> None:
    with pytest.raises(ConfigError, match=r"actions: 'JUMP' is not one of NOOP, FIRE, UP"):
        PongEnv(actions=("UP", "JUMP"))
    with pytest.raises(ConfigError, match="render_mode: 'ascii'"):
        PongEnv(render_mode="ascii")


REFUSED = [
    *(-1, -2, 2, 10**30, 1.0, 0.5, float("nan"), True, False, None, "UP", b"1", [1], Action.UP),
    *(np.int64(-1), np.uint8(255), np.float32(1), np.bool_(True), np.array(7), np.array([1])),
]


@pytest.mark.parametrize("action", REFUSED, ids=repr)
def test_an_action_outside_the_space_is_refused_and_harms_nothing(
    pair: tuple[PongEnv, PongEnv], action: Any
) -> None:
    env, other = pair
    for one in (env, other):
        one.reset(seed=3)
        one.step(1)
    with pytest.raises(ValueError, match=r"^action: .* is not a whole number from 0 to 1$"):
        env.step(action)
    for _ in range(20):
        assert np.array_equal(env.step(0)[0], other.step(0)[0])


@pytest.mark.parametrize("action", [-1, 2])
def test_the_parts_of_a_step_refuse_it_as_well(pong: PongEnv, action: int) -> None:
    pong.reset(seed=0)
    for step in (pong.step_sparse, lambda action: pong.emulate(action, 1)):
        with pytest.raises(ValueError, match=rf"^action: {action} is not a whole number"):
            step(action)


@pytest.mark.parametrize(
    "action", [np.int64(1), np.uint8(1), np.int32(1), np.array(1), np.intp(1)], ids=repr
)
def test_numpys_whole_numbers_are_actions(pair: tuple[PongEnv, PongEnv], action: Any) -> None:
    env, other = pair
    env.reset(seed=3)
    other.reset(seed=3)
    for _ in range(20):
        assert np.array_equal(env.step(action)[0], other.step(1)[0])


def test_a_step_before_the_first_reset_is_refused() -> None:
    env = PongEnv()
    for action in (0, -1, None):
        with pytest.raises(ResetNeeded, match=r"^step: call reset\(\) before the first step$"):
            env.step(action)  # type: ignore[arg-type]
    env.reset(seed=0)
    env.step(0)


def test_missing_rom_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    with pytest.raises(RomNotFoundError, match=r"Pong ROM: .*reinstall ale-py, unset ALE_ROMS_DIR"):
        PongEnv()


def test_human_rendering_leaves_drawing_to_ale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")
    env = PongEnv(render_mode="human")
    env.reset(seed=0)
    env.step(0)
    assert env._ale.getBool("display_screen")
    assert env.render() is None
