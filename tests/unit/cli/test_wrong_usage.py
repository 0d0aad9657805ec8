"""Wrong usage that is noticed before any game and any Ray."""

from pathlib import Path

import pytest

from distributed_pg.cli.main import main

ALLOWED = "give a checkpoint, a .safetensors export, a run's folder or URI, or pretrained"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("train --batch-size x", "--batch-size: 'x' is not a whole number, such as 2000 or 2e3"),
        ("train --num-workers 0", "--num-workers: 0 is not a whole number from 1 to 100000"),
        ("train --preset fast", "--preset: 'fast' is not one of default, karpathy"),
        (
            "train --preset defualt",
            "--preset: 'defualt' is not one of default, karpathy; did you mean default?",
        ),
        ("train --actions UP", "--actions: 'UP' is not two or more different actions"),
        ("train --colour red", "Unrecognized options: --colour"),
        ("train --batchsize 4", "Unrecognized options: --batchsize; did you mean --batch-size?"),
        ("trian", "Unrecognized options: trian; did you mean train?"),
        ("learn", "Unrecognized options: learn"),
        ("train --seed 1.5", "--seed: '1.5' is not a whole number, such as 2000 or 2e3"),
        ("train --stop-episodes 1e3 --batch-size 0", "--batch-size: 0 is not a whole number"),
        ("train --stop-episodes", "Missing value for argument '--stop-episodes'"),
        ("train --resume nowhere", "nowhere holds no run (there is no such folder)"),
        ("train --address head", "--address: 'head' is not HOST:PORT"),
        ("evaluate", "evaluate: PATH|URI|pretrained is missing; evaluate --help describes it"),
        ("evaluate x --episodes 0", "--episodes: 0 is not a whole number from 1"),
        ("evaluate x --seed -1", "--seed: -1 is not a whole number from 0"),
        ("evaluate x --num-workers 0", "--num-workers: 0 is not a whole number from 1"),
        ("benchmark --num-workers 1,x", "--num-workers: 'x' is not a whole number from 1"),
        ("record nowhere --out game.avi", "--out: game.avi ends in none of .mp4, .gif"),
        ("record nowhere --out no/game.mp4", "--out: there is no folder no"),
        ("record nowhere --out game.mp4", f"nowhere: No such file or directory; {ALLOWED}"),
        ("record x --best-of 0", "--best-of: 0 is not a whole number from 1"),
        ("record x --max-seconds 0", "--max-seconds: 0.0 is not a number above 0"),
        ("record x --seed -1", "--seed: -1 is not a whole number from 0"),
        ("benchmark --rounds 0", "--rounds: 0 is not a whole number from 1 to 1000"),
        ("benchmark --seconds 0", "--seconds: 0.0 is not a number from 0.1 to 3600"),
        (
            "export pretrained --out p.txt",
            "--out: p.txt does not end in one of .safetensors, .npz, .onnx, .p",
        ),
        ("export pretrained --out p", "--out: p does not end in one of .safetensors, .npz, .onnx,"),
        ("export pretrained --out none/p.npz", "--out: there is no folder none"),
        ("export none --out p.npz", f"none: No such file or directory; {ALLOWED}"),
        ("export --out p.npz", "export: name a checkpoint, a run's folder or URI, or pretrained"),
        ("submit --batch-size 0", "--batch-size: 0 is not a whole number from 1 to 100000"),
        ("submit --preset fast", "--preset: 'fast' is not one of default, karpathy"),
        ("submit --colour red", "Unrecognized options: --colour"),
        ("submit --addres auto", "Unrecognized options: --addres; did you mean --address?"),
        ("submit --dashbord x", "Unrecognized options: --dashbord; did you mean --dashboard?"),
        ("submit --given x", "Unrecognized options: --given"),
        ("submit --out", "Missing value for argument '--out'"),
        (
            "submit --address auto",
            "--address: the job runs on the cluster of the dashboard; leave it out",
        ),
        (
            "submit --run-dir here",
            "--run-dir: here is on this machine, where the cluster cannot reach it",
        ),
        ("submit --run-dir auto", "--run-dir: auto is on this machine"),
        ("submit --resume auto --run-dir here", "--run-dir: here is on this machine"),
        ("submit --out full", "--out: full is not empty"),
        ("submit --out full/file", "--out: full/file: Not a directory"),
        ("submit --stop x --out y", "--out: --stop fetches nothing; --attach does"),
        ("submit --stop x --seed 1", "--seed: a job that exists keeps its settings"),
        ("submit --quiet --attach x", "--quiet: a job that exists keeps its settings"),
        ("submit --stop x --attach x", "--stop: goes without --attach; do one or the other"),
        ("submit --attach ../x", "'../x' is not a job"),
        ("submit --attach=", "'' is not a job"),
        (
            "submit --dashboard localhost:8265",
            "--dashboard: 'localhost:8265' is not http://HOST:PORT",
        ),
    ],
)
def test_it_is_one_line_and_changes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    complaint: str,
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"distributed-pg: error: {complaint}")
    assert errors.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
