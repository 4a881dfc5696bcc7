"""The evaluation: hand-written questions at temperature 0 and over seeds, and odd inputs."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from guide import DEFAULT, GREEDY, Guide
from odd import odd_inputs
from questions import Question, read_questions

from desktop_app.errors import KnownError
from desktop_app.inference.sampling import Sampling

HERE = Path(__file__).resolve().parent
WEIGHTS = HERE.parents[1] / "resources" / "weights" / "starter.gguf"
FIRST = [HERE / "questions" / f"{name}.txt" for name in ("in_field", "out_of_field", "two_turn")]
# Checks on the first set: whoever widens the phrases must not read them.
BLIND = [[HERE / "questions" / "second.txt"], [HERE / "questions" / "third.txt"]]
TITLES = {"in": "inside the field", "out": "outside, declined", "two": "second turns"}
# Shares that must pass, at temperature 0 and over the seeds.
TARGETS = {"in": (0.90, 0.85), "out": (0.90, 0.85), "two": (0.80, 0.75)}
ODD_TARGET = 0.98
TOKEN_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Asked:
    """One question with the reply that was judged."""

    question: Question
    reply: str
    passed: bool
    seed: int


def ask(guide: Guide, question: Question, preset: Sampling, seed: int) -> Asked:
    """Ask a question, turn after turn, and judge the last reply."""
    replies: list[str] = []
    for turn in range(len(question.turns)):
        replies.append(
            guide.reply(question.turns[: turn + 1], replies, preset=preset, seed=seed).text
        )
    return Asked(question, replies[-1], question.passed(replies[-1]), seed)


def _print_share(title: str, results: Sequence[Asked], target: float) -> bool:
    good = sum(r.passed for r in results)
    met = good >= target * len(results)
    share = 100 * good / len(results)
    print(f"  {title}: {good} of {len(results)}, {share:.1f} % (target {100 * target:.0f} %)"
          f"{'' if met else '  MISSED'}")  # fmt: skip
    return met


def _print_failures(results: Sequence[Asked]) -> None:
    for result in results:
        if not result.passed:
            question = result.question
            print(f"    [{question.kind}, seed {result.seed}] {' >> '.join(question.turns)}")
            print(f"      reply: {result.reply}")
            wanted = "; ".join(" | ".join(terms) for terms in question.must)
            if wanted:
                print(f"      must:  {wanted}")


def run_questions(
    guide: Guide, questions: Sequence[Question], seeds: Sequence[int], *, brief: bool = False
) -> bool:
    """Ask everything, print shares and, unless brief, failures; True when all targets are met."""
    groups: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        groups[question.kind].append(question)
    met = True
    for kind, members in groups.items():
        print(f"{TITLES[kind]} ({len(members)})")
        greedy = [ask(guide, q, GREEDY, 1) for q in members]
        sampled = [ask(guide, q, DEFAULT, seed) for seed in seeds for q in members]
        met &= _print_share("temperature 0", greedy, TARGETS[kind][0])
        if seeds:
            met &= _print_share(f"default preset, {len(seeds)} seeds", sampled, TARGETS[kind][1])
            texts = {(r.question.turns, r.reply) for r in sampled}
            print(f"  different replies a question: {len(texts) / len(members):.1f}")
        if brief:
            continue
        print("  failures at temperature 0:")
        _print_failures(greedy)
        known = {r.question for r in greedy if not r.passed}
        print("  failures only with a seed:")
        _print_failures([r for r in sampled if r.question not in known])
    return met


def run_odd(guide: Guide, count: int, seed: int) -> bool:
    """Send odd inputs at the default preset; True when enough replies end by themselves."""
    inputs = odd_inputs(count, seed)
    ended = 0
    print(f"odd inputs ({len(inputs)})")
    for number, text in enumerate(inputs):
        reply = guide.reply([text], seed=seed + number, preset=DEFAULT, limit=TOKEN_LIMIT)
        ended += reply.ended
        if not reply.ended:
            print(f"    no end in {TOKEN_LIMIT} tokens: {text[:60]!r} -> {reply.text[:80]!r}")
    share = ended / max(1, len(inputs))
    met = share >= ODD_TARGET
    print(f"  ended by themselves: {ended} of {len(inputs)}, {100 * share:.1f} % "
          f"(target {100 * ODD_TARGET:.0f} %){'' if met else '  MISSED'}")  # fmt: skip
    return met


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 0 when every target is met, 1 when one is missed."""
    parser = argparse.ArgumentParser(prog="evaluate", description=__doc__)
    parser.add_argument("--questions", type=Path, action="append", metavar="FILE",
                        help="a question file, instead of those that come along")  # fmt: skip
    parser.add_argument("--brief", action="store_true",
                        help="shares only, so that a file stays blind")  # fmt: skip
    parser.add_argument(
        "--seeds", type=int, default=5, metavar="N", help="seeds at the default preset"
    )
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, metavar="FILE")
    parser.add_argument("--odd", type=int, default=500, metavar="N", help="how many odd inputs")
    options = parser.parse_args(argv)
    sets = [[file] for file in options.questions or ()] or [FIRST, *BLIND]
    try:
        asked = [[q for file in files for q in read_questions(file)] for files in sets]
        guide = Guide(options.weights)
    except (OSError, ValueError, KnownError) as error:
        parser.exit(2, f"evaluate: {error}\n")
    seeds = range(options.seed, options.seed + options.seeds)
    met = True
    for files, questions in zip(sets, asked, strict=True):
        print(f"== {', '.join(file.name for file in files)}")
        met &= run_questions(guide, questions, seeds, brief=options.brief or files in BLIND)
    if options.odd:
        met &= run_odd(guide, options.odd, options.seed)
    guide.close()
    print("all targets met" if met else "a target was missed")
    return 0 if met else 1
