"""Steps of reading: about a moment long, in whole tiles, and never as long as a slow machine's."""

from __future__ import annotations

import pytest

from desktop_app.inference.pacing import Pace


def pace(tokens_per_s: float) -> Pace:
    made = Pace(512)
    for _ in range(20):
        made.took(128, 128 / tokens_per_s)
    return made


@pytest.mark.parametrize(
    ("tokens_per_s", "alone", "shared"),
    [(2, 64, 23), (50, 64, 23), (70, 64, 63), (100, 128, 63), (137, 128, 63), (5000, 512, 511)],
)
def test_steps_are_whole_tiles_unless_that_takes_too_long(
    tokens_per_s: float, alone: int, shared: int
) -> None:
    made = pace(tokens_per_s)
    assert made.tokens(0) == alone
    assert made.tokens(1) == shared


def test_a_fresh_engine_begins_carefully() -> None:
    assert Pace(512).tokens(0) == 64
    assert Pace(512).tokens(3) == 21


@pytest.mark.parametrize(
    ("left", "wanted", "room", "size"),
    [
        (50, 128, 512, 50),
        (150, 128, 512, 150),  # 22 alone would be read row by row
        (191, 128, 512, 191),
        (192, 128, 512, 128),
        (150, 128, 140, 140),
        (4000, 128, 512, 128),
        (40, 23, 512, 23),  # a slow machine: no step is stretched
        (600, 512, 500, 500),
    ],
)
def test_a_small_rest_comes_along(left: int, wanted: int, room: int, size: int) -> None:
    assert Pace.piece(left, wanted, room) == size
