"""Every setting of a training run, checked when it is made."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from distributed_pg.errors import ConfigError, one_line
from distributed_pg.fields import Range, check_fields, check_value

WORKERS = Range(1, 100_000)

Preset = Literal["default", "karpathy"]
Seed = Annotated[int, Range(0, 2**63 - 1)]
Count = Annotated[int, Range(1, 2**53)]
NumWorkers = Annotated[int, WORKERS] | Literal["auto"]
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

    seed: Seed = 0
    """The run's random numbers, weights and games follow from it."""
    batch_size: Annotated[int, Range(1, 100_000)] = 4
    """Episodes summed in one update."""
    learning_rate: Annotated[float, Range(0.0, 1.0, open_low=True)] = 3e-3
    """RMSProp's step size, in the beginning."""
    anneal_episodes: Count | None = 2000
    """After so many episodes the learning rate is a half of its first value, after twice as many a
    third, and so on. None: it stays."""
    gamma: Annotated[float, Range(0.0, 1.0)] = 0.99
    """Discount of the rewards, per step."""
    decay: Annotated[float, Range(0.0, 1.0, open_high=True)] = 0.99
    """RMSProp's decay of the mean squared gradient."""
    baseline: Baseline = "learned"
    """What is subtracted from the returns of an episode: their mean, or first what the network has
    learned to expect at each step."""
    warm_up: bool = True
    """Let RMSProp's mean squared gradient be the plain mean of those so far until it has seen
    enough to decay. Without it the first steps are ten times as long as later ones."""
    policy_lag: Annotated[int, Range(0, 1000)] = 1
    """How many updates old the weights are that play an episode. 0: all workers wait for each
    update; 1: they go on meanwhile."""
    hidden_units: Annotated[int, Range(1, 100_000)] = 200
    """Units of the hidden layer."""
    actions: tuple[Action, ...] = ("UP", "DOWN")
    """Actions the policy chooses from, at least two."""
    crop: tuple[int, int, int, int] = (35, 195, 0, 160)
    """What the policy sees of the screen, 210 rows of 160 pixels: first row and the row after the
    last, first column and the column after the last."""
    frame_skip: Annotated[int, Range(1, 60)] = 2
    """Emulated frames in one step. The fewer, the finer the paddle can be moved."""
    repeat_action_probability: Annotated[float, Range(0.0, 1.0, open_high=True)] = 0.25
    """How likely an emulated frame repeats the action before (sticky actions)."""
    frame_limit: Annotated[int, Range(1, 10_000_000)] = 108_000
    """Emulated frames after which a game is cut off."""

    stop_episodes: Count | None = _free(None)
    """Stop after this many episodes, rounded up to whole updates."""
    stop_frames: Count | None = _free(None)
    """Stop after this many emulated frames."""
    stop_minutes: Annotated[float, Range(0.0, 1e9, open_low=True)] | None = _free(None)
    """Stop after this many minutes of training, those before a resume included."""
    stop_reward: Annotated[float, Range(-21.0, 21.0)] | None = _free(None)
    """Stop when the mean reward of the last 100 episodes reaches this."""
    stop_plateau: Count | None = _free(None)
    """Stop when the mean reward of the last 100 episodes has not been higher than ever before for
    this many episodes."""

    num_workers: NumWorkers = _of_the_place("auto")
    """Workers, one CPU each. auto: the CPUs of the machine, or of the cluster as it grows and
    shrinks."""
    max_workers: Annotated[int, WORKERS] | None = _of_the_place(None)
    """With auto, no more workers than this."""
    address: str | None = _of_the_place(None)
    """HOST:PORT of a running Ray cluster, or auto to find one. Without it Ray is started here."""
    run_dir: str | Path | None = _of_the_place(None)
    """Where the run is kept: a folder, or a URI such as s3://BUCKET/NAME or gs://BUCKET/NAME.
    Default: a new folder in runs/, named by date and preset."""
    resume: str | Path | None = _of_the_place(None)
    """Go on with the run in this folder or at this URI, with its settings."""
    checkpoint_every: Count = _free(25)
    """Updates between two checkpoints."""
    keep: Count = _free(3)
    """How many of the latest checkpoints to keep, beside the best one."""

    backup_after: Annotated[float, Range(1.0, 1e9)] = _free(4.0)
    """An episode that takes this many times as long as is usual is given to an idle worker too; the
    first answer counts."""
    hang_seconds: Annotated[float, Range(0.0, 1e9, open_low=True)] = _free(60.0)
    """A worker that is silent for so long, and for 20 usual episodes, is replaced."""
    disk_errors: DiskErrors = _free("stop")
    """When the run's folder cannot be written: stop, or warn and go on without."""
    tensorboard: bool = _free(False)
    """Write TensorBoard's event files too, in the run's folder under tensorboard/."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self)
        _check_actions(self.actions)
        _check_crop(self.crop)
        check_address(self.address)
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
    check_value("preset", name, Preset)
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


def check_address(address: str | None) -> None:
    """Raise ConfigError unless ``address`` is None, HOST:PORT or "auto"."""
    if address is None or address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ConfigError(f'address: {address!r} is not HOST:PORT or "auto"')


def _check_actions(actions: tuple[Any, ...]) -> None:
    if len(actions) < 2 or len(set(actions)) < len(actions):
        raise ConfigError(f"actions: {', '.join(actions)!r} is not two or more different actions")


def _check_crop(crop: tuple[Any, ...]) -> None:
    whole = len(crop) == 4 and all(type(edge) is int for edge in crop)
    if not whole or not (0 <= crop[0] < crop[1] <= 210 and 0 <= crop[2] < crop[3] <= 160):
        raise ConfigError(
            f"crop: {crop!r} is not two screen rows TOP < BOTTOM from 0 to 210 and two columns "
            "LEFT < RIGHT from 0 to 160"
        )
