"""The evaluation of the starter weights, as it is run by hand: with the app's own engine."""

import subprocess
import sys
from pathlib import Path

EVALUATE = Path(__file__).resolve().parents[2] / "packaging" / "starter_model" / "evaluate"


def evaluate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EVALUATE), *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def test_shares_failures_and_exit_status(tmp_path: Path) -> None:
    questions = tmp_path / "mine.txt"
    questions.write_text(
        "in :: hello :: Grove|hello|hi\nin :: hello :: a term that no reply has\n"
        "two :: hello >> thanks :: welcome|glad|happy|pleasure\n",
        encoding="utf-8",
    )
    done = evaluate("--questions", str(questions), "--seeds", "1", "--odd", "3")
    assert done.returncode == 1, done.stderr
    assert "temperature 0: 1 of 2, 50.0 % (target 90 %)  MISSED" in done.stdout
    assert "[in, seed 1] hello" in done.stdout
    assert "must:  a term that no reply has" in done.stdout
    assert "odd inputs (3)" in done.stdout
    brief = evaluate("--questions", str(questions), "--seeds", "0", "--odd", "0", "--brief")
    assert "1 of 2" in brief.stdout
    assert "hello" not in brief.stdout


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_text("what is this?\n", encoding="utf-8")
    done = evaluate("--questions", str(bad))
    assert done.returncode == 2
    assert "bad.txt, line 1" in done.stderr
    done = evaluate("--weights", str(tmp_path / "none.gguf"), "--seeds", "0")
    assert done.returncode == 2
    assert "none.gguf" in done.stderr
