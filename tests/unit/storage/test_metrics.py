"""The lines of metrics.jsonl are read but for one that is cut."""

from pathlib import Path

import pytest

from distributed_pg.storage.metrics import read_metrics


@pytest.mark.parametrize(
    ("content", "updates"),
    [
        (b"", []),
        (b'{"update": 1}\n{"update": 2}\n', [1, 2]),
        (b'{"update": 1}\n{"upd', [1]),
        (b'{"update": 1', []),
    ],
)
def test_a_line_that_is_cut_is_left_out(tmp_path: Path, content: bytes, updates: list[int]) -> None:
    (tmp_path / "m").write_bytes(content)
    assert [line["update"] for line in read_metrics(tmp_path / "m")] == updates


def test_a_file_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "m") == []
