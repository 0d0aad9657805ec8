"""Checkpoints: one safetensors file that holds all a run needs to go on bit for bit.

Tensors: ``policy.V.w1`` and ``policy.V.w2`` for each weights version V kept, ``cache.w1`` and
``cache.w2``. Metadata, all strings: ``format``, ``config``, ``progress``, ``versions`` (JSON),
``cpu``, and ``sha256`` over everything else in the file.
"""

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from distributed_pg.config import TrainConfig
from distributed_pg.errors import CheckpointError, ConfigError, one_line
from distributed_pg.policy import Floats, Policy
from distributed_pg.state import WINDOW, Progress, TrainingState, policy_shape
from distributed_pg.versions import cpu_model, library_versions

FORMAT = "distributed_pg checkpoint 1"
_MOST = 1e18
"""More than any number of a run's progress can be."""

# What reading JSON of the wrong form, or building objects from it, can raise.
_MISFITS = (ConfigError, KeyError, TypeError, ValueError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint file says."""

    config: TrainConfig
    state: TrainingState
    versions: dict[str, str]
    """Library versions the run was made with."""


def weights_checksum(policy: Policy) -> str:
    """The first 16 hex digits of the weights' SHA-256: equal only if all bits are equal."""
    digest = hashlib.sha256()
    for array in policy.arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def save_checkpoint(path: Path, config: TrainConfig, state: TrainingState) -> None:
    """Write a checkpoint so that ``path`` is never half written, whatever happens meanwhile.

    Raises:
        OSError: the file cannot be written; a file that was at ``path`` is still there.
    """
    tensors = {"cache.w1": state.cache.w1, "cache.w2": state.cache.w2}
    for version, policy in state.policies.items():
        tensors[f"policy.{version}.w1"] = policy.w1
        tensors[f"policy.{version}.w2"] = policy.w2
    metadata = {
        "format": FORMAT,
        "config": json.dumps(config.to_json()),
        "progress": json.dumps(dataclasses.asdict(state.progress)),
        "versions": json.dumps(library_versions()),
        "cpu": cpu_model(),
    }
    metadata["sha256"] = _sha256(metadata, tensors)
    write_atomically(path, save(tensors, metadata))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: the file is missing, is no checkpoint, is damaged, or its tensors do not
            fit its config.
    """
    try:
        # A folder or a missing file is reported as the OSError it is.
        with path.open("rb"):
            pass
        with safe_open(path, framework="np") as file:
            metadata = dict(file.metadata() or {})
            if metadata.get("format") != FORMAT:
                raise CheckpointError(f"{path}: not a distributed_pg checkpoint")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (SafetensorError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: not a distributed_pg checkpoint, or cut short ({one_line(error)})"
        ) from None
    if metadata.pop("sha256", None) != _sha256(metadata, tensors):
        raise CheckpointError(f"{path}: damaged, its checksum does not match")
    try:
        config = TrainConfig.from_json(json.loads(metadata["config"]))
        progress = _progress(json.loads(metadata["progress"]))
        versions = {str(k): str(v) for k, v in json.loads(metadata["versions"]).items()}
        state = _state(config, progress, tensors)
    except _MISFITS as error:
        raise CheckpointError(
            f"{path}: its contents do not fit together ({one_line(error)})"
        ) from None
    return Checkpoint(config, state, versions)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content``: written beside it, flushed to the disk, then renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name is on the disk as well
    finally:
        os.close(folder)


def _sha256(metadata: dict[str, str], tensors: dict[str, Floats]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()


def _progress(values: dict[str, Any]) -> Progress:
    for name, value in values.items():
        numbers = value if name == "last_rewards" else [0 if value is None else value]
        kind = int if name in ("update", "episodes", "frames") else (int, float)
        # "Not below" holds for a NaN as well.
        if any(type(n) is bool or not isinstance(n, kind) or not abs(n) < _MOST for n in numbers):
            raise ValueError(f"{name}: {value!r}")
    progress = Progress(**values)
    return dataclasses.replace(progress, last_rewards=tuple(progress.last_rewards))


def _state(config: TrainConfig, progress: Progress, tensors: dict[str, Floats]) -> TrainingState:
    inputs, hidden_units, actions = policy_shape(config)
    shapes = {"w1": (inputs, hidden_units), "w2": (hidden_units, actions - 1)}

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
