"""Runs that begin with the weights of another: same bits on any workers, and without the source."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from learner_runs import CONFIG as COLD
from learner_runs import run
from simulated_pool import play_for_real

from distributed_pg.algo.state import Progress, TrainingState
from distributed_pg.storage.checkpoint import weights_checksum
from distributed_pg.storage.run_dir import RunDir
from distributed_pg.storage.warm_start import begin
from distributed_pg.training.schedule import EpisodeTask


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four updates."""
    folder = tmp_path_factory.mktemp("source") / "run"
    run(COLD, folder)
    return folder


WARM = replace(COLD, seed=9, learning_rate=3e-4, batch_size=2, stop_episodes=8, anneal_episodes=10)


@pytest.mark.parametrize("optimizer", [False, True])
def test_the_bits_depend_on_no_worker_no_fault_and_no_source(
    tmp_path: Path, source: Path, optimizer: bool
) -> None:
    copy = tmp_path / "c.safetensors"
    copy.write_bytes(RunDir.open(source).newest_checkpoint().read_bytes())
    config, state = begin(replace(WARM, init_from=copy, init_optimizer=optimizer))
    begun = TrainingState(dict(state.policies), state.cache.copy(), Progress())
    expected = weights_checksum(run(config, tmp_path / "whole", begun, workers=1)[0].policy)
    assert expected != weights_checksum(run(WARM, tmp_path / "cold")[0].policy)

    half = replace(config, stop_episodes=4)
    run(half, tmp_path / "parts", begin(half)[1], workers=2, dies_during=0.2, slow=0.2)
    copy.unlink()
    checkpoint = RunDir.open(tmp_path / "parts").load_newest()[1]
    assert checkpoint.config == half
    end, recorder, _ = run(config, tmp_path / "parts", checkpoint.state, workers=3, hangs=0.1)
    assert weights_checksum(end.policy) == expected
    assert end.progress.episodes == 8
    rates = [record.learning_rate for record in recorder.records]
    assert rates == pytest.approx([3e-4 / (1 + 4 / 10), 3e-4 / (1 + 6 / 10)])


def test_the_first_step_uses_the_optimizer_state_that_was_taken(
    tmp_path: Path, source: Path
) -> None:
    config = replace(WARM, weight_decay=0.0, stop_episodes=2, init_from=source, init_optimizer=True)
    _, before = begin(config)
    play = play_for_real(config)
    gradient = before.policy.zeros_like()
    for episode in range(2):
        play(EpisodeTask(episode, 0), before.policy)[1].add_to(gradient)
    after = run(config, tmp_path / "run", begin(config)[1])[0].policy
    parts = zip(
        *(policy.arrays for policy in (before.policy, before.cache, gradient, after)), strict=True
    )
    for weights, squares, grad, result in parts:
        cache = 0.99 * squares.astype(np.float64) + 0.01 * grad.astype(np.float64) ** 2
        expected = weights + 3e-4 * grad / (np.sqrt(cache) + 1e-5)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-7)
