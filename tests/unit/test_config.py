"""Every field out of range is named, with what is allowed."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from distributed_pg.config import TrainConfig, may_change, of_the_place
from distributed_pg.errors import ConfigError
from distributed_pg.presets import PRESETS, preset

NO_CROP = (
    "is not two screen rows TOP < BOTTOM from 0 to 210 and two columns LEFT < RIGHT from 0 to 160"
)
OUT_OF_RANGE: list[tuple[str, Any, str]] = [
    ("preset", "fast", "'fast' is not one of default, karpathy"),
    ("seed", -1, "-1 is not a whole number from 0 to 9223372036854775807"),
    ("seed", 1.5, "1.5 is not of type int"),
    ("seed", True, "True is not of type int"),
    ("batch_size", 0, "0 is not a whole number from 1 to 100000"),
    ("batch_size", "ten", "'ten' is not of type int"),
    ("learning_rate", 0.0, "0.0 is not a number above 0 and up to 1"),
    ("learning_rate", float("nan"), "nan is not a number above 0 and up to 1"),
    ("anneal_by_reward", 1, "1 is not of type bool"),
    ("anneal_episodes", 0, "0 is not a whole number from 1 to"),
    ("baseline", "none", "'none' is not one of mean, learned"),
    ("gamma", 1.01, "1.01 is not a number from 0 to 1"),
    ("decay", 1.0, "1.0 is not a number from 0 and below 1"),
    ("weight_decay", -0.1, "-0.1 is not a number from 0 to 100"),
    ("warm_up", 1, "1 is not of type bool"),
    ("episodes_per_task", 0, "0 is not a whole number from 1 to 100000"),
    ("policy_lag", -1, "-1 is not a whole number from 0 to 1000"),
    ("repeat_noise_probability", 1.0, "1.0 is not a number from 0 and below 1"),
    ("hidden_units", 0, "0 is not a whole number from 1 to 100000"),
    ("actions", ("UP",), "'UP' is not two or more different actions"),
    ("actions", ("UP", "UP"), "'UP, UP' is not two or more different actions"),
    ("actions", ("UP", "JUMP"), "'JUMP' is not one of NOOP, FIRE, UP, DOWN, UPFIRE, DOWNFIRE"),
    ("actions", "UP", "'UP' is not of type tuple"),
    ("crop", (195, 35, 0, 160), f"(195, 35, 0, 160) {NO_CROP}"),
    ("crop", (0, 211, 0, 160), f"(0, 211, 0, 160) {NO_CROP}"),
    ("crop", (0, 210, 80, 80), f"(0, 210, 80, 80) {NO_CROP}"),
    ("crop", (0, 210, 0, 161), f"(0, 210, 0, 161) {NO_CROP}"),
    ("crop", (0.5, 20, 0, 160), f"(0.5, 20, 0, 160) {NO_CROP}"),
    ("crop", (35, 195), f"(35, 195) {NO_CROP}"),
    ("current_frame", 1, "1 is not of type bool"),
    ("frame_skip", 0, "0 is not a whole number from 1 to 60"),
    ("repeat_action_probability", 1.0, "1.0 is not a number from 0 and below 1"),
    ("frame_limit", 0, "0 is not a whole number from 1 to 10000000"),
    ("init_from", 7, "7 is not of type str or Path or none"),
    ("init_optimizer", True, "goes with init_from, which is not given"),
    ("init_checksum", "0123456789abcdef", "goes with init_from, which is not given"),
    ("init_optimizer_checksum", "0123456789abcdef", "goes with init_optimizer"),
    ("stop_episodes", 0, "0 is not a whole number from 1 to"),
    ("stop_frames", 0, "0 is not a whole number from 1 to"),
    ("stop_minutes", 0.0, "0.0 is not a number above 0 and up to 1e+09"),
    ("stop_reward", 22.0, "22.0 is not a number from -21 to 21"),
    ("stop_plateau", 0, "0 is not a whole number from 1 to"),
    ("num_workers", 0, '0 is not a whole number from 1 to 100000, or "auto"'),
    ("num_workers", "many", "'many' is not a whole number from 1 to 100000, or \"auto\""),
    ("shape_for", 0, "0 is not a whole number from 1 to 100000"),
    ("address", "ray://head:10001", "'ray://head:10001' is not HOST:PORT"),
    ("address", "head", "'head' is not HOST:PORT"),
    ("address", "head:99999", "'head:99999' is not HOST:PORT"),
    ("max_workers", 0, "0 is not a whole number from 1 to 100000"),
    ("resume", "auto", "auto needs a run_dir"),
    ("run_dir", 7, "7 is not of type str or Path or none"),
    ("checkpoint_every", 0, "0 is not a whole number from 1 to"),
    ("keep", 0, "0 is not a whole number from 1 to"),
    ("backup_after", 0.5, "0.5 is not a number from 1 to 1e+09"),
    ("hang_seconds", 0.0, "0.0 is not a number above 0"),
    ("disk_errors", "hide", "'hide' is not one of stop, warn"),
    ("tensorboard", 1, "1 is not of type bool"),
    ("wandb", 1, "1 is not of type bool"),
    ("wandb_id", "", "'' is not 1 to 64 letters, digits, hyphens and underscores"),
    ("wandb_id", "a/b", "'a/b' is not 1 to 64 letters, digits, hyphens and underscores"),
]


@pytest.mark.parametrize(("field", "value", "complaint"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_named(field: str, value: Any, complaint: str) -> None:
    with pytest.raises(ConfigError) as raised:
        replace(TrainConfig(), **{field: value})
    message = str(raised.value)
    assert message.startswith(f"{field}: ")
    assert complaint in message
    assert "\n" not in message


def test_every_field_has_a_case_above() -> None:
    fields = set(TrainConfig().to_json()) | {"run_dir", "resume"}
    assert fields == {field for field, _, _ in OUT_OF_RANGE}


ABOVE_0, BELOW_1 = math.nextafter(0.0, 1.0), math.nextafter(1.0, 0.0)
ENDS: dict[str, tuple[Any, Any]] = {
    "seed": (0, 2**63 - 1),
    "batch_size": (1, 100_000),
    "episodes_per_task": (1, 100_000),
    "learning_rate": (ABOVE_0, 1.0),
    "anneal_episodes": (1, 2**53),
    "gamma": (0.0, 1.0),
    "decay": (0.0, BELOW_1),
    "weight_decay": (0.0, 100.0),
    "policy_lag": (0, 1000),
    "repeat_noise_probability": (0.0, BELOW_1),
    "hidden_units": (1, 100_000),
    "frame_skip": (1, 60),
    "repeat_action_probability": (0.0, BELOW_1),
    "frame_limit": (1, 10_000_000),
    "stop_episodes": (1, 2**53),
    "stop_frames": (1, 2**53),
    "stop_minutes": (ABOVE_0, 1e9),
    "stop_reward": (-21.0, 21.0),
    "stop_plateau": (1, 2**53),
    "shape_for": (1, 100_000),
    "num_workers": (1, 100_000),
    "max_workers": (1, 100_000),
    "checkpoint_every": (1, 2**53),
    "keep": (1, 2**53),
    "backup_after": (1.0, 1e9),
    "hang_seconds": (ABOVE_0, 1e9),
}
"""For every number the least and the greatest value it takes."""


def test_every_number_has_its_ends_above() -> None:
    hints = get_type_hints(TrainConfig)
    numbers = {name for name, hint in hints.items() if {int, float} & {hint, *get_args(hint)}}
    assert numbers - {"crop"} == ENDS.keys()


@pytest.mark.parametrize("field", ENDS)
def test_a_number_goes_to_its_ends_and_no_further(field: str) -> None:
    low, high = ENDS[field]
    for end in (low, high):
        assert getattr(replace(TrainConfig(batch_size=100_000), **{field: end}), field) == end
    if isinstance(low, int):
        refused = [low - 1, high + 1]
    else:
        refused = [math.nextafter(low, -math.inf), math.nextafter(high, math.inf)]
    no_numbers: list[Any] = [math.nan, math.inf, -math.inf, 10**400, -(10**400), True, "1"]
    for value in refused + no_numbers:
        with pytest.raises(ConfigError) as raised:
            replace(TrainConfig(), **{field: value})
        assert str(raised.value).startswith(f"{field}: {value!r} is not ")
        assert "\n" not in str(raised.value)


def test_a_checksum_is_16_hex_digits_and_a_path_is_kept_as_text() -> None:
    config = TrainConfig(init_from=Path("runs/a"), init_checksum="0123456789abcdef")
    assert config == TrainConfig(init_from="runs/a", init_checksum="0123456789abcdef")
    assert config.to_json()["init_from"] == "runs/a"
    for wrong in ("0123456789abcde", "0123456789ABCDEF", "0123456789abcdef0", ""):
        with pytest.raises(ConfigError, match=f"^init_checksum: '{wrong}' is not 16 hex digits"):
            replace(config, init_checksum=wrong)


def test_auto_is_a_place_only_with_the_folder_to_begin_in() -> None:
    assert TrainConfig(run_dir="runs/a", resume="auto").location == "runs/a"
    assert TrainConfig(resume=Path("auto")).location == Path("auto")


def test_a_batch_is_made_of_whole_tasks() -> None:
    assert TrainConfig(batch_size=12, episodes_per_task=4).tasks_at_a_time == 6
    assert TrainConfig(batch_size=12, episodes_per_task=4).useful_workers == 4
    with pytest.raises(ConfigError, match=r"^episodes_per_task: 5 is not a divisor of the batch_"):
        TrainConfig(batch_size=12, episodes_per_task=5)


def test_an_update_leaves_something_of_the_weights() -> None:
    assert TrainConfig(learning_rate=0.5, weight_decay=2).weight_decay == 2
    with pytest.raises(ConfigError, match=r"^weight_decay: 2.1 times the learning_rate, 0.5, is m"):
        TrainConfig(learning_rate=0.5, weight_decay=2.1)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("weight_decay", 0.0),
        ("anneal_by_reward", False),
        ("episodes_per_task", 1),
        ("repeat_noise_probability", 0.0),
    ],
)
def test_a_run_from_before_a_setting_was_added_is_as_it_was(setting: str, value: Any) -> None:
    values = TrainConfig(batch_size=12).to_json()
    del values[setting]
    assert getattr(TrainConfig.from_json(values), setting) == value


def test_presets() -> None:
    assert set(PRESETS) == {"default", "karpathy"}
    assert preset("default") == TrainConfig()
    default, karpathy = preset("default"), preset("karpathy")
    assert (default.frame_skip, karpathy.frame_skip) == (2, 4)
    assert (default.learning_rate, default.batch_size, default.policy_lag) == (3e-3, 1, 1)
    assert (karpathy.learning_rate, karpathy.batch_size, karpathy.baseline) == (1e-4, 10, "mean")
    for config in (default, karpathy):
        assert (config.hidden_units, config.gamma, config.decay) == (200, 0.99, 0.99)
    assert preset("karpathy", batch_size=5).batch_size == 5
    with pytest.raises(ConfigError, match="preset: 'x' is not one of default, karpathy"):
        preset("x")


def test_json_and_back() -> None:
    config = preset("karpathy", seed=3, actions=("NOOP", "UP", "DOWN"), stop_minutes=1.5)
    text = json.dumps(config.to_json())
    assert TrainConfig.from_json(json.loads(text)) == config


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sed": 1}, "sed: no such setting"),
        ({"seed": None}, "seed: None is not of type int"),
        ({"crop": {}}, r"crop: \{\} is not of type tuple"),
    ],
)
def test_json_that_is_not_a_config(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        TrainConfig.from_json(TrainConfig().to_json() | change)


def test_json_without_a_setting() -> None:
    values = TrainConfig().to_json()
    del values["gamma"]
    with pytest.raises(ConfigError, match="gamma: the setting is missing"):
        TrainConfig.from_json(values)


def test_json_of_a_version_that_had_fewer_ways_to_run() -> None:
    values = TrainConfig(batch_size=7).to_json()
    del values["hang_seconds"], values["keep"]
    assert TrainConfig.from_json(values) == TrainConfig(batch_size=7)


def test_a_whole_number_counts_where_any_number_does() -> None:
    values = TrainConfig().to_json() | {"gamma": 1, "stop_minutes": 90, "hang_seconds": 5}
    config = TrainConfig.from_json(json.loads(json.dumps(values)))
    assert (config.gamma, config.stop_minutes, config.hang_seconds) == (1, 90, 5)
    assert json.dumps(config.to_json()) == json.dumps(values)


COMPUTED, FREE, PLACE = "what is computed", "how long and how safely", "where"
WHAT_IT_DECIDES: dict[str, tuple[Any, str]] = {
    "preset": ("karpathy", COMPUTED),
    "seed": (1, COMPUTED),
    "batch_size": (5, COMPUTED),
    "learning_rate": (0.5, COMPUTED),
    "anneal_by_reward": (False, COMPUTED),
    "anneal_episodes": (None, COMPUTED),
    "gamma": (0.5, COMPUTED),
    "decay": (0.5, COMPUTED),
    "weight_decay": (0.0, COMPUTED),
    "baseline": ("mean", COMPUTED),
    "episodes_per_task": (2, COMPUTED),
    "warm_up": (False, COMPUTED),
    "policy_lag": (2, COMPUTED),
    "repeat_noise_probability": (0.0, COMPUTED),
    "hidden_units": (5, COMPUTED),
    "actions": (("DOWN", "UP"), COMPUTED),
    "crop": ((36, 195, 0, 160), COMPUTED),
    "current_frame": (True, COMPUTED),
    "frame_skip": (5, COMPUTED),
    "repeat_action_probability": (0.5, COMPUTED),
    "frame_limit": (5, COMPUTED),
    "init_from": ("runs/b", COMPUTED),
    "init_optimizer": (False, COMPUTED),
    "init_checksum": ("0123456789abcdef", COMPUTED),
    "init_optimizer_checksum": ("0123456789abcdef", COMPUTED),
    "stop_episodes": (9, FREE),
    "stop_frames": (9, FREE),
    "stop_minutes": (9, FREE),
    "stop_reward": (9, FREE),
    "stop_plateau": (9, FREE),
    "shape_for": (9, FREE),
    "num_workers": (9, PLACE),
    "max_workers": (9, PLACE),
    "address": ("head:6379", PLACE),
    "run_dir": (Path("x"), PLACE),
    "resume": ("s3://bucket/x", PLACE),
    "checkpoint_every": (9, FREE),
    "keep": (9, FREE),
    "backup_after": (9.0, FREE),
    "hang_seconds": (9.0, FREE),
    "disk_errors": ("warn", FREE),
    "tensorboard": (True, FREE),
    "wandb": (True, FREE),
    "wandb_id": ("a1", FREE),
}
"""For every field another value than that of the run, and what the field decides."""


def test_what_makes_another_run() -> None:
    saved = TrainConfig(batch_size=4, init_from="runs/a", init_optimizer=True)
    assert WHAT_IT_DECIDES.keys() == {field.name for field in fields(saved)}
    for name, (value, decides) in WHAT_IT_DECIDES.items():
        changed = replace(saved, **{name: value})
        assert getattr(changed, name) != getattr(saved, name)
        assert changed.changed_settings(saved) == ([name] if decides == COMPUTED else []), name
        assert (name in may_change()) == (decides != COMPUTED), name
        assert (name in of_the_place()) == (decides == PLACE), name


def test_run_dir_and_resume_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="run_dir: a resumed run stays in its folder"):
        TrainConfig(run_dir=Path("a"), resume=Path("b"))


def test_a_preset_has_no_other_settings() -> None:
    with pytest.raises(ConfigError, match=r"^sed: no such setting; did you mean seed\?$"):
        preset("default", sed=7)
