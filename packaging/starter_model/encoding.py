"""The tokenizer and the training arrays.

SentencePiece BPE with byte fallback, no normalisation and no space put before the text: the same
text gives the same tokens in llama.cpp, also right after a control token.
"""

from __future__ import annotations

import io
import itertools
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import sentencepiece
from corpus import PHRASES_DIR, Corpus, Dialogue

UNKNOWN, BEGIN, END, PROMPTER, ASSISTANT, SYSTEM = range(6)
CONTROLS = ("<|prompter|>", "<|assistant|>", "<|system|>")
# Loss weights; the rest of a conversation is not learned.
PROMPT_WEIGHT = 0.08
ANSWER_WEIGHT = 1.0
_CHUNK = 4000


def train_tokenizer(corpus: Corpus, path: Path, vocabulary: int, dialogues: int = 30000) -> None:
    """Train the tokenizer on the corpus' first conversations and write it to path."""
    # Characters that no phrase file holds come from odd input and fall back to bytes.
    written = {c for file in PHRASES_DIR.glob("*.txt") for c in file.read_text(encoding="utf-8")}
    written |= {c.upper() for c in written}
    texts: list[str] = []
    for dialogue in corpus.dialogues(dialogues):
        for turn in dialogue.turns:
            if " unclear " not in turn.label and "\n" not in turn.asked and turn.asked.strip():
                texts += (
                    [turn.asked] if len(turn.asked) < 300 and written.issuperset(turn.asked) else []
                )
            texts.append(turn.answer)
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=out, model_type="bpe", vocab_size=vocabulary,
        byte_fallback=True, character_coverage=1.0, normalization_rule_name="identity",
        add_dummy_prefix=False, remove_extra_whitespaces=False, split_digits=True,
        unk_id=UNKNOWN, bos_id=BEGIN, eos_id=END, pad_id=-1, control_symbols=list(CONTROLS),
        num_threads=2, minloglevel=2, allow_whitespace_only_pieces=False,
    )  # fmt: skip
    path.write_bytes(out.getvalue())


def load_tokenizer(path: Path) -> sentencepiece.SentencePieceProcessor:
    """The tokenizer; raises ValueError when the control tokens are not where they must be."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    if tuple(pieces.id_to_piece(i) for i in (PROMPTER, ASSISTANT, SYSTEM)) != CONTROLS:
        raise ValueError("the control tokens are not the ids 3, 4 and 5")
    return pieces


@dataclass(frozen=True, slots=True)
class Examples:
    """Conversations as tokens, one after another; starts has one more entry than conversations.

    weights hold each token's loss weight; labels hold the topic number at the token that the
    topic is read from (the assistant marker), else -1.
    """

    tokens: npt.NDArray[np.int16]
    weights: npt.NDArray[np.float16]
    labels: npt.NDArray[np.int16]
    starts: npt.NDArray[np.int64]


def loosely(
    text: str, pieces: sentencepiece.SentencePieceProcessor, rng: random.Random
) -> list[int]:
    """The tokens of a text cut at a few places, often within words.

    SentencePiece can draw segmentations itself, but its generator cannot be set to a seed for each
    conversation, and what two workers draw depends on who is faster.
    """
    cuts = {at for at in range(1, len(text)) if rng.random() < 0.08}
    marks = [0, *sorted(cuts), len(text)]
    parts = [text[start:end] for start, end in itertools.pairwise(marks)]
    return [token for part in parts for token in pieces.encode(part)]


def encode(
    dialogue: Dialogue, pieces: sentencepiece.SentencePieceProcessor, labels: dict[str, int],
    rng: random.Random,
) -> tuple[list[int], list[float], list[int]]:  # fmt: skip
    """A conversation's tokens, loss weights and topic labels in the OASST layout."""
    tokens: list[int] = []
    weights: list[float] = []
    topics: list[int] = []

    def put(ids: list[int], weight: float, topic: int = -1) -> None:
        tokens.extend(ids)
        weights.extend([weight] * len(ids))
        topics.extend([topic] * len(ids))

    if dialogue.system:
        put([SYSTEM, *pieces.encode(dialogue.system), END], 0.0)
    for turn in dialogue.turns:
        # Now and then words fall apart into smaller pieces, as typos and new words do.
        loose = rng.random() < 0.18 and len(turn.asked) < 400
        asked = loosely(turn.asked, pieces, rng) if loose else pieces.encode(turn.asked)
        put([PROMPTER], 0.0)
        # Reading questions is learned lightly and from a share: it costs a third of a step.
        learned = rng.random() < 0.35 and len(asked) < 60 and " unclear " not in turn.label
        put(asked, PROMPT_WEIGHT if learned else 0.0)
        put([END], 0.0)
        put([ASSISTANT], 0.0, labels[turn.label])
        put([*pieces.encode(turn.answer), END], ANSWER_WEIGHT)
    return tokens, weights, topics


def _encode_chunk(args: tuple[int, str, int, int]) -> tuple[bytes, bytes, bytes, list[int]]:
    seed, tokenizer, first, count = args
    corpus = Corpus(seed)
    pieces = load_tokenizer(Path(tokenizer))
    labels = {label: number for number, label in enumerate(corpus.labels)}
    rng = random.Random(f"{seed}:{first}:loose")
    tokens: list[int] = []
    weights: list[float] = []
    topics: list[int] = []
    lengths: list[int] = []
    for dialogue in corpus.dialogues(count, first):
        ids, weight, topic = encode(dialogue, pieces, labels, rng)
        tokens += ids
        weights += weight
        topics += topic
        lengths.append(len(ids))
    return (
        np.array(tokens, np.int16).tobytes(), np.array(weights, np.float16).tobytes(),
        np.array(topics, np.int16).tobytes(), lengths,
    )  # fmt: skip


def make_examples(
    seed: int, tokenizer: Path, count: int, first: int = 0, workers: int = 2
) -> Examples:
    """Encode count conversations; the same for the same arguments, whatever the workers."""
    jobs = [
        (seed, str(tokenizer), start, min(_CHUNK, first + count - start))
        for start in range(first, first + count, _CHUNK)
    ]
    with ProcessPoolExecutor(workers) as pool:
        done = list(pool.map(_encode_chunk, jobs))
    lengths = np.concatenate([np.array(d[3], np.int64) for d in done])
    return Examples(
        np.frombuffer(b"".join(d[0] for d in done), np.int16),
        np.frombuffer(b"".join(d[1] for d in done), np.float16),
        np.frombuffer(b"".join(d[2] for d in done), np.int16),
        np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
    )


def shortened(examples: Examples, seed: int, share: float = 0.65, keep: int = 7) -> Examples:
    """The same conversations, a share of them cut some tokens into the last answer.

    What a question is about shows in the first words of its answer, so that a network which
    knows the answers already sees more questions in the same time.
    """
    rng = np.random.default_rng(seed)
    stops = examples.starts[1:].copy()
    asked_at = np.flatnonzero(examples.labels >= 0)
    last_asked = asked_at[np.searchsorted(asked_at, stops) - 1]
    cut = rng.random(len(stops)) < share
    stops[cut] = np.minimum(stops[cut], last_asked[cut] + 1 + keep)
    chosen = np.zeros(len(examples.tokens) + 1, np.int8)
    np.add.at(chosen, examples.starts[:-1], 1)
    np.add.at(chosen, stops, -1)
    kept = np.cumsum(chosen[:-1]) > 0
    lengths = stops - examples.starts[:-1]
    return Examples(
        examples.tokens[kept],
        examples.weights[kept],
        examples.labels[kept],
        np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
    )
