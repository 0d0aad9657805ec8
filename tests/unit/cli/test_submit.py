"""What ``submit`` asks a cluster for, and refuses to ask."""

from pathlib import Path

import pytest

from distributed_pg.cli.main import main, parse_command
from distributed_pg.cli.submit import SubmitArgs
from distributed_pg.cli.train import TrainArgs
from distributed_pg.config import preset


def test_flags_of_train_are_checked_and_given_to_the_job_as_they_are() -> None:
    own = ["--dashboard", "https://host:1", "--out=runs/one"]
    given = ["--preset", "karpathy", "--seed=3", "--actions", "UP", "DOWN", "NOOP"]
    given += ["--stop-frames", "2e6", "--run-dir", "s3://bucket/run", "--quiet"]
    expected = SubmitArgs(
        dashboard="https://host:1",
        out=Path("runs/one"),
        train=TrainArgs(
            preset(
                "karpathy",
                seed=3,
                actions=("UP", "DOWN", "NOOP"),
                stop_frames=2_000_000,
                run_dir="s3://bucket/run",
            ),
            quiet=True,
        ),
        given=tuple(given),
    )
    for line in (own + given, given + own, [*own[:2], *given, own[2]]):
        assert parse_command(["submit", *line]) == expected


def test_without_flags_it_is_the_local_tunnel_and_train_without_flags() -> None:
    args = parse_command(["submit"])
    assert args == SubmitArgs(dashboard="http://127.0.0.1:8265", train=TrainArgs(), given=())
    attached = parse_command(["submit", "--attach", "2026-11-26_12-00-00_default_ab", "--out", "x"])
    assert (attached.attach, attached.given) == ("2026-11-26_12-00-00_default_ab", ())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--batch-size 0", "--batch-size: 0 is not a whole number from 1 to 100000"),
        ("--preset fast", "--preset: 'fast' is not one of default, karpathy"),
        ("--colour red", "Unrecognized options: --colour"),
        ("--addres auto", "Unrecognized options: --addres; did you mean --address?"),
        ("--dashbord x", "Unrecognized options: --dashbord; did you mean --dashboard?"),
        ("--given x", "Unrecognized options: --given"),
        ("--out", "Missing value for argument '--out'"),
        ("--address auto", "--address: the job runs on the cluster of the dashboard; leave it out"),
        ("--run-dir here", "--run-dir: here is on this machine, where the cluster cannot reach it"),
        ("--out full", "--out: full is not empty"),
        ("--out full/file", "--out: full/file: Not a directory"),
        ("--stop x --out y", "--out: --stop fetches nothing; --attach does"),
        ("--stop x --seed 1", "--seed: a job that exists keeps its settings"),
        ("--quiet --attach x", "--quiet: a job that exists keeps its settings"),
        ("--stop x --attach x", "--stop: goes without --attach; do one or the other"),
        ("--attach ../x", "'../x' is not a job"),
        ("--attach=", "'' is not a job"),
        ("--dashboard localhost:8265", "--dashboard: 'localhost:8265' is not http://HOST:PORT"),
    ],
)
def test_wrong_usage_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    complaint: str,
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    monkeypatch.chdir(tmp_path)
    assert main(["submit", *arguments.split()]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"distributed-pg: error: {complaint}")
    assert errors.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
