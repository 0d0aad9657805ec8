"""Which checkpoints are kept, and which one is the newest that is good."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import CONFIG, state_after

from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError
from distributed_pg.storage.checkpoint import load_checkpoint
from distributed_pg.storage.policy_file import load_policy
from distributed_pg.storage.run_dir import RunDir


def run_with(folder: Path, *updates: int, best: int | None = None) -> RunDir:
    """A run that has these checkpoints."""
    run = RunDir.create(replace(CONFIG, run_dir=folder))
    for update in sorted({*updates, best} - {None}):  # type: ignore[type-var]
        assert update is not None
        run.save(replace(CONFIG, keep=100), state_after(update), best=update == best)
        if update not in updates:
            path_of(run, update).unlink()
    return run


def path_of(run: RunDir, update: int) -> Path:
    return run.path / f"checkpoints/update-{update:08}.safetensors"


def names(run: RunDir) -> list[str]:
    found = [path.name for path in (run.path / "checkpoints").iterdir()]
    return sorted(re.sub(r"^update-0*(?=\d)|\.safetensors$", "", name) for name in found)


def resume(run: RunDir, config: TrainConfig = CONFIG) -> tuple[Path, int]:
    """Go on as train() does: the checkpoint, and its update."""
    path, checkpoint = run.load_newest()
    update = checkpoint.state.progress.update
    return run.rewind(config, update, path)[0], update


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_damaged_checkpoints_never_outlive_good_ones(tmp_path: Path, keep: int) -> None:
    config = replace(CONFIG, keep=keep)
    run = run_with(tmp_path / "run", 150, 175, 200, 225)
    for update in (200, 225):
        path_of(run, update).write_bytes(b"damaged")
    assert resume(run, config) == (path_of(run, 175), 175)
    assert names(run) == ["150", "175", "200.safetensors.damaged", "225.safetensors.damaged"]
    for update in (180, 190):
        path = run.save(config, state_after(update), best=False)
        assert load_checkpoint(path).state.progress.update == update
        assert load_policy(run.path).progress.update == update
    kept = ["150", "175", "180", "190"][-keep:]
    assert names(run) == [*kept, "200.safetensors.damaged", "225.safetensors.damaged"]


def test_a_run_of_which_only_the_best_is_good_goes_on_from_it(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 200, best=150)
    path_of(run, 200).write_bytes(b"")
    path, update = resume(run, replace(CONFIG, keep=1))
    assert (path.name, update) == ("best.safetensors", 150)
    saved = run.save(replace(CONFIG, keep=1), state_after(175), best=False)
    assert saved.exists()
    assert resume(RunDir.open(run.path)) == (saved, 175)


def test_what_is_saved_stays_though_a_newer_one_appears(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 10)
    path_of(run, 99).write_bytes(b"copied here by hand while it trains")
    saved = run.save(replace(CONFIG, keep=1), state_after(20), best=False)
    assert saved.exists()
    assert not path_of(run, 10).exists()


def test_a_name_without_a_number_is_no_newest_checkpoint(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 10, 20)
    (run.path / "checkpoints/update-old.safetensors").write_bytes(b"a copy")
    assert run.newest_checkpoint() == path_of(run, 20)
    assert load_policy(run.path).progress.update == 20
    run.save(replace(CONFIG, keep=1), state_after(30), best=False)
    assert names(run) == ["30", "update-old"]


def test_numbers_of_any_length_are_in_order(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 99_999_999, 100_000_000)
    assert run.newest_checkpoint() == path_of(run, 100_000_000)


def test_a_checkpoint_with_the_name_of_another_update_gets_its_own(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 10, 20)
    path_of(run, 20).rename(path_of(run, 500))  # so that it counts as the newest
    assert resume(run) == (path_of(run, 20), 20)
    assert names(run) == ["10", "20"]


def test_evaluating_a_run_says_which_checkpoint_is_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_with(tmp_path / "run", 10, 20)
    path_of(run, 20).write_bytes(b"")
    assert load_policy(run.path).progress.update == 10
    (line,) = caplog.messages
    assert line.startswith(f"{path_of(run, 20)}: not a distributed_pg checkpoint, or cut short")
    assert line.endswith("; using update-00000010.safetensors")


def test_checkpoints_may_be_a_link_to_another_disk(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 10, 20)
    (run.path / "checkpoints").rename(tmp_path / "elsewhere")
    (run.path / "checkpoints").symlink_to(tmp_path / "elsewhere")
    path_of(run, 20).write_bytes(b"")
    assert resume(run) == (path_of(run, 10), 10)
    run.save(replace(CONFIG, keep=1), state_after(15), best=False)
    assert names(run) == ["15", "20.safetensors.damaged"]


def test_a_run_without_any_checkpoint_is_one_line(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run")
    with pytest.raises(RunError, match=r"run: there is no checkpoint in .*/run/checkpoints$"):
        load_policy(run.path)
