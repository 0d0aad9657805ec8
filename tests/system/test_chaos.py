"""A short form of the chaos run: real processes, real signals, the same bits."""

from pathlib import Path

import pytest
from chaos_script import chaos


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_run_that_is_broken_again_and_again_ends_in_the_same_bits(tmp_path: Path) -> None:
    kinds = ["two_workers_killed", "node_killed", "learner_killed_while_it_saves"]
    record = chaos(tmp_path / "chaos.json", "--kinds", ",".join(kinds))
    assert set(record["recovery_seconds"]) == set(kinds)
    # What was lost was given to another worker: at once, or when it took too long.
    assert record["episodes_played_again"] + record["second_workers"] > 0
