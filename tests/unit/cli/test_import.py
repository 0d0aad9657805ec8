"""``import``, and ``export`` to the classic script, as a user gives them."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from python2_pickles import model, python2_pickle

from distributed_pg.algo.state import TrainingState
from distributed_pg.cli.main import main
from distributed_pg.config import TrainConfig
from distributed_pg.storage.checkpoint import save_checkpoint, weights_checksum
from distributed_pg.storage.classic_script import MOST_BYTES, load_classic
from distributed_pg.storage.policy_file import load_policy

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("save.p").write_bytes(python2_pickle(*model(3), 0))


def test_the_file_and_its_settings_are_named(capsys: Captured) -> None:
    assert main(["import", "save.p"]) == 0
    trained = load_policy("save.safetensors")
    checksum = weights_checksum(trained.policy)
    assert capsys.readouterr() == (
        "Wrote save.safetensors, 0.1 MB: 3 hidden units, UP and DOWN, 4 frames per step, "
        f"weights {checksum}\n",
        "",
    )
    assert trained.config.frame_skip == 4
    assert main(["import", "save.p", "--out", "b.SAFETENSORS", "--frame-skip", "1"]) == 0
    assert " 1 frame per step, " in capsys.readouterr().out
    assert load_policy("b.SAFETENSORS").config.frame_skip == 1
    assert weights_checksum(load_policy("b.SAFETENSORS").policy) == checksum


def test_only_a_file_that_is_named_is_replaced(capsys: Captured) -> None:
    Path("save.safetensors").write_bytes(b"before")
    assert main(["import", "save.p"]) == 2
    assert capsys.readouterr().err == (
        "distributed-pg: error: --out: save.safetensors exists; "
        "name it to replace it, or another file\n"
    )
    assert Path("save.safetensors").read_bytes() == b"before"
    assert main(["import", "save.p", "--out", "save.safetensors"]) == 0
    assert load_policy("save.safetensors").config.hidden_units == 3


def test_a_checkpoint_is_never_written_over(capsys: Captured) -> None:
    config = TrainConfig(hidden_units=1)
    save_checkpoint(Path("c.safetensors"), config, TrainingState.initial(config))
    before = Path("c.safetensors").read_bytes()
    assert main(["import", "save.p", "--out", "c.safetensors"]) == 2
    assert "--out: c.safetensors is a checkpoint, which" in capsys.readouterr().err
    assert Path("c.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("none.p", "none.p: No such file or directory; give the classic script's save.p"),
        ("folder.p", "folder.p: Is a directory; give the classic script's save.p"),
        ("cut.p", "cut.p: not a model of the classic script: it is cut short at byte 5000"),
        (
            "evil.p",
            "evil.p: not a model of the classic script: it asks for posix.system, which no array "
            "needs",
        ),
        ("nan.p", "nan.p: not a model of the classic script: W2 has a number that is not finite"),
        ("large.p", "large.p: not a model of the classic script: it is larger than 128 MiB"),
        ("save.p --out p.npz", "--out: p.npz does not end in .safetensors"),
        ("save.p --out none/p.safetensors", "--out: there is no folder none"),
        ("save.p --frame-skip 0", "--frame-skip: 0 is not a whole number from 1 to 60"),
        ("", "import: SAVE.P is missing; import --help describes it"),
    ],
)
def test_what_is_wrong_is_one_line(capsys: Captured, arguments: str, complaint: str) -> None:
    w1, w2 = model(1)
    Path("folder.p").mkdir()
    Path("cut.p").write_bytes(Path("save.p").read_bytes()[:5000])
    Path("evil.p").write_bytes(b"cposix\nsystem\n(S'touch was_run'\ntR.")
    Path("nan.p").write_bytes(pickle.dumps({"W1": w1, "W2": w2 * np.nan}))
    with Path("large.p").open("wb") as file:
        os.truncate(file.fileno(), MOST_BYTES + 1)
    before = sorted(Path().iterdir())
    assert main(["import", *arguments.split()]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"distributed-pg: error: {complaint}")
    assert errors.count("\n") == 1
    assert sorted(Path().iterdir()) == before


def test_an_output_that_cannot_be_written(capsys: Captured) -> None:
    Path("p.safetensors").mkdir()
    assert main(["import", "save.p", "--out", "p.safetensors"]) == 1
    assert "--out: p.safetensors cannot be written (" in capsys.readouterr().err
    assert sorted(path.name for path in Path().iterdir()) == ["p.safetensors", "save.p"]


@pytest.mark.parametrize("arguments", ["back.p", "back.p --format save.p", "b --format save.p"])
def test_back_to_the_script(capsys: Captured, arguments: str) -> None:
    main(["import", "save.p"])
    capsys.readouterr()
    assert main(["export", "save.safetensors", "--out", *arguments.split()]) == 0
    out = arguments.split()[0]
    assert capsys.readouterr() == (
        f"Wrote {out}, 0.2 MB, without the value; it plays at 4 frames per step, "
        "which the file does not say: import it with --frame-skip 4\n",
        "",
    )
    once, twice = load_classic(Path("save.p")).policy, load_classic(Path(out)).policy
    assert weights_checksum(once) == weights_checksum(twice)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--out p.npz --format save.p", "--out: p.npz ends in that of another format than save.p"),
        ("--out p.p --format npz", "--out: p.p ends in that of another format than npz"),
        ("--out p.p --format pickle", "invalid choice 'pickle' for argument '--format'"),
    ],
)
def test_a_format_that_does_not_fit(capsys: Captured, arguments: str, complaint: str) -> None:
    assert main(["export", "pretrained", *arguments.split()]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"distributed-pg: error: {complaint}")
    assert errors.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["save.p"]
