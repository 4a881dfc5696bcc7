"""What a screen reader finds in the windows, where the machine has one's programs."""

from __future__ import annotations

import pytest

from tests.system.reader import told_from_outside


@pytest.mark.timeout(150)
def test_every_control_has_a_name_an_identifier_and_tab() -> None:
    seen = told_from_outside("tests.system.accessible_walk", "--json", timeout_s=140)
    assert seen["failing"] == []
    assert len(seen["controls"]) == 13
    assert sum(seen["controls"].values()) > 90
