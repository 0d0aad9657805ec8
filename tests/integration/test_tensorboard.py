"""The event files hold what metrics.jsonl holds, read by TensorBoard itself."""

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from disks import full_disk
from records import record_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from distributed_pg import _extras
from distributed_pg.config import TrainConfig
from distributed_pg.errors import UsageError
from distributed_pg.monitoring import tensorboard
from distributed_pg.monitoring.reporter import NullReporter
from distributed_pg.monitoring.scalars import EPISODE_LENGTH, EPISODE_REWARD, SCALARS
from distributed_pg.monitoring.sinks import Sinks
from distributed_pg.monitoring.tensorboard import FOLDER, TensorBoardSink
from distributed_pg.storage.metrics import read_metrics
from distributed_pg.trainer import resume_config, train

CONFIG = TrainConfig(
    batch_size=3, frame_limit=400, hidden_units=20, num_workers=1, checkpoint_every=2, keep=9
)
Points = dict[str, list[tuple[int, float]]]


def shown(run: Path) -> tuple[Points, list[float]]:
    """The steps and values that TensorBoard shows for each tag, and their wall times."""
    events = EventAccumulator(str(run / FOLDER), size_guidance={"scalars": 0})
    events.Reload()
    scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    points = {tag: [(one.step, one.value) for one in many] for tag, many in scalars.items()}
    return points, [one.wall_time for many in scalars.values() for one in many]


def recorded(lines: list[dict[str, Any]]) -> Points:
    """The same of metrics.jsonl."""
    points: Points = {
        tag: [(line["episodes"], line[field]) for line in lines if line[field] is not None]
        for tag, field in SCALARS.items()
    }
    for tag, field in ((EPISODE_REWARD, "rewards"), (EPISODE_LENGTH, "lengths")):
        points[tag] = list(enumerate((value for line in lines for value in line[field]), 1))
    return points


def assert_same(these: Points, those: Points) -> None:
    assert these.keys() == those.keys()
    for tag, points in these.items():
        assert [step for step, _ in points] == [step for step, _ in those[tag]], tag
        values = [value for _, value in those[tag]]
        assert [value for _, value in points] == pytest.approx(values, rel=1e-6), tag


OTHERS = ["events.out.tfevents.1764000000.host.00000000", "events.out.tfevents.9999999999.z.00"]


@pytest.mark.parametrize("others", [[], OTHERS])
def test_what_is_resumed_is_shown_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: list[str]
) -> None:
    """``others``: names of an older version, whose wall time came first."""
    expected = [(episode, float(episode)) for episode in range(1, 13)]
    now = [0.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr(tensorboard, "time", lambda: now[0])
    clocks = [2e9, 1.7e9, 1.7e9, 86400.0, 0.0, 1e10] + 6 * [1.5e9]
    for before, now[0] in enumerate(clocks):
        sink = TensorBoardSink(tmp_path, before)
        for update in (before + 1, before + 2):  # the process is killed; one update is lost
            sink.write(record_of(update, rewards=[float(update)]))
        sink.close()
        if before < len(others):
            (new,) = (path for path in (tmp_path / FOLDER).iterdir() if path.name not in others)
            new.rename(new.with_name(others[before]))
    points = shown(tmp_path)[0][EPISODE_REWARD]
    assert points == [*expected, (13, 13.0)]
    names = [path.name for path in (tmp_path / FOLDER).iterdir()]
    assert len(names) == len(clocks)
    assert all(re.fullmatch(r"events\.[\w.-]+", name) for name in names)  # submit fetches those


@pytest.mark.usefixtures("local_ray")
def test_what_is_shown_is_what_was_recorded_when_stopped_killed_and_resumed(
    tmp_path: Path,
) -> None:
    run, begin = tmp_path / "run", time.time()
    train(replace(CONFIG, run_dir=run, tensorboard=True, stop_episodes=9))
    assert_same(shown(run)[0], recorded(read_metrics(run / "metrics.jsonl")))

    train(resume_config(run, stop_episodes=15))  # it is a setting of the run from now on
    assert len(read_metrics(run / "metrics.jsonl")) == 5
    # As if the process had been killed before these were written.
    for update in (3, 4, 5):
        (run / f"checkpoints/update-{update:08}.safetensors").unlink()
    train(resume_config(run, stop_episodes=18))

    points, times = shown(run)
    lines = read_metrics(run / "metrics.jsonl")
    assert [line["update"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert_same(points, recorded(lines))
    assert all(begin < one < time.time() for one in times)
    files = sorted((run / FOLDER).iterdir())
    events = [event for file in files for event in EventFileLoader(str(file)).Load()]
    rewards = [e.step for e in events if EPISODE_REWARD in {v.tag for v in e.summary.value}]
    # Updates 3 to 5 are in the files twice.
    assert sorted(rewards) == sorted([*range(1, 19), *range(7, 16)])

    train(resume_config(run, stop_episodes=21, tensorboard=False))
    assert len(read_metrics(run / "metrics.jsonl")) == 7
    assert sorted((run / FOLDER).iterdir()) == files
    assert not (run / "wandb").exists()


def test_a_missing_library_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_extras, "find_spec", lambda _: None)
    with pytest.raises(
        UsageError, match=r"^tensorboardX is not .* 'distributed-pg\[tensorboard\]'"
    ):
        train(replace(CONFIG, run_dir=tmp_path / "run", tensorboard=True))
    assert not (tmp_path / "run").exists()


def test_a_disk_that_fills_up_is_told_and_what_was_written_stays_good(
    tmp_path: Path, told: list[str]
) -> None:
    sink = TensorBoardSink(tmp_path, 0)
    sink.write(record_of(1))
    (file,) = (tmp_path / FOLDER).iterdir()
    size = file.stat().st_size
    with full_disk(size + 10), Sinks({"TensorBoard": lambda: sink}, NullReporter()) as both:
        for update in (2, 3, 4):
            both.updated(record_of(update))
    assert told == ["TensorBoard: OSError: [Errno 27] File too large; the run goes on without it"]
    assert shown(tmp_path)[0][EPISODE_REWARD] == [(1, 1.0)]


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TensorBoardSink(tmp_path / "gone", 0)
