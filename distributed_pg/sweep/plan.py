"""What a sweep trains: every combination of settings, with every seed."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from distributed_pg.config import STOP_CONDITIONS, TrainConfig, may_change, of_the_place
from distributed_pg.errors import ConfigError, UsageError, did_you_mean
from distributed_pg.presets import as_flags, preset
from distributed_pg.shapes import SHAPED

_UNSAFE = re.compile(r"[^\w.+-]+")
"""Characters that a folder's name should not have."""
_MOST_TRIALS = 10_000
_LONGEST_NAME = 200
"""Characters of a folder's name; file systems allow 255 bytes, and a log has four more."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a sweep."""

    name: str
    """The name of its folder."""
    label: str
    """Its settings, without the seed; equal for trials that differ only in the seed."""
    config: TrainConfig
    """All its settings, without a place."""


@dataclass(frozen=True)
class SweepPlan:
    """The trials of a sweep: the settings in ``base``, varied by ``grid`` and ``seeds``.

    Args:
        base: the settings that all trials share, with a stop condition.
        seeds: the seeds.
        grid: values by the name of a setting; every combination is tried.

    Raises:
        UsageError: a setting cannot be varied, a value is out of range or given twice, or there is
            no stop condition.
    """

    base: TrainConfig
    seeds: tuple[int, ...]
    grid: Mapping[str, tuple[Any, ...]]

    def __post_init__(self) -> None:
        """Check that it describes distinct trials that end."""
        for name, values in (("seeds", self.seeds), *self.grid.items()):
            _check_values(name, values)
        for name in self.grid:
            _check_can_vary(name)
        if all(getattr(self.base, name) is None for name in STOP_CONDITIONS):
            raise UsageError("sweep: name a stop condition, such as --stop-frames 20e6")
        count = len(self.seeds)
        for values in self.grid.values():
            count *= len(values)
        if count > _MOST_TRIALS:
            raise UsageError(f"sweep: {count} trials are more than {_MOST_TRIALS}")
        if self.base.stop_minutes is not None:
            raise UsageError(
                "stop_minutes: what a trial learns in a minute depends on the other trials; "
                "--stop-frames treats all alike"
            )
        names = [trial.name for trial in self.trials()]
        if twice := _first_double(names):
            raise UsageError(f"sweep: two trials would have the same folder, {twice}")
        if len(longest := max(names, key=len)) > _LONGEST_NAME:
            raise UsageError(f"sweep: too many settings for the name of a folder, {longest}")

    def trials(self) -> Iterator[Trial]:
        """All trials, ordered by seed, so that settings can be compared before the end."""
        for seed in self.seeds:
            for values in itertools.product(*self.grid.values()):
                settings = dict(zip(self.grid, values, strict=True))
                label = ", ".join(f"{name} {value_text(value)}" for name, value in settings.items())
                name = f"{label}, seed {seed}" if label else f"seed {seed}"
                name = _UNSAFE.sub("_", name.replace(", ", "-"))
                config = _with_settings(self.base, settings | {"seed": seed})
                yield Trial(name, label or self.base.preset, config)

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        grid = {name: [_as_json(value) for value in self.grid[name]] for name in self.grid}
        return {"base": self.base.to_json(), "seeds": list(self.seeds), "grid": grid}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "SweepPlan":
        """The plan from the values of :meth:`to_json`.

        Raises:
            UsageError: a value is not allowed.
            LookupError, TypeError, AttributeError: the values have another form.
        """
        base, grid = TrainConfig.from_json(values["base"]), values["grid"].items()
        return cls(
            base,
            tuple(values["seeds"]),
            {name: tuple(map(_from_json, tried)) for name, tried in grid},
        )


def different_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings in which a config differs from its preset, besides those of the place."""
    different = config.differences(preset(config.preset))
    return {name: value for name, value in different.items() if name not in of_the_place()}


_NOT_REPEATED = {"tensorboard", "wandb", "wandb_id", "shape_for"}


def resume_flags(trial: Trial) -> list[str]:
    """The trial's settings that may change when it is resumed, as flags; without switches.

    A switch has a flag only for the value that the saved run does not have, and the id belongs to
    the run.
    """
    names = sorted(may_change() - of_the_place() - _NOT_REPEATED)
    return as_flags({name: getattr(trial.config, name) for name in names})


def trial_flags(trial: Trial) -> list[str]:
    """The trial's settings as flags of ``distributed-pg train``.

    They include those that would otherwise depend on the number of workers.
    """
    settings = {name: getattr(trial.config, name) for name in SHAPED}
    settings |= different_settings(trial.config)
    return ["--preset", trial.config.preset, *as_flags(settings)]


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse seeds written as ``0-9`` or ``0,3,20-29``.

    Raises:
        UsageError: the text is something else.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,19})(?:-(\d{1,19}))?\s*", part)
        if match is None:
            raise UsageError(f"seeds: {text!r} is not seeds like 0-9 or 0,3,20-29")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 0 <= last - first < _MOST_TRIALS:
            raise UsageError(f"seeds: {part.strip()!r} is not a range of at most {_MOST_TRIALS}")
        seeds += range(first, last + 1)
    return tuple(seeds)


def _with_settings(base: TrainConfig, settings: dict[str, Any]) -> TrainConfig:
    """``base`` with some settings changed; a new preset keeps what ``base`` changes in its own."""
    name = settings.pop("preset", base.preset)
    if name == base.preset:
        return replace(base, **settings)
    return preset(name, **{**different_settings(base), **settings})


def _check_values(name: str, values: Sequence[Any]) -> None:
    if not values:
        raise UsageError(f"{name}: no value is given")
    if (twice := _first_double(values)) is not None:
        raise UsageError(f"{name}: {value_text(twice)} is given twice")


def _first_double(values: Sequence[Any]) -> Any:
    """The first value that occurs twice; None if there is none."""
    return next((value for value, count in Counter(values).items() if count > 1), None)


def _check_can_vary(name: str) -> None:
    names = [f.name for f in fields(TrainConfig)]
    if name not in names:
        raise ConfigError(f"{name}: no such setting{did_you_mean(name, names)}")
    if name == "seed":
        raise UsageError("seed: --seeds varies it")
    if name in may_change():
        raise UsageError(f"{name}: does not change what a run learns; give it once, for all trials")


def value_text(value: Any) -> str:
    """A setting's value as ``--set`` takes it."""
    return " ".join(map(value_text, value)) if isinstance(value, tuple) else str(value)


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _from_json(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
