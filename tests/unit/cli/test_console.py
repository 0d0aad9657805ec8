"""The console of the commands."""

import pytest

from distributed_pg.cli.console import console


@pytest.mark.parametrize(
    ("variable", "flag", "no_color"),
    [("", None, False), ("", True, True), ("1", None, True)],
)
def test_no_colours_where_the_flag_or_the_environment_wants_none(
    monkeypatch: pytest.MonkeyPatch, variable: str, flag: bool | None, no_color: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", variable)
    assert console(no_color=flag).no_color == no_color
