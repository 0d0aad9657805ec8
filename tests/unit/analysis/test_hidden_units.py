"""Pictures of the hidden units' weights."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distributed_pg.algo.policy import Policy
from distributed_pg.algo.state import Progress, TrainingState
from distributed_pg.analysis.hidden_units import LIGHT, strongest_units, tiled, weights_png
from distributed_pg.analysis.plot import weights_figure
from distributed_pg.cli.main import main
from distributed_pg.config import TrainConfig
from distributed_pg.storage.policy_file import TrainedPolicy
from distributed_pg.storage.run_dir import RunDir


def trained(w1: np.ndarray, w2: np.ndarray, config: TrainConfig) -> TrainedPolicy:
    policy = Policy(w1.astype(np.float32), w2.astype(np.float32))
    return TrainedPolicy(config, policy, Progress())


def test_units_are_pictures_of_the_field_in_the_order_of_their_influence() -> None:
    config = TrainConfig(hidden_units=3, crop=(35, 155, 0, 160))
    w1 = np.zeros((60 * 80, 3))
    w1[5 * 80 + 7, 1] = 2.0  # row 5, column 7
    w2 = np.array([[0.1, 9.0], [-3.0, 0.0], [0.5, -9.0]])
    units = strongest_units(trained(w1, w2, config), 2)
    assert [(unit.action, unit.size) for unit in units] == [("DOWN", 3.0), ("UP", 0.5)]
    assert units[0].weights.shape == (60, 80)
    assert np.argwhere(units[0].weights).tolist() == [[5, 7]]
    sheet = tiled(units, gap=(4, 6))
    assert sheet.shape == (64, 166)
    assert np.argwhere(np.nan_to_num(sheet)).tolist() == [[4 + 5, 7]]
    assert np.isnan(sheet[:4]).all()
    assert np.isnan(sheet[:, 80:86]).all()
    assert not np.isnan(sheet[4:, 86:]).any()


def test_the_weights_of_the_current_frame_are_to_the_right() -> None:
    w1 = np.zeros((6400, 6))
    w1[5 * 80 + 7, 1], w1[6 * 80 + 9, 3 + 1] = 2.0, 3.0  # row 5, column 7; row 6, column 9
    units = strongest_units(trained(w1, np.array([[0.0, 0], [1, 0], [0, 0]]), TrainConfig()), 1)
    assert units[0].weights.shape == (80, 160)
    assert np.argwhere(units[0].weights).tolist() == [[5, 7], [6, 80 + 9]]
    assert tiled(units * 4, gap=(0, 0)).shape == (160, 320)


def test_of_more_than_two_actions_a_unit_favours_the_one_with_the_highest_logit() -> None:
    config = TrainConfig(hidden_units=3, actions=("NOOP", "UP", "DOWN"))
    w2 = np.array([[1.0, 2.0, 0.0], [-3.0, -4.0, 0.0], [0.5, -1.0, 9.0]])
    units = strongest_units(trained(np.zeros((6400, 3)), w2, config), 9)
    assert [unit.action for unit in units] == ["DOWN", "UP", "NOOP"]


def test_zero_is_white_and_the_signs_have_a_colour_each() -> None:
    w1 = np.zeros((6400, 1))
    w1[:100], w1[100:200] = 1.0, -1.0
    units = strongest_units(trained(w1, np.ones((1, 2)), TrainConfig(hidden_units=1)), 1)
    with Image.open(io.BytesIO(weights_png(units, LIGHT))) as image:
        pixels = np.asarray(image.convert("RGBA")).reshape(-1, 4)
    high, low, zero = ("#{:02x}{:02x}{:02x}".format(*pixels[at]) for at in (0, 100, 200))
    assert (low, zero, high) == LIGHT
    drawn = weights_figure(units).axes[0].images[0]
    assert drawn.get_clim() == (-1.0, 1.0)
    assert drawn.get_cmap()(0.5)[:3] == (1.0, 1.0, 1.0)


def test_the_command_draws_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = TrainConfig(hidden_units=8, current_frame=True)
    run = RunDir.create(replace(config, run_dir=tmp_path / "run"))
    state = TrainingState.initial(config)
    state.policy.w1[:, 8:] = np.random.default_rng(0).normal(0.0, 0.01, (6400, 8))
    run.save(config, state, best=False)
    out = tmp_path / "weights.png"
    command = ["plot", "--weights", str(run.path), "--units", "6", "--out", str(out)]
    assert main(command) == 0
    assert capsys.readouterr().out == f"Wrote {out}\n"
    with Image.open(out) as picture:
        pixels = np.asarray(picture.convert("RGB"), int)
    assert (np.ptp(pixels, axis=2) > 40).mean() > 0.2  # blue and orange, not black on white
