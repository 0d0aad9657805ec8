"""Warm starts: a new run that begins with the weights of another, found by name and checksum."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from distributed_pg.algo.policy import Policy
from distributed_pg.algo.state import Progress, TrainingState
from distributed_pg.config import TrainConfig
from distributed_pg.errors import RunError, UsageError
from distributed_pg.storage.checkpoint import weights_checksum
from distributed_pg.storage.policy_file import TrainedPolicy, load_at, read_with_optimizer

_MUST_FIT = ("actions", "crop", "hidden_units")


@dataclass(frozen=True)
class Source:
    """What a run can begin with."""

    trained: TrainedPolicy
    cache: Policy | None
    """RMSProp's mean squared gradients; None: the file has only the policy."""

    @cached_property
    def checksum(self) -> str:
        """The checksum of the weights."""
        return weights_checksum(self.trained.policy)

    @cached_property
    def optimizer_checksum(self) -> str | None:
        """The checksum of RMSProp's state, if there is one."""
        return None if self.cache is None else weights_checksum(self.cache)


def load_source(config: TrainConfig) -> Source:
    """Read the policy that ``config.init_from`` names.

    Raises:
        UsageError: there is nothing at that place.
        RunError: the policy cannot be read.
    """
    try:
        return Source(*load_at(config.init_from or "", read_with_optimizer))
    except UsageError as error:
        raise UsageError(f"init_from: {error}") from None
    except RunError as error:
        raise RunError(f"init_from: {error}") from error


def pinned(config: TrainConfig, source: Source) -> TrainConfig:
    """The config with the checksums of its source, so that it describes the run completely.

    Args:
        config: the settings, with ``init_from``.
        source: what :func:`load_source` has found there.

    Raises:
        UsageError: the policy does not fit the settings, has no optimizer state though
            ``init_optimizer`` asks for it, or has other checksums than the settings.
    """
    _check_fits(config, source.trained.config)
    checksums: dict[str, Any] = {"init_checksum": source.checksum}
    if config.init_optimizer:
        _cache_of(config, source)
        checksums["init_optimizer_checksum"] = source.optimizer_checksum
    for name, found in checksums.items():
        wanted = getattr(config, name)
        if wanted not in (None, found):
            raise UsageError(f"{name}: {wanted} is wanted, but {config.init_from} has {found} now")
    return replace(config, **checksums)


def begin(config: TrainConfig) -> tuple[TrainConfig, TrainingState]:
    """The config of a new run with the checksums of its source, if any, and its first state.

    Counters start at 0, whatever the source has behind it.

    Raises:
        UsageError: there is nothing at ``init_from``, or it does not fit; see :func:`pinned`.
        RunError: the source cannot be read.
    """
    if config.init_from is None:
        return config, TrainingState.initial(config)
    source = load_source(config)
    config, policy = pinned(config, source), source.trained.policy
    if config.current_frame and not policy.sees_current_frame:
        policy = policy.with_current_frame()
    cache = _cache_of(config, source) if config.init_optimizer else policy.zeros_like()
    return config, TrainingState({0: policy}, cache, Progress())


def _check_fits(config: TrainConfig, trained: TrainConfig) -> None:
    different = [
        f"{name} is {_text(getattr(trained, name))} there and {_text(getattr(config, name))} here"
        for name in _MUST_FIT
        if getattr(trained, name) != getattr(config, name)
    ]
    # The other way round, the policy begins without heeding what it did not see.
    if trained.current_frame and not config.current_frame:
        different.append("current_frame is True there and False here")
    if different:
        raise UsageError(f"init_from: {config.init_from} does not fit: {'; '.join(different)}")


def _cache_of(config: TrainConfig, source: Source) -> Policy:
    if source.cache is None:
        raise UsageError(
            f"init_optimizer: {config.init_from} is a policy without the optimizer's state; leave "
            "the option out, or begin from a checkpoint or a run"
        )
    if config.current_frame and not source.trained.policy.sees_current_frame:
        raise UsageError(
            f"init_optimizer: {config.init_from} does not see the current frame, so there is no "
            "state for it; leave the option out, or set current_frame to False"
        )
    # From zeros without the warm-up, the first steps would be ten times too long.
    if not any(np.any(squares) for squares in source.cache.arrays):
        raise UsageError(
            f"init_optimizer: {config.init_from} has made no update, so there is no state to take"
        )
    return source.cache


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
