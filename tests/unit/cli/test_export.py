"""``export`` as a user gives it: what is said, and the exit code."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from distributed_pg.cli.main import main


@pytest.mark.parametrize(
    ("name", "size"), [("p.safetensors", 2.6), ("p.npz", 5.1), ("P.ONNX", 5.1)]
)
def test_the_file_and_its_size_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, size: float
) -> None:
    out = tmp_path / name
    assert main(["export", "pretrained", "--out", str(out)]) == 0
    assert capsys.readouterr() == (f"Wrote {out}, {size} MB\n", "")
    assert round(out.stat().st_size / 1e6, 1) == size


def test_without_the_extra_one_line_says_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "distributed_pg._extras.find_spec", lambda name: None if name == "onnx" else find_spec(name)
    )
    assert main(["export", "pretrained", "--out", str(tmp_path / "p.onnx")]) == 2
    said = "onnx is not installed; install it with pip install 'distributed-pg[onnx]'"
    assert capsys.readouterr() == ("", f"distributed-pg: error: {said}\n")
    assert main(["export", "pretrained", "--out", str(tmp_path / "p.npz")]) == 0
