"""Which of a raylet's children are its agents; the rest are workers."""

import pytest

from distributed_pg.runtime.health import is_agent

RAY = "/venv/lib/python3.11/site-packages/ray"


@pytest.mark.parametrize(
    ("command", "agent"),
    [
        (["python", "-u", f"{RAY}/dashboard/agent.py", "--node-id=1"], True),
        (["python", "-u", f"{RAY}/_private/runtime_env/agent/main.py", "--node-id=1"], True),
        (["python.exe", "-u", r"C:\ray\dashboard\agent.py"], True),
        (["ray::DashboardAgent"], True),
        (["ray::RuntimeEnvAgent"], True),
        (["ray::RuntimeEnvAgent", "", ""], True),
        (
            [
                *("python", f"{RAY}/_private/workers/default_worker.py"),
                *("--metrics-agent-port=1", "--runtime-env-agent-port=2", "--temp-dir=/tmp/Agent"),
            ],
            False,
        ),
        (["ray::RolloutWorker.play"], False),
        (["ray::DQNAgent"], False),  # an actor of another user of the cluster
        (["ray::IDLE"], False),
        ([], False),
    ],
)
def test_agents_are_told_from_workers(command: list[str], agent: bool) -> None:
    assert is_agent(command) is agent
