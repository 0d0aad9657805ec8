"""The settings of a training run, checked on construction."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from distributed_pg.errors import ConfigError, one_line
from distributed_pg.fields import Range, check_fields

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
AUTO = "auto"
"""As ``resume``: begin a run in ``run_dir`` if there is none, else go on with it."""
PRETRAINED = "pretrained"
"""The name of the policy shipped with the package; see docs/pretrained.md."""
_CHECKSUM = re.compile("[0-9a-f]{16}")
_WANDB_ID = re.compile(r"[\w-]{1,64}", re.ASCII)
_MAY_CHANGE = {"may_change": True}
_OF_THE_PLACE = {"may_change": True, "of_the_place": True}


def _free(default: Any) -> Any:
    """A field that may differ when a run is resumed, since it does not affect the result."""
    return field(default=default, metadata=_MAY_CHANGE)


def _of_the_place(default: Any) -> Any:
    """A free field that describes where a run trains; a resumed run starts from its default."""
    return field(default=default, metadata=_OF_THE_PLACE)


def _added_later(default: Any, *, before: Any) -> Any:
    """A field that older runs lack; they were trained as with its value ``before``."""
    return field(default=default, metadata={"before": before})


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    Raises:
        ConfigError: a value is out of range; the message names the field and the allowed values.
    """

    preset: Preset = "default"
    """Source of all settings not given. karpathy: the classic script's learning rate, batch size,
    baseline and frame skip, without annealing, weight decay, warm-up and policy lag; all else as in
    default."""

    seed: Seed = 0
    """Seed of the run's initial weights, games and action sampling."""
    batch_size: Annotated[int, Range(1, 100_000)] = 1
    """Episodes summed in one update."""
    episodes_per_task: Annotated[int, Range(1, 100_000)] = _added_later(1, before=1)
    """Consecutive episodes that a worker plays before it returns the sum of their gradients, a
    divisor of the batch size. More than 1 relieves a learner of hundreds of workers."""
    learning_rate: Annotated[float, Range(0.0, 1.0, open_low=True)] = 3e-3
    """RMSProp's initial step size."""
    anneal_by_reward: bool = _added_later(True, before=False)
    """Whether the run settles as the policy gets better. With m the highest mean reward of 100
    episodes so far, once it is above 0, the learning rate also falls with the square of (21 - m) /
    21, and the logits grow with the inverse of its root."""
    anneal_episodes: Count | None = 2000
    """The learning rate falls to half its initial value after this many episodes, to a third
    after twice as many, and so on. None: it does not fall with time."""
    gamma: Annotated[float, Range(0.0, 1.0)] = 0.99
    """Discount factor of the rewards, per step."""
    decay: Annotated[float, Range(0.0, 1.0, open_high=True)] = 0.99
    """RMSProp's decay of the mean squared gradient."""
    weight_decay: Annotated[float, Range(0.0, 100.0)] = _added_later(1.0, before=0.0)
    """Share of the hidden layer's weights that an update takes off, in units of the learning rate,
    as in AdamW. Without, noise makes them grow until updates hardly change the policy."""
    baseline: Baseline = "learned"
    """Baseline subtracted from the returns of an episode. mean: their mean; learned: the network's
    value of each step, then the mean of what remains."""
    warm_up: bool = True
    """Whether RMSProp begins with the plain mean of the squared gradients so far, until it has seen
    enough of them to decay. Without, the first steps are ten times as long as later ones."""
    policy_lag: Annotated[int, Range(0, 1000)] = 1
    """Age, in updates, of the weights that play an episode. 0: all workers wait for each update; 1:
    they keep playing meanwhile."""
    repeat_noise_probability: Annotated[float, Range(0.0, 1.0, open_high=True)] = _added_later(
        0.95, before=0.0
    )
    """Probability that a step chooses its action with the random numbers of the step before. The
    paddle then strays for a while rather than trembles, and learns to return the ball sooner."""
    hidden_units: Annotated[int, Range(1, 100_000)] = 200
    """Units of the hidden layer."""
    actions: tuple[Action, ...] = ("UP", "DOWN")
    """Actions the policy chooses from, at least two."""
    crop: tuple[int, int, int, int] = (35, 195, 0, 160)
    """Part of the screen, 210 rows by 160 columns, that the policy sees: first row, end row, first
    column, end column. The ends are exclusive."""
    current_frame: bool = _added_later(False, before=False)
    """Show the policy the current frame as well as what changed since the last one. Without it, it
    does not see a paddle that stands still."""
    frame_skip: Annotated[int, Range(1, 60)] = 2
    """Emulated frames per step. Fewer frames allow finer paddle control."""
    repeat_action_probability: Annotated[float, Range(0.0, 1.0, open_high=True)] = 0.25
    """Probability that an emulated frame repeats the previous action (sticky actions)."""
    frame_limit: Annotated[int, Range(1, 10_000_000)] = 108_000
    """Emulated frames after which a game is cut off."""

    init_from: str | Path | None = _added_later(None, before=None)
    """Begin with the weights of this checkpoint, exported policy, run's folder or URI, or
    pretrained, instead of random ones. Actions, crop and hidden units must be the same."""
    init_optimizer: bool = _added_later(False, before=False)
    """Also begin with RMSProp's state from there, without warm-up."""
    init_checksum: str | None = _added_later(None, before=None)
    """Checksum that these weights must have. Default: set when the run begins."""
    init_optimizer_checksum: str | None = _added_later(None, before=None)
    """The same for RMSProp's state."""

    stop_episodes: Count | None = _free(None)
    """Stop after this many episodes, rounded up to whole updates."""
    stop_frames: Count | None = _free(None)
    """Stop after this many emulated frames."""
    stop_minutes: Annotated[float, Range(0.0, 1e9, open_low=True)] | None = _free(None)
    """Stop after this many minutes of training, including those before a resume."""
    stop_reward: Annotated[float, Range(-21.0, 21.0)] | None = _free(None)
    """Stop when the mean reward of the last 100 episodes reaches this."""
    stop_plateau: Count | None = _free(None)
    """Stop when the mean reward of the last 100 episodes has not reached a new high for this many
    episodes; counted once there are 100."""

    shape_for: Annotated[int, WORKERS] | None = _free(None)
    """Choose batch size and policy lag for this number of workers, where they are not given. With
    the same number, a run repeats on any machine. Default: the number of workers when it starts."""
    num_workers: NumWorkers = _of_the_place("auto")
    """Number of workers, one CPU each. auto: one per CPU of the machine, or of the cluster as it
    grows and shrinks."""
    max_workers: Annotated[int, WORKERS] | None = _of_the_place(None)
    """Upper limit on the number of workers with auto."""
    address: str | None = _of_the_place(None)
    """HOST:PORT of a running Ray cluster, or auto to find one. Default: start Ray locally."""
    run_dir: str | Path | None = _of_the_place(None)
    """Folder of the run, or a URI such as s3://BUCKET/NAME or gs://BUCKET/NAME. Default: a new
    folder in runs/, named by date and preset."""
    resume: str | Path | None = _of_the_place(None)
    """Resume the run in this folder or at this URI, with its settings. auto: begin a run in run_dir
    if there is none, else resume it."""
    checkpoint_every: Count = _free(25)
    """Updates between two checkpoints."""
    keep: Count = _free(3)
    """Number of latest checkpoints to keep, besides the best one."""

    backup_after: Annotated[float, Range(1.0, 1e9)] = _free(4.0)
    """An episode that takes this many times the median of recent ones is also given to an idle
    worker; the first result counts."""
    hang_seconds: Annotated[float, Range(0.0, 1e9, open_low=True)] = _free(60.0)
    """A worker that is silent for this long, and for 20 median episodes, is replaced."""
    disk_errors: DiskErrors = _free("stop")
    """What to do when the run's folder cannot be written: stop, or warn and continue."""
    tensorboard: bool = _free(False)
    """Also write TensorBoard event files, to tensorboard/ in the run's folder."""
    wandb: bool = _free(False)
    """Also send the run to Weights & Biases; with WANDB_MODE=offline, only write it to wandb/ in
    the run's folder."""
    wandb_id: str | None = _free(None)
    """The run's id there. Default: set when the run is first sent."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self)
        _check_actions(self.actions)
        if self.batch_size % self.episodes_per_task:
            raise ConfigError(
                f"episodes_per_task: {self.episodes_per_task} is not a divisor of the batch_size, "
                f"{self.batch_size}"
            )
        if self.learning_rate * self.weight_decay > 1.0:
            raise ConfigError(
                f"weight_decay: {self.weight_decay:g} times the learning_rate, "
                f"{self.learning_rate:g}, is more than 1: nothing of the weights would be left"
            )
        _check_crop(self.crop)
        check_address(self.address)
        self._check_source()
        if self.wandb_id is not None and not _WANDB_ID.fullmatch(self.wandb_id):
            raise ConfigError(
                f"wandb_id: {self.wandb_id!r} is not 1 to 64 letters, digits, hyphens and "
                "underscores"
            )
        if self.resume == AUTO and self.run_dir is None:
            raise ConfigError("resume: auto needs a run_dir; a folder of that name is ./auto")
        if self.run_dir is not None and not self.may_begin:
            raise ConfigError("run_dir: a resumed run stays in its folder; leave it out")

    def _check_source(self) -> None:
        """Check the fields of a warm start, and have a path as text, as it is saved."""
        if self.init_from is not None:
            object.__setattr__(self, "init_from", str(self.init_from))
        elif self.init_optimizer or self.init_checksum is not None:
            name = "init_optimizer" if self.init_optimizer else "init_checksum"
            raise ConfigError(f"{name}: goes with init_from, which is not given")
        if self.init_optimizer_checksum is not None and not self.init_optimizer:
            raise ConfigError("init_optimizer_checksum: goes with init_optimizer")
        for name in ("init_checksum", "init_optimizer_checksum"):
            value = getattr(self, name)
            if value is not None and not _CHECKSUM.fullmatch(value):
                raise ConfigError(f"{name}: {value!r} is not 16 hex digits, in lower case")

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON values, without the location: ``run_dir`` and ``resume``."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del values["run_dir"], values["resume"]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """The config from the values of :meth:`to_json`.

        Args:
            values: the settings; those that may change when a run is resumed, and those that
                earlier versions did not have, may be missing.

        Raises:
            ConfigError: a field is unknown, missing, of the wrong type or out of range.
        """
        fields = dataclasses.fields(cls)
        known = {f.name for f in fields} - {"run_dir", "resume"}
        required = {f.name for f in fields if not f.metadata}
        unknown, missing = sorted(set(values) - known), sorted(required - set(values))
        if unknown:
            raise ConfigError(f"{one_line(unknown[0])}: no such setting")
        if missing:
            raise ConfigError(f"{missing[0]}: the setting is missing")
        before = {f.name: f.metadata["before"] for f in fields if "before" in f.metadata}
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**before | given)

    def to_go_on(self, location: str | Path, **changes: Any) -> "TrainConfig":
        """The settings that resume the run at ``location``, where these were saved.

        Args:
            location: the run's folder or URI.
            changes: new values. Workers and address, which depend on the machine, are reset to
                their defaults unless given here. A stop condition given here, even None, replaces
                all saved ones.

        Raises:
            ConfigError: a value is out of range.
        """
        reset = {f.name: f.default for f in dataclasses.fields(self) if f.name in of_the_place()}
        if not changes.keys().isdisjoint(STOP_CONDITIONS):
            reset.update(dict.fromkeys(STOP_CONDITIONS))
        # A path, unlike the word, is a folder of that name.
        resume = Path(location) if location == AUTO else location
        return dataclasses.replace(self, **{**reset, "resume": resume, **changes})

    def pinned_as(self, saved: "TrainConfig") -> "TrainConfig":
        """This config with what ``saved`` had set when its run began, where it is not given here.

        This is ``wandb_id`` and, unless the sources differ, the checksums of the source.
        """
        config = dataclasses.replace(self, wandb_id=self.wandb_id or saved.wandb_id)
        if (self.init_from, self.init_optimizer) != (saved.init_from, saved.init_optimizer):
            return config
        return dataclasses.replace(
            config,
            init_checksum=self.init_checksum or saved.init_checksum,
            init_optimizer_checksum=self.init_optimizer_checksum or saved.init_optimizer_checksum,
        )

    @property
    def location(self) -> str | Path | None:
        """The run's folder or URI, existing or not; None: a new folder in runs/."""
        return self.run_dir if self.may_begin else self.resume

    @property
    def may_begin(self) -> bool:
        """Whether these settings can begin a run; otherwise they only resume one."""
        return self.resume in (None, AUTO)

    @property
    def tasks_per_batch(self) -> int:
        """Number of tasks that the episodes of a batch make."""
        return self.batch_size // self.episodes_per_task

    @property
    def tasks_at_a_time(self) -> int:
        """Maximum number of tasks played at the same time; the policy lag limits it."""
        return self.tasks_per_batch * (self.policy_lag + 1)

    @property
    def useful_workers(self) -> int:
        """The most workers that hardly ever wait for each other.

        While the last task of a batch is played, so can be those of the next ``policy_lag``.
        """
        return max(self.tasks_per_batch, self.tasks_per_batch * self.policy_lag + 1)

    def env_settings(self) -> dict[str, Any]:
        """The arguments of :class:`distributed_pg.envs.pong.PongEnv`."""
        seen = ("actions", "crop", "current_frame", "frame_skip")
        names = (*seen, "repeat_action_probability", "frame_limit")
        return {name: getattr(self, name) for name in names}

    def differences(self, other: "TrainConfig") -> dict[str, Any]:
        """The fields that differ from those of ``other``, with their values here."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value != getattr(other, name)}

    def changed_settings(self, saved: "TrainConfig") -> list[str]:
        """Names of the differing fields that make this a different run from ``saved``."""
        return [name for name in self.differences(saved) if name not in may_change()]


def may_change() -> set[str]:
    """Names of the fields that may differ when a run is resumed."""
    return {f.name for f in dataclasses.fields(TrainConfig) if f.metadata.get("may_change")}


def of_the_place() -> set[str]:
    """Names of the fields that describe where a run trains; resuming resets them."""
    return {f.name for f in dataclasses.fields(TrainConfig) if f.metadata.get("of_the_place")}


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
    four_ints = len(crop) == 4 and all(type(edge) is int for edge in crop)
    if not four_ints or not (0 <= crop[0] < crop[1] <= 210 and 0 <= crop[2] < crop[3] <= 160):
        raise ConfigError(
            f"crop: {crop!r} is not two screen rows TOP < BOTTOM from 0 to 210 and two columns "
            "LEFT < RIGHT from 0 to 160"
        )
