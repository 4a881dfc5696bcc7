"""What a screen reader finds in the window, where the machine has one's programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.accessible_walk import missing, nameless, walked, with_chat


def test_every_control_has_a_name_and_an_identifier(tmp_path: Path) -> None:
    if lacking := missing():
        pytest.skip(f"{lacking} is not installed")
    with_chat(tmp_path)
    found = walked(tmp_path)
    assert len(found) > 10
    assert not nameless(found)
