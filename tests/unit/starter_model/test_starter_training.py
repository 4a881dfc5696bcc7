"""The recipe repeats itself: the same seed gives the same bytes and, step by step, the same loss.

These need what the recipe needs (SentencePiece, PyTorch), which the app's environment does not
have; they run in the recipe's own (see its README) and are skipped elsewhere.
"""

from pathlib import Path

import pytest
from corpus import Corpus

sentencepiece = pytest.importorskip("sentencepiece", reason="the recipe's environment is not here")

VOCABULARY = 900


def tokenizer_of(folder: Path, seed: int) -> Path:
    from encoding import train_tokenizer

    folder.mkdir()
    path = folder / "tokenizer.model"
    train_tokenizer(Corpus(seed), path, VOCABULARY, dialogues=300)
    return path


def test_same_seed_same_tokenizer_and_examples(tmp_path: Path) -> None:
    from encoding import make_examples

    first = tokenizer_of(tmp_path / "a", 1)
    second = tokenizer_of(tmp_path / "b", 1)
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes() != tokenizer_of(tmp_path / "c", 2).read_bytes()
    one = make_examples(1, first, 60, workers=1)
    two = make_examples(1, second, 60, workers=2)
    for name in ("tokens", "weights", "labels", "starts"):
        assert getattr(one, name).tobytes() == getattr(two, name).tobytes(), name


def test_same_seed_same_loss_also_when_taken_up_again(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the recipe's environment is not here")
    from encoding import make_examples, shortened
    from network import Shape
    from train import Plan, Trainer

    threads = torch.get_num_threads()
    tokenizer = tokenizer_of(tmp_path / "t", 1)
    examples = shortened(make_examples(1, tokenizer, 400, workers=1), 1)
    shape = Shape(vocabulary=VOCABULARY, width=64, layers=2, heads=2, kv_heads=1, inner=96)

    def weights_after(name: str, *stops: int) -> dict[str, object]:
        folder = tmp_path / name
        folder.mkdir()
        for stop in stops:
            plan = Plan(steps=stop, batch_tokens=600, warmup=4, cooldown=1)
            trainer = Trainer(shape, len(Corpus(1).labels), plan, folder)
            trainer.resume()
            trainer.run(examples, save_every_s=0.0)
        return dict(trainer.average)

    try:
        once, again = weights_after("once", 20), weights_after("again", 20)
        resumed = weights_after("resumed", 9, 20)
    finally:
        torch.set_num_threads(threads)
    assert set(once) == set(again) == set(resumed)
    for name, value in once.items():
        assert torch.equal(value, again[name]), name
        assert torch.equal(value, resumed[name]), name
