"""The classic script's ``save.p``, read and written, against the script's own arithmetic."""

import hashlib
import pickle
import pickletools
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from python2_pickles import Weights, model, python2_pickle

from distributed_pg.algo.policy import Policy, action_probabilities
from distributed_pg.algo.state import Progress, policy_shape
from distributed_pg.config import Action, TrainConfig
from distributed_pg.envs.pong import PongEnv
from distributed_pg.episode import evaluate_episode
from distributed_pg.errors import CheckpointError, UsageError
from distributed_pg.presets import preset
from distributed_pg.storage.checkpoint import weights_checksum
from distributed_pg.storage.classic_script import classic_pickle, load_classic, parse_classic
from distributed_pg.storage.policy_export import export_policy
from distributed_pg.storage.policy_file import TrainedPolicy, load_policy
from distributed_pg.storage.policy_import import import_policy

# sha256 of cPickle.dumps({"W1": w1, "W2": w2}, protocol) with w1, w2 = model(3), as Python 2.7.18
# with numpy 1.16.6 made it.
OF_PYTHON_2 = (
    "acd91ff605cc198ffa90947b30d51e733ccd61edb1bea0ed71d67c36a56febbb",
    "4e18f6efb3e10a3cced28e0647c02c4a8a2262b8832a3dd4198525044d3e80d1",
    "9a37ae220ddda2ab892dbdaddd49751cceb8622694aa783f19cbdfed3969a237",
)


class ClassicScript:
    """What the script does with a screen: prepro, policy_forward, sigmoid, in float64."""

    def __init__(self, content: bytes) -> None:
        self.model = pickle.loads(content)  # noqa: S301 - written by this test or by our export
        self.prev_x: NDArray[np.float64] | None = None

    def prepro(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        cropped = image[35:195]
        field = cropped[::2, ::2, 0].copy()
        field[field == 144] = 0
        field[field == 109] = 0
        field[field != 0] = 1
        return field.astype(float).ravel()

    def up(self, observation: NDArray[np.uint8]) -> tuple[float, NDArray[np.float64]]:
        """The probability of action 2, and the network's input."""
        cur_x = self.prepro(observation)
        x = cur_x - self.prev_x if self.prev_x is not None else np.zeros(80 * 80)
        self.prev_x = cur_x
        h = np.dot(self.model["W1"], x)
        h[h < 0] = 0
        logit = np.dot(self.model["W2"], h)
        return float(1.0 / (1.0 + np.exp(-logit))), x


def older_numpy(content: bytes) -> bytes:
    """A pickle of numpy 2 with the names and lengths that numpy 1 writes."""
    for module in (b"multiarray", b"numeric"):
        new, old = b"numpy._core." + module, b"numpy.core." + module
        content = content.replace(bytes([len(new)]) + new, bytes([len(old)]) + old)
        content = content.replace(b"c" + new, b"c" + old)
    return content


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_the_fixtures_are_those_of_a_real_python_2(protocol: int) -> None:
    content = python2_pickle(*model(3), protocol)
    assert hashlib.sha256(content).hexdigest() == OF_PYTHON_2[protocol]


def is_read(content: bytes, w1: Weights, w2: Weights) -> None:
    policy = parse_classic(content)
    assert policy.w1.dtype == policy.w2.dtype == np.float32
    assert policy.w1.flags.c_contiguous
    assert policy.w2.flags.c_contiguous
    np.testing.assert_array_equal(policy.w1.T, w1.astype(np.float32))
    np.testing.assert_array_equal(policy.w2[:, 0], w2.astype(np.float32))
    assert not policy.w2[:, 1].any()


@pytest.mark.parametrize(
    ("protocol", "hidden_units"), [(0, 1), (0, 3), (0, 40), (1, 1), (1, 300), (2, 1), (2, 300)]
)
def test_what_python_2_wrote(protocol: int, hidden_units: int) -> None:
    w1, w2 = model(hidden_units)
    is_read(python2_pickle(w1, w2, protocol), w1, w2)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("rows_first", [True, False])
@pytest.mark.parametrize("number", ["<f8", ">f8", "<f4"])
def test_what_python_3_writes(protocol: int, rows_first: bool, number: str) -> None:
    w1, w2 = (array.astype(number) for array in model(3))
    w1 = w1 if rows_first else np.asfortranarray(w1)
    content = pickle.dumps({"W1": w1, "W2": w2}, protocol)
    is_read(content, w1, w2)
    older = older_numpy(content)
    assert older != content
    is_read(older, w1, w2)


def test_a_full_model_and_what_it_holds_besides(tmp_path: Path) -> None:
    w1, w2 = model(200)
    (tmp_path / "save.p").write_bytes(pickle.dumps({"W2": w2, "W1": w1}))
    trained = load_classic(tmp_path / "save.p", 3)
    assert trained.config == preset("karpathy", hidden_units=200, frame_skip=3)
    assert trained.config.actions == ("UP", "DOWN")
    assert trained.progress == Progress()
    assert load_classic(tmp_path / "save.p").config.frame_skip == 4


def test_the_probabilities_on_real_frames_are_the_scripts(tmp_path: Path) -> None:
    """Both ways: the script with our export, and its import in turn."""
    export_policy(["pretrained"], tmp_path / "save.p")
    import_policy(tmp_path / "save.p", tmp_path / "p.safetensors", 2)
    policy = load_policy(tmp_path / "p.safetensors").policy
    script = ClassicScript((tmp_path / "save.p").read_bytes())
    env = PongEnv(render_mode="rgb_array", frame_skip=2)
    random = np.random.default_rng(0)
    observation, _ = env.reset(seed=0)
    seen = []
    for step in range(500):
        screen = env.render()
        assert screen is not None
        up, x = script.up(screen)
        np.testing.assert_array_equal(observation.ravel(), x)
        pixels = x.nonzero()[0]
        _, outputs = policy.forward(pixels, x[pixels].astype(np.float32))
        np.testing.assert_allclose(action_probabilities(outputs)[0], up, rtol=1e-4, atol=1e-6)
        assert step > 0 or (up == 0.5 and not x.any())
        observation, _, terminated, _, _ = env.step(0 if random.uniform() < up else 1)
        assert not terminated
        seen.append(up)
    assert np.ptp(seen) > 0.9


def test_an_exported_policy_comes_back_and_plays_the_same_game(tmp_path: Path) -> None:
    before = load_policy("pretrained")
    export_policy(["pretrained"], tmp_path / "save.p")
    import_policy(tmp_path / "save.p", tmp_path / "p.safetensors", before.config.frame_skip)
    after = load_policy(tmp_path / "p.safetensors")
    assert after.policy.w1.tobytes() == before.policy.w1.tobytes()
    env = PongEnv(**after.config.env_settings() | {"frame_limit": 3000})
    games = [evaluate_episode(env, p.policy, 0, 0, greedy=False) for p in (before, after)]
    assert games[0].steps == games[1].steps > 1000
    assert games[0].reward == games[1].reward
    assert games[0].entropy == games[1].entropy


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), hidden_units=st.integers(1, 5), special=floats)
def test_a_round_trip_has_the_same_bits(seed: int, hidden_units: int, special: float) -> None:
    config = TrainConfig(hidden_units=hidden_units)
    policy = Policy.init(seed, *policy_shape(config))
    policy.w1[::7] = special
    policy.w2[0] = -special
    again = parse_classic(classic_pickle(TrainedPolicy(config, policy, Progress())))
    assert again.w1.tobytes() == policy.w1.tobytes()
    assert again.w2[:, 0].tobytes() == policy.w2[:, 0].tobytes()


def test_the_export_is_for_every_python_and_numpy() -> None:
    """Checked by hand: Python 2.7 with numpy 1.16, 3.6 with 1.14 and 3.11 with 2.4 load it."""
    config = TrainConfig(hidden_units=3)
    policy = Policy.init(1, *policy_shape(config))
    content = classic_pickle(TrainedPolicy(config, policy, Progress()))
    opcodes = list(pickletools.genops(content))
    assert max(opcode.proto for opcode, _, _ in opcodes) == 2
    assert {argument for opcode, argument, _ in opcodes if opcode.name == "GLOBAL"} == {
        "numpy.core.multiarray _reconstruct",
        "numpy ndarray",
        "numpy dtype",
        "_codecs encode",
    }
    assert all(a.isascii() for o, a, _ in opcodes if o.name == "SHORT_BINSTRING" and a is not None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = pickle.loads(content)  # noqa: S301 - written by this test
    assert list(loaded) == ["W1", "W2"]
    for name, array in (("W1", policy.w1.T), ("W2", policy.w2[:, 0])):
        assert loaded[name].dtype == np.float64
        assert loaded[name].flags.c_contiguous
        assert loaded[name].flags.writeable
        np.testing.assert_array_equal(loaded[name], array)


def test_down_before_up_is_the_same_policy_for_the_script() -> None:
    config = TrainConfig(hidden_units=3, actions=("DOWN", "UP"))
    policy = Policy.init(1, *policy_shape(config))
    again = parse_classic(classic_pickle(TrainedPolicy(config, policy, Progress())))
    pixels, signs = np.arange(0, 6400, 3), np.ones(2134, np.float32)
    down = action_probabilities(policy.forward(pixels, signs)[1])[0]
    up = action_probabilities(again.forward(pixels, signs)[1])[0]
    assert up == pytest.approx(1.0 - down, rel=1e-6)
    assert abs(up - 0.5) > 0.01


@pytest.mark.parametrize(
    ("actions", "crop"),
    [
        (("UP", "DOWN", "NOOP"), (35, 195, 0, 160)),
        (("UP", "NOOP"), (35, 195, 0, 160)),
        (("UP", "DOWN"), (34, 194, 0, 160)),
    ],
)
def test_what_the_script_cannot_play(
    tmp_path: Path, actions: tuple[Action, ...], crop: tuple[int, int, int, int]
) -> None:
    config = TrainConfig(hidden_units=1, actions=actions, crop=crop)
    policy = Policy.init(1, *policy_shape(config))
    with pytest.raises(UsageError, match=r"^out: the classic script has the actions UP, DOWN and"):
        classic_pickle(TrainedPolicy(config, policy, Progress()))


def test_the_script_does_not_see_the_current_frame() -> None:
    config = TrainConfig(hidden_units=1, current_frame=True)
    policy = Policy.init(1, *policy_shape(config))
    with pytest.raises(UsageError, match=r"^out: the classic script sees only the difference"):
        classic_pickle(TrainedPolicy(config, policy, Progress()))


def test_more_than_import_reads() -> None:
    config = TrainConfig(hidden_units=2500)
    policy = Policy(np.ones((6400, 2500), np.float32), np.ones((2500, 2), np.float32))
    with pytest.raises(UsageError, match=r"^out: 2500 hidden units make a save.p of more than 128"):
        classic_pickle(TrainedPolicy(config, policy, Progress()))


def test_a_policy_file_of_it_keeps_float32(tmp_path: Path) -> None:
    (tmp_path / "save.p").write_bytes(python2_pickle(*model(3), 0))
    written = import_policy(tmp_path / "save.p", tmp_path / "p.safetensors", 4)
    read = load_policy(tmp_path / "p.safetensors")
    assert weights_checksum(read.policy) == weights_checksum(written.policy)
    assert read.config == written.config
    with pytest.raises(CheckpointError, match=r"save.p: is for the classic script; .* import"):
        load_policy(tmp_path / "save.p")
