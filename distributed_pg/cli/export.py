"""``distributed-pg export``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from distributed_pg._extras import need_extra
from distributed_pg.cli.console import console
from distributed_pg.errors import UsageError, counted

Format = Literal["safetensors", "npz", "onnx", "save.p"]
_SUFFIXES: dict[Format, str] = {
    "safetensors": ".safetensors",
    "npz": ".npz",
    "onnx": ".onnx",
    "save.p": ".p",
}


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
    checkpoint; .npz: numpy arrays; .onnx: a model that computes action probabilities; .p: the
    classic script's save.p, for policies of UP and DOWN, without the value."""
    checkpoints: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH|URI|pretrained")
    ] = ()
    """Checkpoints of one run, or its folder or URI for its newest one, or pretrained: the policy
    that comes with this package."""
    format: Format | None = None
    """The kind of file, where the ending of out does not say it."""

    def __post_init__(self) -> None:
        """Check every field."""
        known = tuple(_SUFFIXES.values())
        ending = self.out.suffix.lower()
        if self.format is None and ending not in known:
            raise UsageError(f"out: {self.out} does not end in one of {', '.join(known)}")
        if self.format is not None and ending in known and ending != self.suffix:
            raise UsageError(f"out: {self.out} ends in that of another format than {self.format}")
        if not self.checkpoints:
            raise UsageError("export: name a checkpoint, a run's folder or URI, or pretrained")

    @property
    def suffix(self) -> str:
        """The ending of names of such files."""
        return self.out.suffix.lower() if self.format is None else _SUFFIXES[self.format]


def run(args: ExportArgs) -> int:
    """Read, average and write the policy; return the exit code."""
    if args.suffix == ".onnx":
        need_extra("onnx", "onnx")
    from distributed_pg.storage.policy_export import export_policy

    trained = export_policy(args.checkpoints, args.out, args.suffix)
    size = args.out.stat().st_size / 1e6
    note = ""
    if args.suffix == ".p":
        skip = trained.config.frame_skip
        note = (
            f", without the value; it plays at {counted(skip, 'frame')} per step, which the file "
            f"does not say: import it with --frame-skip {skip}"
        )
    console().print(f"Wrote {args.out}, {size:.1f} MB{note}", soft_wrap=True)
    return 0
