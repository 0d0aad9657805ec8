"""The commands that the user is shown do what they say once they are pasted into a shell."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runs import CONFIG, make_update

from distributed_pg.algo.state import Progress
from distributed_pg.cli import train
from distributed_pg.cli.main import parse_command
from distributed_pg.config import AUTO
from distributed_pg.shell import as_argument
from distributed_pg.storage.policy_file import load_policy
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.trainer import TrainResult

NAMES = ("my run", "it's", "$HOME", "auto", "None", "pretrained", "--seed")


@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_any_name_is_found_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path(name)
    make_update(RunDir.create(replace(CONFIG, run_dir=name)), 3)
    result = TrainResult(folder, folder, "0" * 16, Progress(update=3, episodes=3), False)
    lines = [line for line in train._last_lines(result, folder) if line.startswith("  ")]
    evaluate, record, report, resume = (shlex.split(line)[1:] for line in lines)
    assert evaluate[1] == record[1] == report[1]
    assert load_policy(parse_command(evaluate).checkpoint).progress.update == 3
    config = parse_command(resume).config
    assert config.resume != AUTO
    assert Path(config.resume).samefile(name)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_a_shell_gives_the_command_the_place(place: str) -> None:
    (given_to_it,) = shlex.split(as_argument(place))
    assert given_to_it in (place, f"./{place}")
    assert not given_to_it.startswith("-")
