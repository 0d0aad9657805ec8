"""Checks, before a sweep begins, the weights that its trials begin with."""

from dataclasses import replace
from typing import Any

from distributed_pg.storage.warm_start import Source, load_source, pinned
from distributed_pg.sweep.plan import SweepPlan

_CHECKSUMS = {
    "init_checksum": {"init_from"},
    "init_optimizer_checksum": {"init_from", "init_optimizer"},
}
"""The settings that each checksum depends on."""


def with_checksums(plan: SweepPlan) -> SweepPlan:
    """The plan with the checksums of the source that all trials share, if they share one.

    So a trial that begins late is refused if the source has changed since. Sources that ``grid``
    varies are only checked.

    Raises:
        UsageError: there is nothing at a source, or it does not fit a trial.
        RunError: a source cannot be read.
    """
    sources: dict[str, Source] = {}
    checksums: dict[str, Any] = {}
    for trial in plan.trials():
        config = trial.config
        if config.init_from is None:
            continue
        place = str(config.init_from)
        if place not in sources:
            sources[place] = load_source(config)
        config = pinned(config, sources[place])
        for name, depends_on in _CHECKSUMS.items():
            value = getattr(config, name)
            if value is not None and depends_on.isdisjoint(plan.grid):
                checksums[name] = value
    return SweepPlan(replace(plan.base, **checksums), plan.seeds, plan.grid)
