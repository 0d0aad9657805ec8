"""``distributed-pg play``."""

from dataclasses import dataclass
from typing import Literal

from distributed_pg._extras import need_extra
from distributed_pg.cli.arguments import Checkpoint
from distributed_pg.cli.console import console
from distributed_pg.config import Seed
from distributed_pg.fields import check_fields


@dataclass(frozen=True)
class PlayArgs:
    """Watch a checkpoint's policy play in a window, or play against it.

    Raises:
        ConfigError: a value is out of range.
    """

    checkpoint: Checkpoint
    """A checkpoint, a run's folder or URI for its newest one, or pretrained: the policy that comes
    with this package."""
    human: Literal["left"] | None = None
    """The side that you play, with the up and down keys or W and S, in place of the built-in
    opponent."""
    overlay: bool = False
    """Start with the panel open that shows the network's input, the difference frame."""
    seed: Seed = 0
    """Seed of the games and the sampling; evaluate plays the same games with this seed."""
    greedy: bool = False
    """Take the most probable action instead of sampling."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self)


def run(args: PlayArgs) -> int:
    """Play until the window is closed; return the exit code."""
    need_extra("play", "pygame", "PIL")

    from distributed_pg.viewer.window import play

    arrows = "W/S or up/down your paddle, left/right" if args.human else "arrows"
    keys = f"Keys: {arrows} speed, space pause and next game, o what the network sees, q quit"
    play(
        args.checkpoint,
        seed=args.seed,
        greedy=args.greedy,
        overlay=args.overlay,
        human=args.human is not None,
        opened=lambda: console(stderr=True).print(keys, soft_wrap=True),
    )
    return 0
