"""The presets, and settings as flags of a command line."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from distributed_pg.config import WORKERS, Preset, TrainConfig
from distributed_pg.errors import ConfigError, did_you_mean
from distributed_pg.fields import check_value
from distributed_pg.shapes import shape

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "karpathy": {
        "batch_size": 10,
        "learning_rate": 1e-4,
        "anneal_by_reward": False,
        "anneal_episodes": None,
        "weight_decay": 0.0,
        "baseline": "mean",
        "warm_up": False,
        "policy_lag": 0,
        "repeat_noise_probability": 0.0,
        "frame_skip": 4,
    },
}
"""The settings of each preset; ``karpathy`` has the classic script's values."""


def preset(name: str, **changes: Any) -> TrainConfig:
    """The config of a preset with some fields changed.

    Args:
        name: a key of :data:`PRESETS`.
        changes: values of the fields to change. ``shape_for`` also changes those of
            :mod:`distributed_pg.shapes` that are not given.

    Raises:
        ConfigError: there is no such preset or setting, or a value is out of range.
    """
    check_value("preset", name, Preset)
    fields = [f.name for f in dataclasses.fields(TrainConfig)]
    for unknown in changes.keys() - fields:
        raise ConfigError(f"{unknown}: no such setting{did_you_mean(unknown, fields)}")
    workers = changes.get("shape_for")
    check_value("shape_for", workers, Annotated[int, WORKERS] | None)
    shaped = {} if workers is None else shape(name, workers)
    settings: dict[str, Any] = {"preset": name, **PRESETS[name], **shaped, **changes}
    return TrainConfig(**settings)


def as_flags(settings: Mapping[str, Any]) -> list[str]:
    """Convert fields of a :class:`TrainConfig` to flags of ``distributed-pg train``."""
    flags = []
    for field_name, value in settings.items():
        name = field_name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{name}" if value else f"--no-{name}")
        else:
            values = value if isinstance(value, tuple) else (value,)
            flags += [f"--{name}", *map(str, values)]
    return flags
