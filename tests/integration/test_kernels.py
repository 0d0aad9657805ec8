"""Arithmetic is held to one instruction set, and only where that is asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import distributed_pg, metrics, python
from learner_runs import checksums

from distributed_pg.config import TrainConfig
from distributed_pg.determinism import kernel_environment, on_x86


def test_the_command_line_holds_nothing_to_kernels_when_it_is_only_imported() -> None:
    # So it is by the benchmark's processes: those of the classic way may use all of the CPU.
    code = (
        "import os; from distributed_pg.determinism import kernel_environment as held;"
        "[os.environ.pop(name, None) for name in held()]; import distributed_pg.cli.main;"
        "print(*held().keys() & os.environ.keys())"
    )
    assert python(code) == ""


@pytest.mark.skipif(not on_x86(), reason="the kernels are held on x86-64 only")
def test_the_environment_turns_off_what_is_above_sse() -> None:
    code = (
        "from numpy._core import _multiarray_umath as m;"
        "print([f for f in m.__cpu_dispatch__ if m.__cpu_features__[f] and f[:3] in ('AVX', 'X86')"
        " and f != 'X86_V2' or f == 'FMA3' and m.__cpu_features__[f]])"
    )
    assert python(code, **kernel_environment()) == "[]"
    assert "-FMA" in kernel_environment()["GLIBC_TUNABLES"]


LEARN = """
import numpy as np
from distributed_pg.storage.checkpoint import weights_checksum
from distributed_pg.algo.rmsprop import RMSProp
from distributed_pg.algo.policy import Policy
policy = Policy.init(seed=0, inputs=6400, hidden_units=200, actions=2)
optimizer, cache = RMSProp(1e-3, 0.99, 80), policy.zeros_like()
random = np.random.default_rng(1)
for _ in range(3):
    arrays = [random.standard_normal(a.shape).astype(np.float32) for a in policy.arrays]
    optimizer.step(policy, cache, Policy(*arrays))
print(weights_checksum(policy))
"""


def test_an_update_has_the_same_bits_with_every_instruction_set() -> None:
    """So the learner may run in a process whose numpy uses all that its CPU has."""
    names = kernel_environment()
    native = {k: v for k, v in os.environ.items() if k not in names}
    checksums = {
        subprocess.run(
            [sys.executable, "-c", LEARN], env=env, capture_output=True, text=True, check=True
        ).stdout
        for env in (native, native | names)
    }
    assert len(checksums) == 1


def test_the_command_line_does_not_load_numpy_before_it_is_needed() -> None:
    """Or the kernels could not be chosen any more, and --help would be slow."""
    assert python("import sys, distributed_pg.cli.main; print('numpy' in sys.modules)") == "False"


PLAY = """
import logging
logging.basicConfig()
from distributed_pg.algo.policy import Policy
from distributed_pg.algo.rollout import episode_seed, play, play_episode
from distributed_pg.compiled.playing import fastest_play
from distributed_pg.envs.pong import PongEnv
policy = Policy.init(seed=0, inputs=6400, hidden_units=200, actions=2)
fastest = fastest_play(200)
game = play_episode(PongEnv(frame_limit=2000), policy, episode_seed(0, 0, 0), play=fastest)
print(fastest is not play, hash(game.hidden.tobytes() + game.outputs.tobytes()))
"""


@pytest.mark.exhaustive
def test_runs_and_games_are_the_same_whatever_becomes_of_compiled_code(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    pinned = kernel_environment() | {
        "NUMBA_DISABLE_JIT": "0",
        "PYTHONHASHSEED": "0",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    config = TrainConfig(seed=0, batch_size=2, frame_limit=600, stop_episodes=6)
    alone = checksums(config)  # in this process, where it is turned off
    settings = "--seed 0 --batch-size 2 --frame-limit 600 --stop-episodes 6 --run-dir run"
    result = distributed_pg("train", *settings.split(), cwd=tmp_path, **pinned)
    assert result.returncode == 0, result.stderr
    assert [m["weights_checksum"] for m in metrics(tmp_path / "run")] == alone

    (compiled,) = (tmp_path / "cache/distributed_pg").rglob("*.nbc")
    written = compiled.stat().st_mtime_ns
    used, bits = python(PLAY, **pinned).split()
    assert used == "True"
    assert compiled.stat().st_mtime_ns == written  # it was not compiled again
    assert python(PLAY, **(pinned | {"NUMBA_DISABLE_JIT": "1"})).split() == ["False", bits]
    compiled.write_bytes(b"damaged")
    assert python(PLAY, **pinned).split() == ["True", bits]
