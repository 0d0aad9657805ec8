"""Shared by all tests. Importing this holds numpy to the kernels that the command uses."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

from distributed_pg.determinism import pin_kernels

pin_kernels()
os.environ["NUMBA_DISABLE_JIT"] = "1"  # loading compiled code takes longer than most tests
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

# Ignored in what a shell starts in the background, and so by what the tests would start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

from distributed_pg.algo.policy import Policy  # noqa: E402
from distributed_pg.envs.pong import PongEnv  # noqa: E402
from distributed_pg.monitoring.log import log_shown_by  # noqa: E402

# A busy machine is not a failure. CI tries the same cases each time; runs by hand find new ones,
# and try fewer, so that they answer sooner.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("by hand", deadline=None, max_examples=25)
settings.load_profile("ci" if "CI" in os.environ else "by hand")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """For folders, a process per CPU, and one more if tests wait for Ray; for files, just this."""
    paths = [Path(argument.split("::")[0]) for argument in config.args]
    if all(path.is_file() for path in paths):
        return 0
    only_unit = all("unit" in path.parts for path in paths)
    return min((os.cpu_count() or 1) + (not only_unit), 8)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow tests: at the end, each would run alone."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture
def told() -> Iterator[list[str]]:
    """The lines that the package logs during the test."""
    lines: list[str] = []
    with log_shown_by(lines.append):
        yield lines


@pytest.fixture(scope="session")
def pong() -> PongEnv:
    return PongEnv()


@pytest.fixture(scope="session")
def policy() -> Policy:
    return Policy.init(seed=3, inputs=6400, hidden_units=200, actions=2)
