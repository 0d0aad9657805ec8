"""A self-contained HTML page about a run (needs the [report] extra)."""

import base64
import logging
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from distributed_pg.algo.state import WINDOW
from distributed_pg.analysis.hidden_units import DARK, LIGHT, strongest_units, weights_png
from distributed_pg.analysis.learning_curves import (
    Curve,
    local_run,
    run_curve,
    run_name,
)
from distributed_pg.analysis.milestones import milestones
from distributed_pg.analysis.report.html_chart import Chart, chart, stride
from distributed_pg.analysis.report.shared import (
    Figure,
    Setting,
    duration,
    rendered,
    settings,
    settings_to_give,
)
from distributed_pg.config import TrainConfig
from distributed_pg.envs.pong import FRAMES_PER_SECOND
from distributed_pg.errors import UsageError, counted, writing
from distributed_pg.evaluation import Evaluation, evaluate
from distributed_pg.presets import as_flags
from distributed_pg.shapes import SHAPED_PRESET, UNSHAPED
from distributed_pg.storage.checkpoint import Checkpoint
from distributed_pg.storage.policy_file import TrainedPolicy
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.storage.tensor_file import write_atomically

_LOG = logging.getLogger(__name__)

UNITS = 40
"""Number of hidden units shown."""


@dataclass(frozen=True, slots=True)
class Game:
    """A recorded game."""

    source: str
    """The video as a data URI."""
    reward: float
    steps: int


def write_report(
    location: str,
    out: Path,
    *,
    episodes: int = 20,
    video: bool = True,
    finished: Callable[[int], None] = lambda _: None,
) -> None:
    """Write an HTML page about a run.

    Args:
        location: the run's folder or URI.
        out: the HTML file.
        episodes: games to evaluate the newest checkpoint on; 0 skips the evaluation.
        video: include a recorded game.
        finished: called with the number of games played so far.

    Raises:
        UsageError: there is no run, or no folder for the page.
        RunError: the run cannot be read or is damaged, or the page cannot be written.
    """
    if not out.parent.is_dir():
        raise UsageError(f"out: there is no folder {out.parent}")
    with local_run(location, lost=_LOG.warning) as folder:
        path, checkpoint = RunDir.open(folder).load_newest()
        curve = run_curve(folder, run_name(location))
        evaluation = None
        if episodes:
            _LOG.info(f"Playing {counted(episodes, 'game')} with {path.name}")
            evaluation = evaluate(path, episodes, finished=finished)
        game = None
        if video:
            _LOG.info("Recording a game")
            game = _recorded(path)
    page = render(curve, checkpoint, evaluation, game)
    with writing(f"out: {out}"):
        write_atomically(out, page.encode())


def render(
    curve: Curve, checkpoint: Checkpoint, evaluation: Evaluation | None, game: Game | None
) -> str:
    """Render the page.

    Args:
        curve: the run's learning curve.
        checkpoint: the checkpoint that the page describes.
        evaluation: its evaluation, if any.
        game: a recorded game, if any.

    Returns:
        The HTML.
    """
    config, progress = checkpoint.config, checkpoint.state.progress
    trained = TrainedPolicy(config, checkpoint.state.policy, progress)
    units = strongest_units(trained, UNITS)
    last = curve.records[-1]
    return rendered(
        "run.html.j2",
        curve=curve,
        config=config,
        figures=_figures(curve, evaluation),
        learning=_learning_charts(curve),
        speed=_speed_charts(curve),
        every=stride(len(curve.episodes)),
        milestones=milestones(curve),
        evaluation=evaluation,
        game=game,
        units=len(units),
        weights_light=_data_uri("image/png", weights_png(units, LIGHT)),
        weights_dark=_data_uri("image/png", weights_png(units, DARK)),
        light=LIGHT,
        dark=DARK,
        computing=[s for s in settings(config, may_change=False) if s.name != "preset"],
        running=settings(config, may_change=True),
        checkpoint_episodes=progress.episodes,
        versions=[Setting(*item, changed=False) for item in sorted(checkpoint.versions.items())],
        command=f"{train_command(config)} --stop-episodes {last['episodes']}",
        checksum=last.get("weights_checksum", "unknown"),
    )


def train_command(config: TrainConfig) -> str:
    """The command line that starts a run with these settings, on any number of workers."""
    if config.preset == SHAPED_PRESET and config.shape_for is None:
        config = replace(config, shape_for=UNSHAPED)
    return shlex.join(["distributed-pg", "train", *as_flags(settings_to_give(config))])


def _recorded(checkpoint: Path) -> Game:
    from distributed_pg.viewer.video import record

    with tempfile.TemporaryDirectory() as folder:
        recording = record(checkpoint, Path(folder) / "game.mp4", smooth=True)
        source = _data_uri("video/mp4", recording.path.read_bytes())
    return Game(source, recording.reward, recording.steps)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _figures(curve: Curve, evaluation: Evaluation | None) -> list[Figure]:
    rewards = np.concatenate([record["rewards"] for record in curve.records])[-WINDOW:]
    last = "game" if len(rewards) == 1 else f"{len(rewards)} games"
    games = f"the last {last} of training"
    won, won_of = (
        (float((rewards > 0).mean()), games)
        if evaluation is None
        else (evaluation.won, f"{counted(evaluation.episodes, 'game')} played for this page")
    )
    frames, seconds = curve.frames[-1], 60 * curve.minutes[-1]
    speed = frames / seconds
    return [
        Figure("Mean reward", f"{rewards.mean():+.1f}", f"points won minus lost, in {games}"),
        Figure("Games won", f"{100 * won:.3g}%", f"of {won_of}"),
        Figure("Episodes", f"{curve.episodes[-1]:,.0f}", f"{frames / 1e6:.1f} million frames"),
        Figure("Training time", duration(curve.minutes[-1]), "wall clock"),
        Figure(
            "Frames a second", f"{speed:,.0f}", f"{speed / FRAMES_PER_SECOND:,.0f} times real time"
        ),
    ]


def _learning_charts(curve: Curve) -> list[Chart]:
    reached = milestones(curve)
    by_episode = tuple((f"{m.episodes:,}", float(m.episodes), m.mean) for m in reached)
    by_minute = tuple((f"{m.minutes:.1f}", m.minutes, m.mean) for m in reached)
    return [
        chart(
            "Running mean of the reward",
            x_label,
            x,
            curve.running_mean,
            dots=curve.update_mean,
            y_range=(-21.0, 21.0),
            marks=tuple(dict.fromkeys(marks)),  # one update may reach several levels
        )
        for x_label, x, marks in (
            ("episodes", curve.episodes, by_episode),
            ("minutes", curve.minutes, by_minute),
        )
    ]


def _speed_charts(curve: Curve) -> list[Chart]:
    charts = []
    for name, title in (
        ("frames_per_second", "Frames a second"),
        ("episodes_per_hour", "Episodes an hour"),
        ("worker_busy", "Workers busy"),
    ):
        values = curve.column(name)
        if values is not None:
            is_share = name == "worker_busy"
            y_range = (0.0, 1.0) if is_share else None
            charts.append(
                chart(title, "minutes", curve.minutes, values, y_range=y_range, percent=is_share)
            )
    return charts
