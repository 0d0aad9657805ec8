"""Wrong usage that is noticed before any game and any Ray."""

from pathlib import Path

import pytest

from distributed_pg.cli.main import main

ALLOWED = "give a checkpoint, a .safetensors export, a run's folder or URI, or pretrained"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (
            "export pretrained --out p.txt",
            "--out: p.txt does not end in one of .safetensors, .npz, .onnx",
        ),
        ("export pretrained --out p", "--out: p does not end in one of .safetensors, .npz, .onnx"),
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
