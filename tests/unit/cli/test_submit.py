"""What ``submit`` asks a cluster for, and refuses to ask."""

from pathlib import Path

from distributed_pg.cli.main import parse_command
from distributed_pg.cli.submit import SubmitArgs
from distributed_pg.cli.train import TrainArgs
from distributed_pg.presets import preset


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
