"""Shapes a new run for the number of workers it will have."""

import logging
from collections.abc import Collection
from dataclasses import replace

from distributed_pg.config import TrainConfig
from distributed_pg.presets import as_flags
from distributed_pg.runtime.cluster_probe import check_cluster_answers
from distributed_pg.runtime.session import usable_cpus
from distributed_pg.shapes import MOST_USEFUL, SHAPED_PRESET, UNSHAPED, shape

_LOG = logging.getLogger(__name__)


def shaped_config(config: TrainConfig, pinned: Collection[str]) -> TrainConfig:
    """Choose the settings of a new run that depend on its number of workers.

    The choice is logged with the flags that repeat it elsewhere. A resumed run, and one of a preset
    with fixed settings, stay as they are.

    Args:
        config: the settings.
        pinned: names of settings that the user has given.

    Raises:
        ConfigError: the preset has fixed settings, and ``shape_for`` is given.
        RunError: no cluster answers at the address.
    """
    if not config.may_begin or (config.preset != SHAPED_PRESET and config.shape_for is None):
        return config
    workers = config.shape_for or _workers(config)
    chosen = {k: v for k, v in shape(config.preset, workers).items() if k not in pinned}
    shaped = replace(config, shape_for=workers, **chosen)
    if chosen:
        flags = " ".join(as_flags(chosen))
        _LOG.info(
            f"Settings for {workers} workers: {flags}; --shape-for {UNSHAPED} has those of the "
            "preset"
        )
    if workers > MOST_USEFUL and not pinned:
        _LOG.warning(
            f"{workers} workers: one run uses {MOST_USEFUL} of them at most; distributed-pg sweep "
            "trains several at once"
        )
    return shaped


def _workers(config: TrainConfig) -> int:
    """The number of workers that the run will have, as far as is known before it starts."""
    if config.num_workers != "auto":
        return config.num_workers
    # A cluster that grows on demand may have no CPU yet.
    if config.address is not None and config.max_workers is not None:
        return config.max_workers
    cpus = usable_cpus() if config.address is None else check_cluster_answers(config.address)
    return max(1, min(cpus, config.max_workers or cpus))
