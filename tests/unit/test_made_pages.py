"""The parts of the documentation that scripts make are those of today's code."""

import dataclasses
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import docs_drawings
import docs_pages
import pytest
from command import ROOT

from distributed_pg.config import TrainConfig
from distributed_pg.storage.metrics import UpdateRecord

DOCS = ROOT / "docs"


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_a_page_is_up_to_date(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert docs_pages.with_parts(text) == text, "run scripts/docs_pages.py"


@pytest.mark.parametrize(("name", "draw"), docs_drawings.DRAWINGS.items())
def test_a_drawing_is_up_to_date(name: str, draw: Callable[[], str]) -> None:
    drawn = (DOCS / "images" / name).read_text(encoding="utf-8")
    assert drawn == draw(), "run scripts/docs_drawings.py"


@pytest.mark.parametrize(
    ("page", "kind", "row"),
    [
        ("settings.md", TrainConfig, r"^\| `--(?:no-)?([a-z-]+)` \|"),
        ("training.md", UpdateRecord, r"^\| `(\w+)` \|"),
    ],
)
def test_each_field_has_a_row(page: str, kind: type, row: str) -> None:
    rows = re.findall(row, (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    names = [field.name for field in dataclasses.fields(kind)]
    assert {name.replace("-", "_") for name in rows} >= set(names)


def test_a_row_says_values_and_default() -> None:
    text = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert (
        "| `--batch-size` | Episodes summed in one update.<br>"
        "(whole number from 1 to 100000; default: `1`) |\n"
    ) in text
    assert "<br>(`mean`, `learned`; default: `learned`) |\n" in text
    assert "| `--resume` | Resume the run in this folder" in text
    assert "| 130 | Ctrl-C ended a command that does not save |\n" in text


def test_with_a_lag_nobody_waits() -> None:
    """As the drawing says; and with none, somebody does."""
    waits = [[], []]  # type: list[list[float]]
    for lag in (0, 1):
        games, _ = docs_drawings.played(lag)
        for worker in range(docs_drawings.WORKERS):
            own = [game for game in games if game.worker == worker]
            waits[lag] += [b.begin - a.end for a, b in pairwise(own)]
    assert max(waits[0]) > 0
    assert waits[1]
    assert max(waits[1]) == 0


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(KeyError, match="weather"):
        docs_pages.with_parts("<!-- weather: made by scripts/docs_pages.py -->\n<!-- end -->")
