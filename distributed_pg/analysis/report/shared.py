"""What the pages about a run and about a sweep have in common."""

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from distributed_pg import __version__
from distributed_pg.analysis.learning_curves import setting_text
from distributed_pg.config import TrainConfig
from distributed_pg.presets import preset


@dataclass(frozen=True, slots=True)
class Figure:
    """A headline number of the page."""

    name: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting as text."""

    name: str
    value: str
    changed: bool
    """Whether it differs from the preset's, in the shape for the run's number of workers."""


def rendered(template: str, **values: Any) -> str:
    """The HTML of a page.

    Args:
        template: name of the template; it extends ``page.html.j2``.
        values: what it shows.
    """
    environment = Environment(
        autoescape=True,
        loader=PackageLoader("distributed_pg.analysis.report", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made = {"date": time.strftime("%Y-%m-%d"), "version": __version__, "duration": duration}
    return environment.get_template(template).render(**values, **made)


def settings(config: TrainConfig, *, may_change: bool) -> list[Setting]:
    """The settings as text.

    Args:
        config: the settings.
        may_change: those that may change when a run is resumed, or those that may not.
    """
    base, names = _shaped_preset(config), config.to_json()
    return [
        Setting(
            field.name,
            "none"
            if getattr(config, field.name) is None
            else setting_text(getattr(config, field.name)),
            getattr(config, field.name) != getattr(base, field.name),
        )
        for field in dataclasses.fields(config)
        if bool(field.metadata.get("may_change")) is may_change and field.name in names
    ]


def settings_to_give(config: TrainConfig) -> dict[str, Any]:
    """The settings, but for the location, that a command line has to give for this config."""
    given: dict[str, Any] = {}
    if config.shape_for is not None:
        given["shape_for"] = config.shape_for
    if config.preset != TrainConfig().preset:
        given["preset"] = config.preset
    different = config.differences(_shaped_preset(config))
    return given | {name: different[name] for name in config.to_json() if name in different}


def _shaped_preset(config: TrainConfig) -> TrainConfig:
    """The preset of this config, in the shape for its number of workers."""
    return preset(config.preset, shape_for=config.shape_for)


def duration(minutes: float) -> str:
    """Format minutes, as hours from two hours on."""
    if minutes >= 120:
        return f"{minutes / 60:.1f} h"
    return f"{minutes:.0f} min" if minutes >= 10 else f"{minutes:.1f} min"
