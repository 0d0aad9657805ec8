"""``distributed-pg record``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.progress import Progress, TextColumn, TimeElapsedColumn

from distributed_pg._extras import need_extra
from distributed_pg.cli.arguments import Checkpoint
from distributed_pg.cli.console import console
from distributed_pg.config import Seed
from distributed_pg.errors import counted
from distributed_pg.fields import Range, check_fields


@dataclass(frozen=True)
class RecordArgs:
    """Play full games with a checkpoint's policy and write one as a video.

    Raises:
        ConfigError: a value is out of range.
    """

    checkpoint: Checkpoint
    """A checkpoint, a run's folder or URI for its newest one, or pretrained: the policy that comes
    with this package."""
    out: Path = Path("game.mp4")
    """The video to write, ending in .mp4 or .gif."""
    seed: Seed = 0
    """Seed of the games and the sampling; evaluate plays the same games with this seed."""
    greedy: bool = False
    """Take the most probable action instead of sampling."""
    best_of: Annotated[int, Range(1, 1_000_000)] = 1
    """Play this many games and record the one with the highest reward."""
    smooth: bool = False
    """Show all emulated frames, 60 per second, instead of one per step; every second one in a
    GIF."""
    overlay: bool = False
    """Add the network's input, the difference frame, and its action probabilities. A GIF with
    overlay and without smooth shows only every second step, to stay small."""
    max_seconds: Annotated[float, Range(0.0, 1e6, open_low=True)] | None = None
    """Cut the video off after this many seconds."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self)


def run(args: RecordArgs) -> int:
    """Play, record and write the video; return the exit code."""
    need_extra("video", "imageio_ffmpeg", "PIL")

    from distributed_pg.viewer.video import record

    errors = console(stderr=True)
    columns = TextColumn("{task.description} {task.completed}"), TimeElapsedColumn()
    quiet = not errors.is_terminal
    with Progress(*columns, console=errors, transient=True, disable=quiet) as progress:
        games = progress.add_task("Games played", total=None, visible=args.best_of > 1)
        steps = progress.add_task("Steps recorded", total=None)
        recording = record(
            args.checkpoint,
            args.out,
            seed=args.seed,
            greedy=args.greedy,
            best_of=args.best_of,
            smooth=args.smooth,
            overlay=args.overlay,
            max_seconds=args.max_seconds,
            played=lambda count: progress.update(games, completed=count),
            progress=lambda count: progress.update(steps, completed=count),
        )
    console().print(
        f"Wrote {recording.path}: game {recording.episode} of seed {args.seed}, reward "
        f"{recording.reward:+.0f} in {counted(recording.steps, 'step')}, "
        f"{recording.seconds:.1f} seconds",
        soft_wrap=True,
    )
    return 0
