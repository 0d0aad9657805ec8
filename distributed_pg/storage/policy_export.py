"""Exports policies: as a policy file, as numpy arrays, or as an ONNX model."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from distributed_pg.algo.policy import Policy
from distributed_pg.errors import CheckpointError, UsageError, writing
from distributed_pg.storage.checkpoint import load_checkpoint, run_metadata, weights_checksum
from distributed_pg.storage.policy_file import TrainedPolicy, load_policy, save_policy
from distributed_pg.storage.tensor_file import write_atomically


def export_policy(locations: Sequence[str], out: Path) -> None:
    """Write the policy of a checkpoint, or the mean of several from one run.

    Args:
        locations: at least one; see :func:`~distributed_pg.storage.policy_file.load_policy`.
        out: the file, ending in .safetensors, .npz or .onnx; replaced atomically.

    Raises:
        UsageError: ``out`` is a checkpoint or its folder does not exist, there is nothing at a
            location, or the policies are from different runs.
        RunError: a policy cannot be read, or the file cannot be written.
    """
    writer = _WRITERS[out.suffix.lower()]
    if not out.parent.is_dir():
        raise UsageError(f"out: there is no folder {out.parent}")
    if _is_checkpoint(out):
        raise UsageError(f"out: {out} is a checkpoint, which its run may need to resume")
    trained = mean_policy([load_policy(location) for location in locations])
    with writing(f"out: {out}"):
        writer(out, trained)


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


_WRITERS = {".safetensors": save_policy, ".npz": _write_npz, ".onnx": _write_onnx}
