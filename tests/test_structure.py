"""Promises about the package as a whole."""

import os
import subprocess
import sys

import pytest

from distributed_pg.cli import COMMANDS
from distributed_pg.kernels import kernel_environment, on_x86

PURE = (
    *("cli", "config", "env", "policy", "returns", "rollout", "optimizer", "schedule", "state"),
    *("cluster", "dispatch", "learner", "checkpoint", "run_dir", "run_writer", "display"),
    *("versions", "worker", "terminal", "sinks", "trained_policy", "watch", "plot"),
    *(f"commands.{name}" for name in COMMANDS),
)


def python(code: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


@pytest.mark.parametrize("module", PURE)
def test_the_pure_part_does_not_import_ray(module: str) -> None:
    assert python(f"import sys, distributed_pg.{module}; print('ray' in sys.modules)") == "False"


def test_the_command_line_does_not_load_numpy_before_it_is_needed() -> None:
    """Or the kernels could not be chosen any more, and --help would be slow."""
    assert python("import sys, distributed_pg.cli; print('numpy' in sys.modules)") == "False"


def test_the_command_line_holds_nothing_to_kernels_when_it_is_only_imported() -> None:
    # So it is by the benchmark's processes: those of the classic way may use all of the CPU.
    code = (
        "import os; from distributed_pg.kernels import kernel_environment as held;"
        "[os.environ.pop(name, None) for name in held()]; import distributed_pg.cli;"
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
