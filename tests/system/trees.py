"""Proof: Open-Assistant's trees come in fast, word for word, and go out again without loss.

``python -m tests.system.trees [--file trees.jsonl] [--runs 5] [--json]``

Each run imports the file into a fresh library and measures it; texts, roles, ranks and the order of
the replies are compared with the file, the export with the file's own objects, and a second import
must add nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from desktop_app.conversation.document import Conversation
from desktop_app.exchange import export, imports
from desktop_app.paths import Profile
from desktop_app.storage import Library

SHARED = Path(__file__).resolve().parents[3] / "shared" / "oasst" / "en_100_tree.jsonl"


def differences(conversation: Conversation, prompt: dict[str, Any]) -> int:
    """How many messages of a tree differ from the file in text, role, rank or order."""
    tree = conversation.tree
    wrong = 0
    todo = [(tree.children(None), [prompt])]
    while todo:
        here, there = todo.pop()
        wrong += abs(len(here) - len(there))
        for node_id, row in zip(here, there, strict=False):
            node = tree.node(node_id)
            role = "prompter" if node.role.value == "user" else node.role.value
            same = (tree.text(node_id), role, node.marks.get("rank")) == (
                row["text"], row["role"], row.get("rank"),
            )  # fmt: skip
            wrong += not same
            todo.append((tree.children(node_id), row.get("replies") or []))
    return wrong


def run(file: Path, lines: list[dict[str, Any]], folder: Path) -> tuple[float, list[str]]:
    """Seconds of one import, and what was wrong."""
    problems = []
    library = Library.open(Profile(folder / "profile"))
    try:
        began = time.perf_counter()
        report = imports.read_into(library, file)
        took_s = time.perf_counter() - began
        if report.added != len(lines):
            problems.append(f"{report.added} of {len(lines)} chats were added")
        for chat_id, line in zip(report.chat_ids, lines, strict=False):
            wrong = differences(library.load(chat_id).result(), line["prompt"])
            if wrong:
                problems.append(f"{wrong} messages of {line['message_tree_id']} differ")
        out = folder / "out.jsonl"
        export.write(library, out, report.chat_ids, form="oasst")
        again = [json.loads(text) for text in out.read_text(encoding="utf-8").splitlines()]
        if again != lines:
            problems.append("the export differs from the file")
        if imports.read_into(library, file).added:
            problems.append("a second import added something")
    finally:
        library.close()
    return took_s, problems


def main() -> int:
    """Print N, the median, and what was lost."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--file", type=Path, default=SHARED)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="nothing here is random")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not args.file.exists():
        print(f"There is no file {args.file}; name one with --file.", file=sys.stderr)
        return 2
    lines = [json.loads(text) for text in args.file.read_text(encoding="utf-8").splitlines()]
    times: list[float] = []
    problems: list[str] = []
    for _ in range(args.runs):
        with tempfile.TemporaryDirectory(prefix="grove-trees-") as folder:
            took_s, wrong = run(args.file, lines, Path(folder))
        times.append(took_s)
        problems += wrong
    result = {
        "trees": len(lines),
        "runs": args.runs,
        "import_s_median": round(statistics.median(times), 3),
        "import_s_worst": round(max(times), 3),
        "problems": problems,
    }
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        print(
            f"{len(lines)} trees, N = {args.runs}: import {result['import_s_median']} s (median), "
            f"{result['import_s_worst']} s (worst), {len(problems)} problems"
        )
        for problem in problems:
            print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
