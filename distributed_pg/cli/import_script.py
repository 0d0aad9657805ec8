"""``distributed-pg import``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from distributed_pg.cli.console import console
from distributed_pg.errors import UsageError, counted
from distributed_pg.fields import Range, check_fields
from distributed_pg.presets import preset


@dataclass(frozen=True)
class ImportArgs:
    """Write the policy in a save.p of the classic 130-line script for the other commands.

    The file may have been written by Python 2 or 3. It is read without running any code in it.

    Raises:
        ConfigError: a value is out of range.
        UsageError: out does not end in .safetensors.
    """

    pickle: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SAVE.P")]
    """The script's file: a pickle of W1, (H, 6400), and W2, (H,), with any number H of hidden
    units."""
    out: Path | None = None
    """The policy file to write or replace, ending in .safetensors. Default: a new file beside
    save.p, with that ending in place of its own."""
    frame_skip: Annotated[int, Range(1, 60)] = preset("karpathy").frame_skip
    """Emulated frames per step at which the policy plays. ALE/Pong-v5 has 4; Pong-v0 of the old gym
    has 2 to 4 at random, so 3 may suit a policy that learned there."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self)
        if self.out is not None and self.out.suffix.lower() != ".safetensors":
            raise UsageError(f"out: {self.out} does not end in .safetensors")


def run(args: ImportArgs) -> int:
    """Read the pickle and write the policy; return the exit code."""
    from distributed_pg.storage.checkpoint import weights_checksum
    from distributed_pg.storage.policy_import import import_policy

    out = args.pickle.with_suffix(".safetensors") if args.out is None else args.out
    # Whoever gives a name may have the file replaced, as by export; this name nobody gave.
    if args.out is None and out.exists():
        raise UsageError(f"out: {out} exists; name it to replace it, or another file")
    trained = import_policy(args.pickle, out, args.frame_skip)
    units = counted(trained.config.hidden_units, "hidden unit")
    console().print(
        f"Wrote {out}, {out.stat().st_size / 1e6:.1f} MB: {units}, UP and DOWN, "
        f"{counted(args.frame_skip, 'frame')} per step, weights {weights_checksum(trained.policy)}",
        soft_wrap=True,
    )
    return 0
