"""What TensorBoard and Weights & Biases show of an update."""

from collections.abc import Iterator

from distributed_pg.storage.metrics import UpdateRecord

SCALARS = {
    "reward/running_mean": "running_mean",
    "reward/mean_100": "mean_100",
    "reward/points_share": "points_share",
    "policy/entropy": "entropy",
    "policy/gradient_norm": "gradient_norm",
    "policy/learning_rate": "learning_rate",
    "policy/weights_norm": "weights_norm",
    "speed/episodes_per_hour": "episodes_per_hour",
    "speed/frames_per_second": "frames_per_second",
    "speed/worker_busy": "worker_busy",
    "speed/workers": "workers",
    "speed/update_seconds": "update_seconds",
    "speed/policy_lag": "policy_lag",
}
"""Each tag and its field of :class:`UpdateRecord`. The step is the number of episodes so far."""
EPISODE_REWARD, EPISODE_LENGTH = "reward/episode", "policy/episode_length"
"""Tags with a value per episode. The step is the episode's number, from 1."""


def scalars_of(record: UpdateRecord) -> Iterator[tuple[int, dict[str, float]]]:
    """The values of an update and its episodes by tag, each with its step, in order.

    The last episode and the update have the same step. What is not known yet is left out.
    """
    first = record.episodes - len(record.rewards) + 1
    games = zip(record.rewards, record.lengths, strict=True)
    for episode, (reward, length) in enumerate(games, first):
        yield episode, {EPISODE_REWARD: reward, EPISODE_LENGTH: length}
    values = {tag: getattr(record, field) for tag, field in SCALARS.items()}
    yield record.episodes, {tag: value for tag, value in values.items() if value is not None}
