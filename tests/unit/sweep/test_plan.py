"""Which trials a sweep has."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distributed_pg.cli.main import parse_command
from distributed_pg.config import STOP_CONDITIONS, TrainConfig
from distributed_pg.errors import UsageError
from distributed_pg.presets import preset
from distributed_pg.sweep.plan import SweepPlan, Trial, parse_seeds, resume_flags, trial_flags

BASE = TrainConfig(stop_frames=1000)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "gamma": st.floats(0.0, 1.0),
    "learning_rate": st.floats(1e-9, 1.0),
    "batch_size": st.integers(1, 1000),
    "anneal_episodes": st.none() | st.integers(1, 10**6),
    "warm_up": st.booleans(),
    "baseline": st.sampled_from(["mean", "learned"]),
    "preset": st.sampled_from(["default", "karpathy"]),
    "actions": st.sampled_from([("UP", "DOWN"), ("NOOP", "UP", "DOWN")]),
    "crop": st.sampled_from([(35, 195, 0, 160), (35, 195, 16, 144)]),
}


@st.composite
def plans(draw: st.DrawFn) -> SweepPlan:
    names = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=3, unique=True))
    grid = {
        name: tuple(draw(st.lists(VALUES[name], min_size=1, max_size=3, unique=True)))
        for name in names
    }
    seeds = draw(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=3, unique=True))
    return SweepPlan(BASE, tuple(seeds), grid)


def test_every_combination_is_trained_seed_by_seed() -> None:
    plan = SweepPlan(BASE, (3, 0), {"gamma": (0.9, 0.99), "batch_size": (4, 8)})
    trials = list(plan.trials())
    assert [(t.config.seed, t.config.gamma, t.config.batch_size) for t in trials] == [
        (seed, gamma, size) for seed in (3, 0) for gamma in (0.9, 0.99) for size in (4, 8)
    ]
    assert trials[1].name == "gamma_0.9-batch_size_8-seed_3"
    assert trials[1].label == trials[5].label == "gamma 0.9, batch_size 8"
    (alone,) = SweepPlan(BASE, (7,), {}).trials()
    assert (alone.name, alone.label) == ("seed_7", "default")
    assert alone.config == TrainConfig(stop_frames=1000, seed=7)


def test_a_preset_brings_its_settings_and_keeps_those_given_for_all() -> None:
    base = TrainConfig(stop_frames=1000, gamma=0.5)
    trials = SweepPlan(base, (0,), {"preset": ("default", "karpathy")}).trials()
    assert [t.config for t in trials] == [
        base,
        preset("karpathy", stop_frames=1000, gamma=0.5),
    ]


@given(plans())
def test_names_are_distinct_and_safe_on_any_disk(plan: SweepPlan) -> None:
    names = [trial.name for trial in plan.trials()]
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9_.+-]{1,200}", name)
        assert name[0].isalpha()
        assert not name.endswith(".")


@given(plans())
def test_a_plan_comes_back_from_json(plan: SweepPlan) -> None:
    again = SweepPlan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    assert list(again.trials()) == list(plan.trials())


@settings(max_examples=15)  # the command line takes a while to parse
@given(plans())
def test_train_reads_a_trial_from_its_flags(plan: SweepPlan) -> None:
    trial = next(plan.trials())
    assert parse_command(["train", *trial_flags(trial)]).config == trial.config


def test_a_resumed_trial_is_given_the_settings_that_may_change(tmp_path: Path) -> None:
    trial = Trial("", "", TrainConfig(stop_frames=7, stop_reward=-3.5, keep=2))
    config = parse_command(["train", *resume_flags(trial)]).config
    assert (config.stop_frames, config.stop_reward, config.keep) == (7, -3.5, 2)
    assert {f"--{name.replace('_', '-')}" for name in STOP_CONDITIONS} <= set(resume_flags(trial))


@pytest.mark.parametrize(
    ("seeds", "grid", "complaint"),
    [
        ((0,), {"gama": (1,)}, "gama: no such setting; did you mean gamma?"),
        ((0,), {"seed": (1, 2)}, "seed: --seeds varies it"),
        ((0,), {"num_workers": (1, 2)}, "num_workers: does not change what a run learns"),
        ((0,), {"stop_frames": (1, 2)}, "stop_frames: does not change what a run learns"),
        ((0,), {"run_dir": ("a",)}, "run_dir: does not change what a run learns"),
        ((0,), {"gamma": ()}, "gamma: no value is given"),
        ((), {}, "seeds: no value is given"),
        ((0,), {"gamma": (0.5, 0.9, 0.5)}, "gamma: 0.5 is given twice"),
        ((1, 1), {}, "seeds: 1 is given twice"),
        ((0,), {"gamma": (0.5, 1.5)}, "gamma: 1.5 is not a number from 0 to 1"),
        ((-1,), {}, "seed: -1 is not a whole number from 0 to"),
        (tuple(range(101)), {"batch_size": tuple(range(1, 101))}, "sweep: 10100 trials are more"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(
    seeds: tuple[int, ...], grid: dict[str, tuple[Any, ...]], complaint: str
) -> None:
    with pytest.raises(UsageError) as raised:
        SweepPlan(BASE, seeds, grid)
    assert str(raised.value).startswith(complaint)
    assert "\n" not in str(raised.value)


def test_trials_must_end_and_all_by_the_same_measure() -> None:
    with pytest.raises(UsageError, match=r"^sweep: name a stop condition, such as --stop-frames"):
        SweepPlan(TrainConfig(), (0,), {})
    with pytest.raises(UsageError, match=r"^stop_minutes: what a trial learns in a minute depends"):
        SweepPlan(TrainConfig(stop_minutes=1.0, stop_frames=1), (0,), {})


def test_a_name_too_long_for_a_folder_is_refused() -> None:
    actions = ("NOOP", "FIRE", "UP", "DOWN", "UPFIRE", "DOWNFIRE")
    crop = (35, 195, 0, 160)
    names = ("gamma", "decay", "learning_rate", "repeat_action_probability")
    grid = {"actions": (actions,), "crop": (crop,), "anneal_episodes": (10**15,)}
    with pytest.raises(UsageError, match=r"^sweep: too many settings for the name of a folder"):
        SweepPlan(BASE, (0,), {**grid, **dict.fromkeys(names, (0.123456789012345,))})


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("7", (7,)),
        ("0-3", (0, 1, 2, 3)),
        ("0,3, 20-22", (0, 3, 20, 21, 22)),
        ("5-5", (5,)),
    ],
)
def test_seeds(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "x", "1-", "-1", "3-1", "0-10000", "1;2", "1.5", "9" * 20])
def test_no_seeds(text: str) -> None:
    with pytest.raises(UsageError, match=r"^seeds: '.*' is not (seeds like|a range)"):
        parse_seeds(text)
