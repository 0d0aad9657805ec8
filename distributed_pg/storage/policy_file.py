"""Trained policies without the training state, from checkpoints or from smaller policy files.

A policy file is a tensor file with ``w1`` and ``w2``, which may be float16. Its metadata:
``format``; ``config``, ``progress`` and ``versions`` as JSON.
"""

import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from distributed_pg.algo.noise import choose
from distributed_pg.algo.policy import Policy
from distributed_pg.algo.state import Progress
from distributed_pg.config import PRETRAINED, TrainConfig
from distributed_pg.envs.pong import observation_shape
from distributed_pg.errors import CheckpointError, UsageError, one_line
from distributed_pg.storage import checkpoint
from distributed_pg.storage.object_store import is_uri
from distributed_pg.storage.open_run import load_newest_at
from distributed_pg.storage.tensor_file import read_tensor_file, write_tensor_file

FORMAT = "distributed_pg policy 1"
T = TypeVar("T")
_ALLOWED = "give a checkpoint, a .safetensors export, a run's folder or URI, or pretrained"
_PRETRAINED_FILE = Path(__file__).parent.parent / "assets" / "pretrained.safetensors"


@dataclass(frozen=True, slots=True)
class TrainedPolicy:
    """A policy and the run it comes from."""

    config: TrainConfig
    policy: Policy
    progress: Progress
    random: np.random.Generator = field(
        default_factory=np.random.default_rng, repr=False, compare=False
    )
    """Random generator of :meth:`predict`."""

    def predict(
        self,
        observation: NDArray[np.int8],
        deterministic: bool = False,
        *,
        state: object = None,  # noqa: ARG002 - part of the signature
        episode_start: object = None,  # noqa: ARG002
    ) -> tuple[np.int64 | NDArray[np.int64], None]:
        """Choose an action for one observation, or for each in a batch.

        The signature is that of Stable-Baselines3's ``predict``, so code for its models also works
        with this policy.

        Args:
            observation: from a PongEnv with the settings of :attr:`config`, int8: (80, 80) by
                default, (2, 80, 80) with the current frame, or a batch of N of these.
            deterministic: take the most probable action instead of sampling.
            state: ignored: the policy has no memory.
            episode_start: ignored.

        Returns:
            The action, int64, or actions, int64 (N,); and None in place of a state.

        Raises:
            ValueError: the observation has the wrong shape.
        """
        config = self.config
        shape = observation_shape(config.crop, current_frame=config.current_frame)
        observation = np.asarray(observation)
        if observation.shape not in (shape, (*observation.shape[:1], *shape)):
            raise ValueError(
                f"observation: has the shape {observation.shape}; allowed: {shape}, or a batch "
                f"(N, {', '.join(map(str, shape))})"
            )
        each = observation.reshape(-1, len(shape) - 1, shape[-2] * shape[-1])
        actions = np.array([self._choose(planes, deterministic) for planes in each], np.int64)
        return (actions[0] if observation.shape == shape else actions), None

    def _choose(self, planes: NDArray[np.int8], deterministic: bool) -> int:
        """Choose for the difference frame, and the current frame if there is one, (1 or 2, D)."""
        policy, difference, frame_sum = self.policy, planes[0], None
        if policy.sees_current_frame:
            previous = planes[1] - difference
            shown = previous.nonzero()[0]
            frame_sum = policy.planes[1][shown].sum(axis=0)
        pixels = difference.nonzero()[0]
        _, outputs = policy.forward(pixels, difference[pixels].astype(np.float32), frame_sum)
        actions = len(outputs)
        noise = [0.0] * actions if deterministic else self.random.gumbel(size=actions).tolist()
        return choose(outputs, noise)


def save_policy(path: Path, trained: TrainedPolicy, dtype: type[np.floating] = np.float16) -> None:
    """Write a policy file.

    Args:
        path: the file to write or replace.
        trained: the policy and its run.
        dtype: the type of the weights in the file.

    Raises:
        OSError: the file cannot be written; the previous file at ``path`` is intact.
    """
    metadata = {"format": FORMAT, **checkpoint.run_metadata(trained.config, trained.progress)}
    w1, w2 = (array.astype(dtype) for array in trained.policy.arrays)
    write_tensor_file(path, metadata, {"w1": w1, "w2": w2})


def load_policy(location: str | Path) -> TrainedPolicy:
    """Load a policy.

    Args:
        location: a checkpoint, a policy file, a run's folder or URI for its newest policy, or
            ``"pretrained"``.

    Returns:
        The policy and the run it comes from.

    Raises:
        UsageError: there is nothing at the location.
        RunError: the policy cannot be read.
    """
    return load_at(location, read_policy)


def load_at(location: str | Path, read: Callable[[Path], T]) -> T:
    """Read the file of a policy, wherever it is.

    Args:
        location: as for :func:`load_policy`.
        read: reads a file; raises CheckpointError if it is not good.

    Returns:
        The result of ``read``.

    Raises:
        UsageError: there is nothing at the location.
        RunError: the policy cannot be read.
    """
    if location == PRETRAINED:  # a path of that name is a file or folder
        return read(_PRETRAINED_FILE)
    if not is_uri(location) and not _is_folder(Path(location)):
        return read(Path(location))
    return load_newest_at(location, read)


def read_policy(path: Path) -> TrainedPolicy:
    """Read the newest weights of a checkpoint, or those of a policy file.

    Raises:
        CheckpointError: the file is neither, or is damaged.
    """
    return read_with_optimizer(path)[0]


def read_with_optimizer(path: Path) -> tuple[TrainedPolicy, Policy | None]:
    """Read what :func:`read_policy` reads, and RMSProp's state.

    Returns:
        The policy, and the mean squared gradients; None: the file has none.

    Raises:
        CheckpointError: the file is neither a checkpoint nor a policy file, or is damaged.
    """
    if path.suffix.lower() in (".npz", ".onnx"):
        raise CheckpointError(f"{path}: exported for other programs; {_ALLOWED}")
    if path.suffix.lower() == ".p":
        raise CheckpointError(f"{path}: is for the classic script; distributed-pg import reads it")
    metadata, tensors = read_tensor_file(path, checkpoint.FORMAT, FORMAT)
    if metadata["format"] == checkpoint.FORMAT:
        loaded = checkpoint.parse_checkpoint(path, metadata, tensors)
        state = loaded.state
        return TrainedPolicy(loaded.config, state.policy, state.progress), state.cache
    try:
        config, progress, _ = checkpoint.parse_metadata(metadata)
        w1, w2 = (tensors[name].astype(np.float32) for name in ("w1", "w2"))
        if {"w1": w1.shape, "w2": w2.shape} != checkpoint.weight_shapes(config):
            raise ValueError(f"weights of shapes {w1.shape} and {w2.shape}")
    except checkpoint.DECODE_ERRORS as error:
        raise CheckpointError(
            f"{path}: its contents do not fit together ({one_line(error)})"
        ) from None
    return TrainedPolicy(config, Policy(w1, w2), progress), None


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; {_ALLOWED}") from None
