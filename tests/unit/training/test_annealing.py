"""The learning rate, RMSProp's decay and the policy's sharpness in the course of a run."""

from dataclasses import replace
from itertools import pairwise

import pytest

from distributed_pg.algo.rmsprop import RMSProp
from distributed_pg.algo.state import Progress
from distributed_pg.config import TrainConfig
from distributed_pg.presets import preset
from distributed_pg.training.annealing import optimizer_after, sharpening

CONFIG = TrainConfig(learning_rate=0.5, anneal_episodes=None, decay=0.75, weight_decay=0.25)


def at(peak: float | None) -> Progress:
    """The progress of a run whose best 100 episodes have this mean."""
    return Progress(update=10**6, episodes=10**6, peak_mean_100=peak)


def learning_rate(config: TrainConfig, progress: Progress) -> float:
    optimizer = optimizer_after(config, progress)
    assert (optimizer.columns, optimizer.weight_decay) == (80, 0.25)
    return optimizer.learning_rate


@pytest.mark.parametrize(
    ("peak", "expected"),
    [(None, 0.5), (-9.0, 0.5), (0.0, 0.5), (10.5, 0.125), (14.0, 0.5 / 9), (20.0, 0.5 / 441)],
)
def test_the_learning_rate_falls_with_what_is_missing_to_21(
    peak: float | None, expected: float
) -> None:
    assert learning_rate(CONFIG, at(peak)) == pytest.approx(expected, rel=1e-15)


def test_a_perfect_policy_still_learns() -> None:
    assert learning_rate(CONFIG, at(21.0)) == learning_rate(CONFIG, at(20.0)) > 0
    assert sharpening(CONFIG, at(20.0), at(21.0)) == 1


def test_the_learning_rate_falls_with_time_if_asked() -> None:
    config = replace(CONFIG, anneal_episodes=100)
    rates = [learning_rate(config, Progress(episodes=n)) for n in (0, 100, 300)]
    assert rates == [0.5, 0.25, 0.125]
    both = Progress(episodes=100, peak_mean_100=10.5)
    assert learning_rate(config, both) == 0.0625


def test_the_logits_grow_by_the_same_factor_whatever_the_steps() -> None:
    assert sharpening(CONFIG, at(-3.0), at(0.0)) == 1
    assert sharpening(CONFIG, at(-3.0), at(21 - 21 / 16)) == 4
    peaks = [-3.0, 0.5, 0.5, 3.25, 11.0, 21 - 21 / 16]
    product = 1.0
    for before, after in pairwise(peaks):
        factor = sharpening(CONFIG, at(before), at(after))
        assert factor >= 1
        product *= factor
    assert product == pytest.approx(4, rel=1e-14)


def test_a_warm_start_is_as_sharp_as_its_source() -> None:
    assert sharpening(CONFIG, at(None), at(17.0)) == 1
    assert sharpening(CONFIG, at(17.0), at(17.0)) == 1


def test_the_classic_preset_stays_as_it_is() -> None:
    config = preset("karpathy")
    for progress in (Progress(), at(20.0)):
        assert optimizer_after(config, progress) == RMSProp(1e-4, 0.99, 80, 0.0)
    assert sharpening(config, at(1.0), at(20.0)) == 1


def test_a_warm_up_takes_the_plain_mean_first() -> None:
    def decays(config: TrainConfig) -> list[float]:
        updates = (0, 1, 3, 4, 1000)
        return [optimizer_after(config, Progress(update=u, episodes=9)).decay for u in updates]

    assert decays(CONFIG) == [0.0, 0.5, 0.75, 0.75, 0.75]
    assert decays(TrainConfig(decay=0.75, warm_up=False)) == [0.75] * 5
    warm = TrainConfig(decay=0.75, init_from="x", init_optimizer=True)
    assert decays(warm) == [0.75] * 5
    assert decays(TrainConfig(decay=0.75, init_from="x")) == [0.0, 0.5, 0.75, 0.75, 0.75]
