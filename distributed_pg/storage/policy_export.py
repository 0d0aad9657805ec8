"""Exports policies: as a policy file, numpy arrays, an ONNX model, or the classic script's."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from distributed_pg.algo.policy import Policy
from distributed_pg.errors import CheckpointError, UsageError, writing
from distributed_pg.storage.checkpoint import load_checkpoint, run_metadata, weights_checksum
from distributed_pg.storage.classic_script import classic_pickle
from distributed_pg.storage.policy_file import TrainedPolicy, load_policy, save_policy
from distributed_pg.storage.tensor_file import write_atomically


def export_policy(locations: Sequence[str], out: Path, suffix: str | None = None) -> TrainedPolicy:
    """Write the policy of a checkpoint, or the mean of several from one run.

    Args:
        locations: at least one; see :func:`~distributed_pg.storage.policy_file.load_policy`.
        out: the file; replaced atomically.
        suffix: the form of the file: .safetensors, .npz, .onnx, or .p for the classic script; None:
            that in the name of ``out``.

    Returns:
        The policy that was written.

    Raises:
        UsageError: ``out`` is a checkpoint or its folder does not exist, there is nothing at a
            location, the policies are from different runs, or the form cannot express the policy.
        RunError: a policy cannot be read, or the file cannot be written.
    """
    writer = _WRITERS[out.suffix.lower() if suffix is None else suffix]
    check_target(out)
    trained = mean_policy([load_policy(location) for location in locations])
    with writing(f"out: {out}"):
        writer(out, trained)
    return trained


def check_target(out: Path) -> None:
    """Raise UsageError if ``out`` is a checkpoint or in no folder."""
    if not out.parent.is_dir():
        raise UsageError(f"out: there is no folder {out.parent}")
    if _is_checkpoint(out):
        raise UsageError(f"out: {out} is a checkpoint, which its run may need to resume")


def mean_policy(policies: Sequence[TrainedPolicy]) -> TrainedPolicy:
    """Average the weights; a single policy is returned unchanged.

    Args:
        policies: at least one, from one run.

    Returns:
        The mean of the weights, float32, with the progress of the latest policy.

    Raises:
        UsageError: the policies are from different runs.
    """
    latest = max(policies, key=lambda trained: trained.progress.update)
    if any(trained.config.changed_settings(latest.config) for trained in policies):
        raise UsageError("the checkpoints are of different runs")
    layers = zip(*(trained.policy.arrays for trained in policies), strict=True)
    w1, w2 = (np.asarray(np.mean(arrays, axis=0, dtype=np.float64)) for arrays in layers)
    policy = Policy(w1.astype(np.float32), w2.astype(np.float32))
    return TrainedPolicy(latest.config, policy, latest.progress)


def _is_checkpoint(path: Path) -> bool:
    try:
        load_checkpoint(path)
    except CheckpointError:
        return False
    return True


def _write_npz(path: Path, trained: TrainedPolicy) -> None:
    """Write ``w1``, ``w2`` and ``metadata``, a 0-dimensional string array with JSON."""
    texts = run_metadata(trained.config, trained.progress)
    metadata = {name: json.loads(text) for name, text in texts.items()}
    metadata["weights_checksum"] = weights_checksum(trained.policy)
    content = io.BytesIO()
    w1, w2 = trained.policy.arrays
    np.savez(content, w1=w1, w2=w2, metadata=np.array(json.dumps(metadata)))
    write_atomically(path, content.getvalue())


def _write_onnx(path: Path, trained: TrainedPolicy) -> None:
    from distributed_pg.storage.onnx_model import onnx_model

    write_atomically(path, onnx_model(trained).SerializeToString())


def _write_classic(path: Path, trained: TrainedPolicy) -> None:
    write_atomically(path, classic_pickle(trained))


_WRITERS: dict[str, Callable[[Path, TrainedPolicy], None]] = {
    ".safetensors": save_policy,
    ".npz": _write_npz,
    ".onnx": _write_onnx,
    ".p": _write_classic,
}
