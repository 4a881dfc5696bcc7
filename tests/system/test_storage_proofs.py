"""Small rounds of the storage proofs; the scripts beside this file run the large ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system import disk_full, edits, power_cuts


def test_random_edits_reopened_undone_and_redone(tmp_path: Path) -> None:
    figures = edits.run(tmp_path, seed=11, n=150, chats=3, reopen=0.01)
    assert figures["steps_undone_and_redone"] > 100
    assert figures["states_compared_while_undoing"] > 100


# SQLite forgives a checkpoint that fails by itself after a commit; apsw then has nowhere to raise
# what our disk raised.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", sorted(disk_full.ERRORS))
def test_single_writes_that_fail(error: str) -> None:
    figures = disk_full.run(seed=2, every=41, error=error)
    assert figures["runs"] >= 10


@pytest.mark.expects_log  # a database whose disk is off cannot be closed in silence
def test_power_cuts() -> None:
    figures = power_cuts.run(seed=5, n=12)
    assert figures["with_acknowledged_steps_at_stake"] >= 6
