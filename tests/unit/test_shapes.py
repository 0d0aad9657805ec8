"""Settings by number of workers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_pg.config import TrainConfig
from distributed_pg.errors import ConfigError
from distributed_pg.presets import preset
from distributed_pg.shapes import MOST_USEFUL, SHAPED, SHAPES, shape


@given(st.integers(1, MOST_USEFUL))
def test_a_run_has_work_for_the_workers_it_is_shaped_for(workers: int) -> None:
    config = preset("default", shape_for=workers)
    assert config.batch_size * config.policy_lag + 1 >= workers


def test_two_workers_have_the_settings_of_the_preset() -> None:
    shaped = preset("default", shape_for=2)
    assert shaped == TrainConfig(shape_for=2)


@pytest.mark.parametrize(
    ("workers", "size"),
    [
        (1, 2),
        (2, 2),
        (3, 4),
        (4, 4),
        (5, 8),
        (9, 16),
        (17, 32),
        (33, 64),
        (64, 64),
        (65, 64),
        (256, 64),
    ],
)
def test_the_smallest_shape_that_is_large_enough(workers: int, size: int) -> None:
    assert shape("default", workers) == SHAPES[size]


def test_what_is_given_stays() -> None:
    config = preset("default", shape_for=64, batch_size=7)
    assert (config.batch_size, config.policy_lag) == (7, SHAPES[64]["policy_lag"])


def test_all_shaped_settings_decide_what_is_learned() -> None:
    assert set(TrainConfig(shape_for=3).changed_settings(TrainConfig(shape_for=9))) == set()
    for name in SHAPED:
        settings: dict[str, Any] = {name: 50}
        assert TrainConfig(**settings).changed_settings(TrainConfig()) == [name]


def test_a_preset_with_fixed_settings_is_not_shaped() -> None:
    with pytest.raises(ConfigError, match=r"^shape_for: the preset karpathy has fixed settings"):
        preset("karpathy", shape_for=16)
    assert preset("karpathy").shape_for is None


@pytest.mark.parametrize("workers", [0, 100_001, 2.0, "many"])
def test_a_number_of_workers_out_of_range(workers: object) -> None:
    with pytest.raises(ConfigError, match=r"^shape_for: "):
        preset("default", shape_for=workers)
