"""Numbers as people write them, and what a wrong word may have meant."""

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_pg.cli.main import COMMANDS, parse_command
from distributed_pg.cli.parsing import whole_number
from distributed_pg.cli.usage_errors import suggestion
from distributed_pg.errors import UsageError

KINDS = {name: kind for name, (kind, _) in COMMANDS.items()}


@pytest.mark.parametrize(
    ("text", "number"),
    [("7", 7), ("-3", -3), ("1_000_000", 10**6), ("1e6", 10**6), ("2.5e3", 2500), ("3.0", 3)],
)
def test_a_whole_number(text: str, number: int) -> None:
    assert whole_number(text) == number


@pytest.mark.parametrize("text", ["", "x", "1.5", "1e-1", "nan", "inf", "1e999999999", "1e6x"])
def test_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a whole number, such as 2000 or 2e3$"):
        whole_number(text)


@given(st.integers(-(10**18), 10**18))
def test_every_number_is_read_back(number: int) -> None:
    assert whole_number(str(number)) == whole_number(f"{number:_}") == number


def test_settings_take_them() -> None:
    train = parse_command(
        ["train", "--stop-frames", "2e6", "--num-workers", "1e1", "--seed", "1_0"]
    ).config
    assert (train.stop_frames, train.num_workers, train.seed) == (2_000_000, 10, 10)
    assert parse_command(["train", "--num-workers", "auto"]).config.num_workers == "auto"


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("trian", "; did you mean train?"),
        ("evaluate x --greddy", "; did you mean --greedy?"),
        ("train --learningrate=1", "; did you mean --learning-rate?"),
        ("train --no-warmup", "; did you mean --no-warm-up?"),
        ("train --batch_size 4 --zzz", ""),
        ("evaluate --checkpint x", ""),  # an argument without a name
        ("zzz", ""),
    ],
)
def test_what_was_meant(line: str, meant: str) -> None:
    assert suggestion(line.split(), KINDS) == meant


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("train --seed 1.5", "--seed: '1.5' is not a whole number, such as 2000 or 2e3"),
        ("train --stop-reward x", "--stop-reward: 'x' is not a number or None"),
        ("train --num-workers 1.5", "--num-workers: '1.5' is not a whole number or auto"),
        ("train --zzz", "Unrecognized options: --zzz"),
        ("plot --by x", "invalid choice 'x' for argument '--by'. Expected one of ('episodes', "),
        ("train a --zzz 1 --batch-size 2 --x=3 b", "Unrecognized options: a, --zzz, --x=3, b"),
        ("report", "report: RUN is missing; report --help describes it"),
        ("plot x", "plot: --out PATH is missing; plot --help describes it"),
        ("evaluate", "evaluate: PATH|URI|pretrained is missing; evaluate --help describes it"),
    ],
)
def test_what_tyro_says_is_read_out_of_its_frame(
    line: str, sentence: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frame is no interface, so another tyro may draw another: hence the cap on its version."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))  # as it is drawn
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(UsageError) as raised:
        parse_command(line.split())
    said = str(raised.value)
    assert said.startswith(sentence)
    assert not any(part in said for part in ("\n", "---", "│", "─", "helptext", "Value error"))
