"""Promises about the package as a whole."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distributed_pg.determinism import kernel_environment, on_x86
from distributed_pg.system_info import PACKAGE

LAYERS = (
    {"errors", "determinism", "_gymnasium"},
    {"config", "system_info", "_extras", "own_code"},
    {"envs"},
    {"algo"},
    {"storage"},
    {"monitoring", "viewer"},
    {"training"},
    {"runtime"},
    {"trainer", "evaluation", "benchmark"},
    {"analysis"},
    {"cli"},
    {"__main__"},
)
"""The packages and modules at the top, each with what it may import above it in this table."""
MAY_IMPORT_RAY = {"runtime", "benchmark"}


def python(code: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def imported(file: Path) -> Iterator[str]:
    """The modules that a file imports, at its top or in a function."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            module = str(node.module)
            # A name of the package itself may be one of its modules.
            yield from (
                [f"{module}.{a.name}" for a in node.names] if module == PACKAGE.name else [module]
            )


def test_imports_go_down_only() -> None:
    floor = {name: number for number, names in enumerate(LAYERS) for name in names}
    wrong = []
    for file in sorted(PACKAGE.rglob("*.py")):
        here = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if here == "__init__":
            continue
        for module in imported(file):
            root, _, rest = module.partition(".")
            there = rest.partition(".")[0]
            allowed = root != PACKAGE.name or there in {here, "__version__"}
            if root == "ray":
                allowed = here in MAY_IMPORT_RAY
            if not allowed and floor.get(there, 99) >= floor[here]:
                wrong.append(f"{file.relative_to(PACKAGE)} imports {module}")
    assert wrong == []


def test_the_command_line_does_not_load_numpy_before_it_is_needed() -> None:
    """Or the kernels could not be chosen any more, and --help would be slow."""
    assert python("import sys, distributed_pg.cli.main; print('numpy' in sys.modules)") == "False"


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
