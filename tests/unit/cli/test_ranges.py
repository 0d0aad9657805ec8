"""The flags of every command take what is in range, and the help says what that is."""

import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from distributed_pg.cli.main import COMMANDS, parse_command
from distributed_pg.config import TrainConfig
from distributed_pg.errors import ConfigError, UsageError
from distributed_pg.fields import Range, range_in

REQUIRED: dict[str, dict[str, Any]] = {
    "evaluate": {"checkpoint": "x"},
    "play": {"checkpoint": "x"},
    "record": {"checkpoint": "x"},
    "import": {"pickle": Path("x")},
    "plot": {"weights": "x", "out": Path("a.png")},
    "report": {"run": "x"},
}
"""Fields that the commands do not go without."""
SHOWN = {
    ("train", "--seed"): "at least 0; default: 0",
    ("train", "--batch-size"): "from 1 to 100000; default: 1",
    ("train", "--learning-rate"): "above 0 and up to 1; default: 0.003",
    ("train", "--decay"): "from 0 and below 1; default: 0.99",
    ("train", "--stop-minutes"): "above 0 and up to 1e+09; default: None",
    ("train", "--stop-reward"): "from -21 to 21; default: None",
    ("train", "--num-workers"): "from 1 to 100000; default: auto",
    ("evaluate", "--episodes"): "from 1 to 10000000; default: 100",
    ("play", "--seed"): "at least 0; default: 0",
    ("record", "--best-of"): "from 1 to 1000000; default: 1",
    ("record", "--max-seconds"): "above 0 and up to 1e+06; default: None",
    ("plot", "--units"): "from 1 to 100000; default: 40",
    ("report", "--episodes"): "from 0 to 10000000; default: 20",
    ("benchmark", "--rounds"): "from 1 to 1000; default: 5",
    ("benchmark", "--seconds"): "from 0.1 to 3600; default: 10.0",
}


def kind_of(command: str) -> type:
    """The class whose fields are the command's flags."""
    return TrainConfig if command == "train" else COMMANDS[command][0]


def ranges(command: str) -> dict[str, Range]:
    hints = get_type_hints(kind_of(command), include_extras=True)
    found = {name: range_in(hint) for name, hint in hints.items()}
    return {name: limits for name, limits in found.items() if limits is not None}


def helps(command: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """For each flag what the help says of it, without its frame and its line breaks."""
    with pytest.raises(SystemExit):
        parse_command([command, "--help"])
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines() if line[:1] in "│╭╰ ") == 80
    words = " ".join(" ".join(line.strip("│ ") for line in text.splitlines()).split())
    return {flag.partition(" ")[0]: flag for flag in re.split(r" (?=--[a-z])", words)}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_shows_every_range(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = helps(command, capsys)
    for name, limits in ranges(command).items():
        allowed = f"at least {limits.low}" if limits.high > 1e15 else f"{limits}"
        assert f" ({allowed}; default: " in said[f"--{name.replace('_', '-')}"]
    for (of_command, flag), shown in SHOWN.items():
        if of_command == command:
            assert said[flag].endswith(f" ({shown})")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_value_beyond_its_range_is_refused(command: str) -> None:
    for name, limits in ranges(command).items():
        for value in (limits.low - 1, limits.high + 1):
            with pytest.raises(ConfigError) as raised:
                kind_of(command)(**{**REQUIRED.get(command, {}), name: value})
            message = str(raised.value)
            assert message.startswith(f"{name}: {value} is not a ")
            assert str(limits) in message
            assert "\n" not in message


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("train --gamma 1.5", "gamma: 1.5 is not a number from 0 to 1"),
        ("train --decay 1", "decay: 1.0 is not a number from 0 and below 1"),
        ("train --frame-skip 61", "frame_skip: 61 is not a whole number from 1 to 60"),
        ("train --learning-rate nan", "learning_rate: nan is not a number above 0 and up to 1"),
        ("train --num-workers 1e6", "num_workers: 1000000 is not a whole number from 1 to 100000,"),
        ("evaluate x --episodes 0", "episodes: 0 is not a whole number from 1 to 10000000"),
        ("evaluate x --num-workers 0", "num_workers: 0 is not a whole number from 1 to 100000, or"),
        ("evaluate x --address head", "address: 'head' is not HOST:PORT or \"auto\""),
        ("play x --seed -1", "seed: -1 is not a whole number from 0 to 9223372036854775807"),
        ("record x --best-of 1000001", "best_of: 1000001 is not a whole number from 1 to 1000000"),
        ("record x --max-seconds 0", "max_seconds: 0.0 is not a number above 0 and up to 1e+06"),
        ("plot x --units 0 --out a.png", "units: 0 is not a whole number from 1 to 100000"),
        ("report x --episodes -1", "episodes: -1 is not a whole number from 0 to 10000000"),
        ("benchmark --rounds 1001", "rounds: 1001 is not a whole number from 1 to 1000"),
        ("benchmark --seconds 0.09", "seconds: 0.09 is not a number from 0.1 to 3600"),
        ("benchmark --seconds inf", "seconds: inf is not a number from 0.1 to 3600"),
        ("benchmark --num-workers 1,0", "num_workers: '0' is not a whole number from 1 to 100000"),
    ],
)
def test_what_a_refusal_says(line: str, complaint: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_command(line.split())
    assert str(raised.value).startswith(complaint)
