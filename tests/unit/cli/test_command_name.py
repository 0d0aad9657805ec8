"""The name of the command in what it suggests to do next."""

import sys
from pathlib import Path

import pytest

from distributed_pg.cli.console import command_name


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command in an environment."""
    program = tmp_path / "bin" / "distributed-pg"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    return program


def test_the_bare_name_where_the_path_finds_this_command(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(program.parent))
    assert command_name() == "distributed-pg"


def test_the_whole_path_where_it_finds_none_or_another(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command_name() == str(program)
    (tmp_path / "distributed-pg").touch(0o755)
    assert command_name() == str(program)


def test_a_module_is_run_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/distributed_pg/__main__.py"])
    assert command_name() == "python -m distributed_pg"
