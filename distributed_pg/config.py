"""Every setting of a training run, checked when it is made."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from distributed_pg.errors import ConfigError, did_you_mean, one_line

Preset = Literal["default", "karpathy"]
NumWorkers = int | Literal["auto"]
Baseline = Literal["mean", "learned"]
DiskErrors = Literal["stop", "warn"]
Action = Literal["NOOP", "FIRE", "UP", "DOWN", "UPFIRE", "DOWNFIRE"]

STOP_CONDITIONS = (
    "stop_episodes",
    "stop_frames",
    "stop_minutes",
    "stop_reward",
    "stop_plateau",
)
_MAY_CHANGE = {"may_change": True}
_OF_THE_PLACE = {"may_change": True, "of_the_place": True}


def _free(default: Any) -> Any:
    """A field that may differ when a run is resumed: it does not change what the run computes."""
    return field(default=default, metadata=_MAY_CHANGE)


def _of_the_place(default: Any) -> Any:
    """A free field that says where a run trains: it is not taken over when the run is resumed."""
    return field(default=default, metadata=_OF_THE_PLACE)


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    Raises:
        ConfigError: a value is out of range; the message names the field and what is allowed.
    """

    preset: Preset = "default"
    """Where the settings not given come from. karpathy: the classic script's learning rate, batch
    size, baseline and frame skip, without warm-up and lag. The rest is the same in both."""

    seed: int = 0
    """The run's random numbers, weights and games follow from it."""
    batch_size: int = 4
    """Episodes summed in one update."""
    learning_rate: float = 3e-3
    """RMSProp's step size, in the beginning."""
    anneal_episodes: int | None = 2000
    """After so many episodes the learning rate is a half of its first value, after twice as many a
    third, and so on. None: it stays."""
    gamma: float = 0.99
    """Discount of the rewards, per step."""
    decay: float = 0.99
    """RMSProp's decay of the mean squared gradient."""
    baseline: Baseline = "learned"
    """What is subtracted from the returns of an episode: their mean, or first what the network has
    learned to expect at each step."""
    warm_up: bool = True
    """Let RMSProp's mean squared gradient be the plain mean of those so far until it has seen
    enough to decay. Without it the first steps are ten times as long as later ones."""
    policy_lag: int = 1
    """How many updates old the weights are that play an episode. 0: all workers wait for each
    update; 1: they go on meanwhile."""
    hidden_units: int = 200
    """Units of the hidden layer."""
    actions: tuple[Action, ...] = ("UP", "DOWN")
    """Actions the policy chooses from, at least two."""
    crop: tuple[int, int, int, int] = (35, 195, 0, 160)
    """What the policy sees of the screen, 210 rows of 160 pixels: first row and the row after the
    last, first column and the column after the last."""
    frame_skip: int = 2
    """Emulated frames in one step. The fewer, the finer the paddle can be moved."""
    repeat_action_probability: float = 0.25
    """How likely an emulated frame repeats the action before (sticky actions)."""
    frame_limit: int = 108_000
    """Emulated frames after which a game is cut off."""

    stop_episodes: int | None = _free(None)
    """Stop after this many episodes, rounded up to whole updates."""
    stop_frames: int | None = _free(None)
    """Stop after this many emulated frames."""
    stop_minutes: float | None = _free(None)
    """Stop after this many minutes of training, those before a resume included."""
    stop_reward: float | None = _free(None)
    """Stop when the mean reward of the last 100 episodes reaches this."""
    stop_plateau: int | None = _free(None)
    """Stop when the mean reward of the last 100 episodes has not been higher than ever before for
    this many episodes."""

    num_workers: NumWorkers = _of_the_place("auto")
    """Workers, one CPU each. auto: the CPUs of the machine, or of the cluster as it grows and
    shrinks."""
    max_workers: int | None = _of_the_place(None)
    """With auto, no more workers than this."""
    address: str | None = _of_the_place(None)
    """HOST:PORT of a running Ray cluster, or auto to find one. Without it Ray is started here."""
    run_dir: str | Path | None = _of_the_place(None)
    """Where the run is kept: a folder, or a URI such as s3://BUCKET/NAME or gs://BUCKET/NAME.
    Default: a new folder in runs/, named by date and preset."""
    resume: str | Path | None = _of_the_place(None)
    """Go on with the run in this folder or at this URI, with its settings."""
    checkpoint_every: int = _free(25)
    """Updates between two checkpoints."""
    keep: int = _free(3)
    """How many of the latest checkpoints to keep, beside the best one."""

    backup_after: float = _free(4.0)
    """An episode that takes this many times as long as is usual is given to an idle worker too; the
    first answer counts."""
    hang_seconds: float = _free(60.0)
    """A worker that is silent for so long, and for 20 usual episodes, is replaced."""
    disk_errors: DiskErrors = _free("stop")
    """When the run's folder cannot be written: stop, or warn and go on without."""
    tensorboard: bool = _free(False)
    """Write TensorBoard's event files too, in the run's folder under tensorboard/."""

    def __post_init__(self) -> None:
        """Check every field."""
        _check_types(self)
        _check_choice("preset", self.preset, typing.get_args(Preset))
        check_whole("seed", self.seed, 0, 2**63 - 1)
        check_whole("batch_size", self.batch_size, 1, 100_000)
        _check_real("learning_rate", self.learning_rate, 0.0, 1.0, open_low=True)
        if self.anneal_episodes is not None:
            check_whole("anneal_episodes", self.anneal_episodes, 1, 2**53)
        _check_real("gamma", self.gamma, 0.0, 1.0)
        _check_real("decay", self.decay, 0.0, 1.0, open_high=True)
        _check_choice("baseline", self.baseline, typing.get_args(Baseline))
        check_whole("policy_lag", self.policy_lag, 0, 1000)
        check_whole("hidden_units", self.hidden_units, 1, 100_000)
        _check_actions(self.actions)
        _check_crop(self.crop)
        check_whole("frame_skip", self.frame_skip, 1, 60)
        sticky = self.repeat_action_probability
        _check_real("repeat_action_probability", sticky, 0.0, 1.0, open_high=True)
        check_whole("frame_limit", self.frame_limit, 1, 10_000_000)
        if self.stop_episodes is not None:
            check_whole("stop_episodes", self.stop_episodes, 1, 2**53)
        if self.stop_frames is not None:
            check_whole("stop_frames", self.stop_frames, 1, 2**53)
        if self.stop_plateau is not None:
            check_whole("stop_plateau", self.stop_plateau, 1, 2**53)
        if self.stop_minutes is not None:
            _check_real("stop_minutes", self.stop_minutes, 0.0, 1e9, open_low=True)
        if self.stop_reward is not None:
            _check_real("stop_reward", self.stop_reward, -21.0, 21.0)
        check_num_workers(self.num_workers)
        if self.max_workers is not None:
            check_whole("max_workers", self.max_workers, 1, 100_000)
        check_address(self.address)
        check_whole("checkpoint_every", self.checkpoint_every, 1, 2**53)
        check_whole("keep", self.keep, 1, 2**53)
        _check_real("backup_after", self.backup_after, 1.0, 1e9)
        _check_real("hang_seconds", self.hang_seconds, 0.0, 1e9, open_low=True)
        _check_choice("disk_errors", self.disk_errors, typing.get_args(DiskErrors))
        if self.run_dir is not None and self.resume is not None:
            raise ConfigError("run_dir: a resumed run stays in its folder; leave it out")

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON values, without ``run_dir`` and ``resume``, which say where."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del values["run_dir"], values["resume"]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """The config that :meth:`to_json` described.

        A field that may change when a run is resumed may be missing.

        Raises:
            ConfigError: a field is unknown, missing, of the wrong type or out of range.
        """
        fields = dataclasses.fields(cls)
        known = {f.name for f in fields} - {"run_dir", "resume"}
        needed = {f.name for f in fields if not f.metadata.get("may_change")}
        unknown, missing = sorted(set(values) - known), sorted(needed - set(values))
        if unknown:
            raise ConfigError(f"{one_line(unknown[0])}: no such setting")
        if missing:
            raise ConfigError(f"{missing[0]}: the setting is missing")
        settings: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**settings)

    def to_go_on(self, location: str | Path, **changes: Any) -> "TrainConfig":
        """These settings, saved at ``location``, for going on with the run there.

        Workers and address belong to the place where a run trains: what ``changes`` does not say of
        them stands at its default. If ``changes`` has a stop condition, even None, none that was
        saved holds.

        Raises:
            ConfigError: a value is out of range.
        """
        reset = {f.name: f.default for f in dataclasses.fields(self) if f.name in of_the_place()}
        if not changes.keys().isdisjoint(STOP_CONDITIONS):
            reset.update(dict.fromkeys(STOP_CONDITIONS))
        return dataclasses.replace(self, **{**reset, "resume": location, **changes})

    @property
    def location(self) -> str | Path | None:
        """Where the run is, or is to be: a folder or a URI; None: a new folder in runs/."""
        return self.run_dir if self.resume is None else self.resume

    @property
    def episodes_at_a_time(self) -> int:
        """The most episodes that can be played at the same time: what its weights allow."""
        return self.batch_size * (self.policy_lag + 1)

    def learning_rate_after(self, episodes: int) -> float:
        """The step size of an update made after ``episodes`` episodes."""
        if self.anneal_episodes is None:
            return self.learning_rate
        return self.learning_rate / (1.0 + episodes / self.anneal_episodes)

    def decay_after(self, episodes: int) -> float:
        """RMSProp's decay in an update made after ``episodes`` episodes."""
        if not self.warm_up:
            return self.decay
        updates = episodes // self.batch_size
        return min(self.decay, updates / (updates + 1))

    def env_settings(self) -> dict[str, Any]:
        """The arguments of :class:`distributed_pg.envs.pong.PongEnv`."""
        names = ("actions", "crop", "frame_skip", "repeat_action_probability", "frame_limit")
        return {name: getattr(self, name) for name in names}

    def changed_settings(self, saved: "TrainConfig") -> list[str]:
        """Names of the fields that make this another run than ``saved`` was."""
        return [
            f.name
            for f in dataclasses.fields(self)
            if not f.metadata.get("may_change") and getattr(self, f.name) != getattr(saved, f.name)
        ]


def may_change() -> set[str]:
    """Names of the fields that may differ when a run is resumed."""
    return {f.name for f in dataclasses.fields(TrainConfig) if f.metadata.get("may_change")}


def of_the_place() -> set[str]:
    """Names of those that say where a run trains, and are not kept when it is resumed."""
    return {f.name for f in dataclasses.fields(TrainConfig) if f.metadata.get("of_the_place")}


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "karpathy": {
        "batch_size": 10,
        "learning_rate": 1e-4,
        "anneal_episodes": None,
        "baseline": "mean",
        "warm_up": False,
        "policy_lag": 0,
        "frame_skip": 4,
    },
}
"""Named starting points: what each sets. ``karpathy`` has the classic script's values."""


def preset(name: str, **changes: Any) -> TrainConfig:
    """The preset ``name`` with some fields changed.

    Raises:
        ConfigError: there is no such preset, or a value is out of range.
    """
    _check_choice("preset", name, tuple(PRESETS))
    settings: dict[str, Any] = {"preset": name, **PRESETS[name], **changes}
    return TrainConfig(**settings)


def as_flags(settings: Mapping[str, Any]) -> list[str]:
    """Fields of a :class:`TrainConfig` as arguments of ``distributed-pg train``."""
    flags = []
    for field_name, value in settings.items():
        name = field_name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{name}" if value else f"--no-{name}")
        else:
            values = value if isinstance(value, tuple) else (value,)
            flags += [f"--{name}", *map(str, values)]
    return flags


def _check_types(config: TrainConfig) -> None:
    for name, hint in typing.get_type_hints(TrainConfig).items():
        value, allowed = getattr(config, name), _runtime_types(hint)
        if (isinstance(value, bool) and bool not in allowed) or not isinstance(value, allowed):
            names = " or ".join("none" if t is type(None) else t.__name__ for t in allowed)
            raise ConfigError(f"{name}: {value!r} is not of type {names}")


def _runtime_types(hint: Any) -> tuple[type, ...]:
    """The classes a value of type ``hint`` can have."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return tuple(t for part in typing.get_args(hint) for t in _runtime_types(part))
    if origin is Literal:
        return (str,)
    if hint is float:
        return (int, float)
    return (origin or hint,)


def check_whole(name: str, value: int, low: int, high: int) -> None:
    """Raise ConfigError unless ``low <= value <= high``."""
    if not low <= value <= high:
        raise ConfigError(f"{name}: {value} is not a whole number from {low} to {high}")


def check_num_workers(value: NumWorkers) -> None:
    """Raise ConfigError unless ``value`` is a number of workers, or "auto"."""
    if value == "auto" or (isinstance(value, int) and 1 <= value <= 100_000):
        return
    raise ConfigError(f'num_workers: {value!r} is not a whole number from 1 to 100000, or "auto"')


def check_address(address: str | None) -> None:
    """Raise ConfigError unless ``address`` is None, HOST:PORT or "auto"."""
    if address is None or address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ConfigError(f'address: {address!r} is not HOST:PORT or "auto"')


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        meant = did_you_mean(value, allowed)
        raise ConfigError(f"{name}: {value!r} is not one of {', '.join(allowed)}{meant}")


def _check_real(
    name: str,
    value: float,
    low: float,
    high: float,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    above = value > low if open_low else value >= low
    below = value < high if open_high else value <= high
    if not (above and below and math.isfinite(value)):
        begin = f"above {low:g}" if open_low else f"from {low:g}"
        end = f"below {high:g}" if open_high else f"up to {high:g}"
        raise ConfigError(f"{name}: {value} is not a number {begin} and {end}")


def _check_actions(actions: tuple[Any, ...]) -> None:
    for action in actions:
        _check_choice("actions", action, typing.get_args(Action))
    if len(actions) < 2 or len(set(actions)) < len(actions):
        raise ConfigError(f"actions: {', '.join(actions)!r} is not two or more different actions")


def _check_crop(crop: tuple[Any, ...]) -> None:
    whole = len(crop) == 4 and all(type(edge) is int for edge in crop)
    if not whole or not (0 <= crop[0] < crop[1] <= 210 and 0 <= crop[2] < crop[3] <= 160):
        raise ConfigError(
            f"crop: {crop!r} is not two screen rows TOP < BOTTOM from 0 to 210 and two columns "
            "LEFT < RIGHT from 0 to 160"
        )
