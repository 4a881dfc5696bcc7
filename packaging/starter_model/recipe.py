"""The whole recipe: corpus, tokenizer, training, conversion. Stops and goes on at any time."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: shares the cores politely

import numpy as np
from convert import convert
from corpus import Corpus
from encoding import Examples, make_examples, shortened, train_tokenizer
from network import Shape
from train import Plan, Trainer

ROOT = Path(__file__).resolve().parents[2]


def load_examples(folder: Path, seed: int, count: int) -> Examples:
    """The encoded conversations, made on the first call and kept in the folder."""
    path = folder / f"examples-{seed}-{count}.npz"
    if not path.exists():
        print(f"encoding {count} conversations", flush=True)
        made = make_examples(seed, folder / "tokenizer.model", count)
        part = folder / "examples.part.npz"
        np.savez(part, tokens=made.tokens, weights=made.weights, labels=made.labels,
                 starts=made.starts)  # fmt: skip
        part.replace(path)
    with np.load(path) as kept:
        return Examples(kept["tokens"], kept["weights"], kept["labels"], kept["starts"])


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of the recipe."""
    usual = Plan()
    parser = argparse.ArgumentParser(prog="build", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "resources" / "weights" / "starter.gguf")
    parser.add_argument("--work", type=Path, default=ROOT / ".build" / "starter",
                        help="where tokenizer, examples and checkpoint live")  # fmt: skip
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--conversations", type=int, default=440_000)
    parser.add_argument("--steps", type=int, default=usual.steps)
    options = parser.parse_args(argv)
    folder: Path = options.work
    folder.mkdir(parents=True, exist_ok=True)
    corpus = Corpus(options.seed)
    tokenizer = folder / "tokenizer.model"
    if not tokenizer.exists():
        print("training the tokenizer", flush=True)
        train_tokenizer(corpus, tokenizer, Shape().vocabulary)
    examples = shortened(load_examples(folder, options.seed, options.conversations), options.seed)
    plan = Plan(options.seed, options.steps)
    trainer = Trainer(Shape(), len(corpus.labels), plan, folder)
    resumed = trainer.resume()
    count = trainer.net.parameter_count()
    print(f"{'going on' if resumed else 'training'}: {count} parameters", flush=True)
    trainer.run(examples)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    convert(folder / "checkpoint.pt", tokenizer, options.out)
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
