"""A sweep whose trials begin with the weights of another run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_runs import CONFIG, state_after

from distributed_pg.cli.main import parse_command
from distributed_pg.config import TrainConfig
from distributed_pg.errors import UsageError
from distributed_pg.storage.checkpoint import save_checkpoint, weights_checksum
from distributed_pg.sweep.plan import SweepPlan, trial_flags
from distributed_pg.sweep.sources import with_checksums

CHECKSUM = weights_checksum(state_after(0).policy)


@pytest.fixture
def source(tmp_path: Path) -> str:
    save_checkpoint(tmp_path / "a", CONFIG, state_after(0))
    return str(tmp_path / "a")


def plan(grid: dict[str, tuple[Any, ...]], **changes: Any) -> SweepPlan:
    return with_checksums(SweepPlan(replace(CONFIG, stop_frames=9, **changes), (0, 1), grid))


def test_all_trials_begin_with_the_weights_that_were_there_when_the_sweep_began(
    source: str,
) -> None:
    made = plan({"gamma": (0.5, 0.9)}, init_from=source)
    for trial in made.trials():
        assert trial.config.init_checksum == CHECKSUM
        trained: TrainConfig = parse_command(["train", *trial_flags(trial)]).config
        assert trained == trial.config


def test_sources_that_are_compared_are_checked_and_found_by_name(
    tmp_path: Path, source: str
) -> None:
    other = replace(CONFIG, hidden_units=5)
    made = plan({"init_from": (None, source)})
    assert [trial.config.init_from for trial in made.trials()] == [None, source] * 2
    assert {trial.config.init_checksum for trial in made.trials()} == {None}
    save_checkpoint(tmp_path / "b", other, state_after(0))
    with pytest.raises(UsageError, match=r"^init_from: "):
        plan({"init_from": (source, str(tmp_path / "none"))})
    with pytest.raises(UsageError, match="does not fit: hidden_units is 4 there and 5 here"):
        plan({"hidden_units": (4, 5)}, init_from=source)


def test_an_optimizer_state_that_is_not_there_is_found_before_a_trial_begins(source: str) -> None:
    with pytest.raises(UsageError, match=r"^init_optimizer: .* has made no update"):
        plan({"init_optimizer": (False, True)}, init_from=source)
