"""Settings by number of workers: a run is shaped for its size, so that no worker waits.

More workers need more episodes that can be played at the same time, so larger batches or older
weights, and either way more episodes to learn the same. The table keeps simulated workers at least
95% busy with few episodes at a time; docs/answers.md has what such settings cost.
"""

from typing import Any

from distributed_pg.errors import ConfigError

SHAPES: dict[int, dict[str, Any]] = {
    2: {},
    4: {"policy_lag": 4},
    8: {"batch_size": 2, "policy_lag": 4},
    16: {"batch_size": 4, "policy_lag": 4},
    32: {"batch_size": 8, "policy_lag": 5},
    64: {"batch_size": 16, "policy_lag": 5},
}
"""Changes to the default preset by the largest number of workers they keep busy, ascending."""
UNSHAPED = 2
"""A number of workers with the settings of the preset."""
MOST_USEFUL = max(SHAPES)
"""The most workers that help one run."""
SHAPED = tuple(dict.fromkeys(name for settings in SHAPES.values() for name in settings))
"""Names of the settings that depend on the number of workers."""
SHAPED_PRESET = "default"
"""The preset that is shaped; the others have fixed settings."""


def shape(preset: str, workers: int) -> dict[str, Any]:
    """The changes to a preset for this number of workers.

    Args:
        preset: the preset's name.
        workers: the number of workers, at least 1.

    Raises:
        ConfigError: the preset has fixed settings.
    """
    if preset != SHAPED_PRESET:
        raise ConfigError(f"shape_for: the preset {preset} has fixed settings; leave it out")
    size = next((size for size in SHAPES if workers <= size), MOST_USEFUL)
    return SHAPES[size]
