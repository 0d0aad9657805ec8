"""Distributed policy gradients on Atari Pong: numpy policy, Ray workers, exact schedule.

The names exported here are the public API. Each is imported on first use, so that importing the
package loads neither Ray nor numpy, whose kernels :func:`pin_kernels` may still select.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from distributed_pg._gymnasium import register_when_imported

__version__ = "0.1.0"

if TYPE_CHECKING:
    from distributed_pg.algo.policy import Policy
    from distributed_pg.analysis.plot import plot
    from distributed_pg.config import TrainConfig
    from distributed_pg.determinism import pin_kernels
    from distributed_pg.envs.pong import PongEnv
    from distributed_pg.errors import (
        CheckpointError,
        ConfigError,
        RomNotFoundError,
        RunError,
        UsageError,
    )
    from distributed_pg.evaluation import Evaluation, evaluate
    from distributed_pg.monitoring.reporter import Callback, Reporter
    from distributed_pg.presets import preset
    from distributed_pg.storage.metrics import UpdateRecord
    from distributed_pg.storage.policy_file import TrainedPolicy, load_policy
    from distributed_pg.trainer import TrainResult, resume, train
    from distributed_pg.viewer.video import record

__all__ = [
    "Callback",
    "CheckpointError",
    "ConfigError",
    "Evaluation",
    "Policy",
    "PongEnv",
    "Reporter",
    "RomNotFoundError",
    "RunError",
    "TrainConfig",
    "TrainResult",
    "TrainedPolicy",
    "UpdateRecord",
    "UsageError",
    "__version__",
    "evaluate",
    "load_policy",
    "pin_kernels",
    "plot",
    "preset",
    "record",
    "resume",
    "train",
]

_HOMES = {
    "algo.policy": ("Policy",),
    "analysis.plot": ("plot",),
    "config": ("TrainConfig",),
    "determinism": ("pin_kernels",),
    "envs.pong": ("PongEnv",),
    "errors": ("CheckpointError", "ConfigError", "RomNotFoundError", "RunError", "UsageError"),
    "evaluation": ("Evaluation", "evaluate"),
    "monitoring.reporter": ("Callback", "Reporter"),
    "presets": ("preset",),
    "storage.metrics": ("UpdateRecord",),
    "storage.policy_file": ("TrainedPolicy", "load_policy"),
    "trainer": ("TrainResult", "resume", "train"),
    "viewer.video": ("record",),
}
register_when_imported()
logging.getLogger(__name__).addHandler(logging.NullHandler())
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
