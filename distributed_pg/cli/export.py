"""``distributed-pg export``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from distributed_pg._extras import need_extra
from distributed_pg.cli.console import console
from distributed_pg.errors import UsageError

_SUFFIXES = (".safetensors", ".npz", ".onnx")


@dataclass(frozen=True)
class ExportArgs:
    """Write the policy of a checkpoint, without the training state.

    Several checkpoints of one run are averaged. The mean of their weights often plays better than
    the last of them, because RMSProp keeps moving around a good point.

    Raises:
        UsageError: a value is not allowed.
    """

    out: Path
    """The file to write. .safetensors: small, with float16 weights, for all commands that take a
    checkpoint; .npz: numpy arrays; .onnx: a model that computes action probabilities."""
    checkpoints: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH|URI|pretrained")
    ] = ()
    """Checkpoints of one run, or its folder or URI for its newest one, or pretrained: the policy
    that comes with this package."""

    def __post_init__(self) -> None:
        """Check every field."""
        if self.out.suffix.lower() not in _SUFFIXES:
            raise UsageError(f"out: {self.out} does not end in one of {', '.join(_SUFFIXES)}")
        if not self.checkpoints:
            raise UsageError("export: name a checkpoint, a run's folder or URI, or pretrained")


def run(args: ExportArgs) -> int:
    """Read, average and write the policy; return the exit code."""
    if args.out.suffix.lower() == ".onnx":
        need_extra("onnx", "onnx")
    from distributed_pg.storage.policy_export import export_policy

    export_policy(args.checkpoints, args.out)
    size = args.out.stat().st_size / 1e6
    console().print(f"Wrote {args.out}, {size:.1f} MB", soft_wrap=True)
    return 0
