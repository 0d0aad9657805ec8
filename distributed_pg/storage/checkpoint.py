"""Checkpoints: one tensor file with everything needed to resume a run bit for bit.

Tensors: ``policy.V.w1`` and ``policy.V.w2`` for each kept version V of the weights, ``cache.w1``
and ``cache.w2``. Metadata: ``format``; ``config``, ``progress`` and ``versions`` as JSON; ``cpu``.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distributed_pg.algo.policy import Policy
from distributed_pg.algo.state import WINDOW, Progress, TrainingState, policy_shape
from distributed_pg.config import TrainConfig
from distributed_pg.errors import CheckpointError, ConfigError, one_line
from distributed_pg.storage.tensor_file import (
    Tensors,
    read_tensor_file,
    read_tensor_metadata,
    write_tensor_file,
)
from distributed_pg.system_info import cpu_model, library_versions

FORMAT = "distributed_pg checkpoint 2"
_COUNTERS = ("update", "episodes", "frames", "peak_episodes")
_MOST = 1e18
"""A bound above any number in a run's progress."""

# Exceptions from parsing JSON of the wrong form, or from building objects from it.
DECODE_ERRORS = (ConfigError, KeyError, TypeError, ValueError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The contents of a checkpoint file."""

    config: TrainConfig
    state: TrainingState
    versions: dict[str, str]
    """Versions of the libraries that wrote the checkpoint."""


def weights_checksum(policy: Policy) -> str:
    """The first 16 hex digits of the SHA-256 of the weights' bits."""
    digest = hashlib.sha256()
    for array in policy.arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def save_checkpoint(path: Path, config: TrainConfig, state: TrainingState) -> None:
    """Write a checkpoint atomically.

    Args:
        path: the file to write or replace.
        config: the run's settings.
        state: the state to save.

    Raises:
        OSError: the file cannot be written; the previous file at ``path`` is intact.
    """
    tensors: Tensors = {"cache.w1": state.cache.w1, "cache.w2": state.cache.w2}
    for version, policy in state.policies.items():
        tensors[f"policy.{version}.w1"] = policy.w1
        tensors[f"policy.{version}.w2"] = policy.w2
    metadata = {"format": FORMAT, **run_metadata(config, state.progress), "cpu": cpu_model()}
    write_tensor_file(path, metadata, tensors)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: the file is missing, not a checkpoint or damaged, or its tensors do not
            match its config.
    """
    return parse_checkpoint(path, *read_tensor_file(path, FORMAT))


def saved_progress(path: Path) -> Progress:
    """Read only the progress in a checkpoint, without verifying the weights.

    Raises:
        CheckpointError: the file is missing, not a checkpoint or cut short.
    """
    metadata = read_tensor_metadata(path, FORMAT)
    try:
        return parse_metadata(metadata)[1]
    except DECODE_ERRORS as error:
        raise _do_not_fit(path, error) from None


def parse_checkpoint(path: Path, metadata: dict[str, str], tensors: Tensors) -> Checkpoint:
    """Build a checkpoint from the contents of its file.

    Args:
        path: the file, for the message.
        metadata: the file's metadata.
        tensors: the file's tensors; emptied.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: the contents are inconsistent.
    """
    try:
        config, progress, versions = parse_metadata(metadata)
        state = _state(config, progress, tensors)
    except DECODE_ERRORS as error:
        raise _do_not_fit(path, error) from None
    return Checkpoint(config, state, versions)


def run_metadata(config: TrainConfig, progress: Progress) -> dict[str, str]:
    """A file's metadata on its run, as :func:`parse_metadata` reads it."""
    return {
        "config": json.dumps(config.to_json()),
        "progress": json.dumps(dataclasses.asdict(progress)),
        "versions": json.dumps(library_versions()),
    }


def parse_metadata(metadata: dict[str, str]) -> tuple[TrainConfig, Progress, dict[str, str]]:
    """Parse the output of :func:`run_metadata`; invalid data raises one of :data:`DECODE_ERRORS`.

    Returns:
        Config, progress and library versions.
    """
    config = TrainConfig.from_json(json.loads(metadata["config"]))
    progress = _progress(json.loads(metadata["progress"]))
    return config, progress, {str(k): str(v) for k, v in json.loads(metadata["versions"]).items()}


def _do_not_fit(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path}: its contents do not fit together ({one_line(error)})")


def _progress(values: dict[str, Any]) -> Progress:
    for name, value in values.items():
        numbers = value if name == "last_rewards" else [0 if value is None else value]
        kind = int if name in _COUNTERS else (int, float)
        # "not <" also rejects NaN.
        if any(type(n) is bool or not isinstance(n, kind) or not abs(n) < _MOST for n in numbers):
            raise ValueError(f"{name}: {value!r}")
    progress = Progress(**values)
    return dataclasses.replace(progress, last_rewards=tuple(progress.last_rewards))


def weight_shapes(config: TrainConfig) -> dict[str, tuple[int, int]]:
    """Shapes of the arrays of the run's policy, by name."""
    inputs, hidden_units, actions, current_frame = policy_shape(config)
    width = 2 * hidden_units if current_frame else hidden_units
    return {"w1": (inputs, width), "w2": (hidden_units, actions)}


def _state(config: TrainConfig, progress: Progress, tensors: Tensors) -> TrainingState:
    shapes = weight_shapes(config)

    def take(name: str) -> Policy:
        arrays = []
        for layer, shape in shapes.items():
            tensor = tensors.pop(f"{name}.{layer}")
            if tensor.shape != shape or tensor.dtype != np.float32:
                raise ValueError(f"{name}.{layer} is {tensor.dtype} {tensor.shape}, not {shape}")
            arrays.append(tensor)
        return Policy(*arrays)

    if progress.episodes != progress.update * config.batch_size:
        raise ValueError("episodes and updates do not fit the batch size")
    if len(progress.last_rewards) != min(progress.episodes, WINDOW):
        raise ValueError("the last rewards are not all there")
    oldest = max(0, progress.update - config.policy_lag)
    policies = {v: take(f"policy.{v}") for v in range(oldest, progress.update + 1)}
    state = TrainingState(policies, take("cache"), progress)
    if tensors:
        raise ValueError(f"unexpected tensor {min(tensors)}")
    return state
