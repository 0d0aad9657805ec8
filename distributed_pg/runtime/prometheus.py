"""Exports a run's records as Ray metrics, which Ray serves to Prometheus on each node."""

import json
from pathlib import Path
from typing import Any

import ray
from ray.util.metrics import Counter, Gauge, Histogram

from distributed_pg.storage.metrics import UpdateRecord
from distributed_pg.storage.tensor_file import write_atomically

TARGET = "scrape_target.yml"
"""File in the run's folder during training: its metrics address, for Prometheus file_sd_configs."""
GAUGES = {
    "run_episodes": ("episodes", "Episodes so far, those before a resume included"),
    "reward_running_mean": ("running_mean", "Running mean of the reward, weight 0.01"),
    "reward_mean_100": ("mean_100", "Mean reward of the last 100 episodes"),
    "points_share": ("points_share", "Points won of those played in the last update"),
    "entropy": ("entropy", "Entropy of the policy, nats, mean over the last update's steps"),
    "gradient_norm": ("gradient_norm", "Euclidean norm of the summed gradient"),
    "weights_norm": ("weights_norm", "Euclidean norm of the weights"),
    "policy_lag": ("policy_lag", "Updates that the playing weights were old"),
    "episodes_per_hour": ("episodes_per_hour", "Rate over the last 25 updates"),
    "frames_per_second": ("frames_per_second", "Emulated frames, over the last 25 updates"),
    "worker_busy": ("worker_busy", "Share of the workers' time spent playing"),
    "workers": ("workers", "Workers that can play"),
    "update_seconds": ("update_seconds", "The learner's own time for the last update"),
}
"""For each gauge, its field of :class:`UpdateRecord` and its help text."""
COUNTERS = {
    "updates": "Updates made in this session",
    "episodes": "Episodes learned from in this session",
    "frames": "Emulated frames of these episodes",
    "steps": "Steps of these episodes",
    "points_won": "Points the policy scored in them",
    "points_lost": "Points the opponent scored in them",
}
STEPS_BUCKETS = [500.0, 1000.0, 1500.0, 2000.0, 2500.0, 3000.0, 4000.0, 6000.0, 10000.0]


class RayMetrics:
    """A :class:`distributed_pg.monitoring.sinks.Sink` for a process connected to Ray.

    In Prometheus all names have the prefix ``ray_``, counters also the suffix ``_total``, and each
    metric has a label ``run``, the name of the run's folder.

    Args:
        run: the run's folder.
        frames: number of emulated frames of the run so far.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, run: Path, frames: int) -> None:
        self._frames = frames
        tags, keys = {"run": run.name}, ("run",)
        self._gauges = {
            field: Gauge(_name(name), text, keys).set_default_tags(tags)
            for name, (field, text) in GAUGES.items()
        }
        self._counters = {
            name: Counter(_name(name), text, keys).set_default_tags(tags)
            for name, text in COUNTERS.items()
        }
        # Ray only keeps bucket counts, so the histogram's sum is an estimate from their midpoints.
        # The counter "steps" is exact.
        steps = Histogram(_name("episode_steps"), "Steps of an episode", STEPS_BUCKETS, keys)
        self._steps = steps.set_default_tags(tags)
        self._target = run / TARGET
        target = {"targets": [metrics_address()], "labels": {"job": "ray"}}
        write_atomically(self._target, json.dumps([target]).encode() + b"\n")

    def write(self, record: UpdateRecord) -> None:
        """:meth:`distributed_pg.monitoring.sinks.Sink.write`."""
        for field, gauge in self._gauges.items():
            gauge.set(getattr(record, field))
        increments = {
            "updates": 1,
            "episodes": len(record.rewards),
            "frames": record.frames - self._frames,
            "steps": sum(record.lengths),
            "points_won": record.points_won,
            "points_lost": record.points_lost,
        }
        self._frames = record.frames
        for name, counter in self._counters.items():
            if increments[name]:  # Ray rejects 0
                counter.inc(increments[name])
        for steps in record.lengths:
            self._steps.observe(steps)

    def close(self) -> None:
        """:meth:`distributed_pg.monitoring.sinks.Sink.close`."""
        self._target.unlink(missing_ok=True)


def metrics_address() -> str:
    """HOST:PORT at which Ray serves ``/metrics`` on this node."""
    here = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    (node,) = (node for node in nodes if node["NodeID"] == here)
    return f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"


def _name(metric: str) -> str:
    return f"distributed_pg_{metric}"
