"""The terminal's curve, against dots counted by hand."""

from hypothesis import given
from hypothesis import strategies as st

from distributed_pg.monitoring.braille import curve

numbers = st.floats(-1e6, 1e6)


def dots(lines: list[str]) -> set[tuple[int, int]]:
    """(column, row from the top) of each dot, as Unicode numbers them."""
    order = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3)]
    return {
        (2 * x + dx, 4 * y + dy)
        for y, line in enumerate(lines)
        for x, character in enumerate(line)
        for bit, (dx, dy) in enumerate(order)
        if (ord(character) - 0x2800) >> bit & 1
    }


def test_a_rising_line_by_hand() -> None:
    assert curve([0, 1, 2, 3], width=2, height=1, low=0, high=3) == ["⡠⠊"]


def test_a_jump_is_drawn_without_a_hole() -> None:
    assert curve([0, 3], width=1, height=1, low=0, high=3) == ["⡸"]


def test_more_values_than_dots_are_averaged() -> None:
    assert dots(curve([0, 2, 3, 3], width=1, height=1, low=0, high=3)) == {
        *((0, 2), (1, 1), (1, 0))
    }


@given(st.lists(numbers, min_size=1, max_size=300), st.integers(1, 40), st.integers(1, 8))
def test_it_fits_its_frame_and_has_a_dot_in_every_column(
    values: list[float], width: int, height: int
) -> None:
    lines = curve(values, width, height, low=-21, high=21)
    assert [len(line) for line in lines] == [width] * height
    drawn = dots(lines)
    assert {x for x, _ in drawn} == set(range(min(len(values), 2 * width)))
    assert all(0 <= y < 4 * height for _, y in drawn)
