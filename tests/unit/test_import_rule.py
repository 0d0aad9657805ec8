"""Imports between the packages go down only."""

import ast
from collections.abc import Iterator
from pathlib import Path

from distributed_pg.system_info import PACKAGE

LAYERS = (
    {"errors", "determinism", "_gymnasium"},
    {"fields", "shapes"},
    {"config", "system_info", "_extras", "own_code"},
    {"presets", "envs", "shell"},
    {"algo"},
    {"compiled", "episode"},
    {"storage"},
    {"monitoring", "viewer"},
    {"training"},
    {"runtime"},
    {"trainer", "evaluation", "benchmark", "sweep"},
    {"analysis"},
    {"cli"},
    {"__main__"},
)
"""The packages and modules at the top, each with what it may import above it in this table."""
MAY_IMPORT_RAY = {"runtime", "benchmark"}


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
