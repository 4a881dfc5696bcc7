"""A day in the window from outside, where the machine has a display's and a reader's programs."""

from __future__ import annotations

import pytest

from tests.system.reader import told_from_outside


@pytest.mark.timeout(240)
def test_a_day_in_the_window_and_a_restart() -> None:
    seen = told_from_outside("tests.system.window_day", "--json", timeout_s=220)
    assert seen["versions"] == 3
    assert seen["undone"] == seen["redone"] >= 8
    assert seen["status"] == 0
    assert seen["in_view"] >= 1
