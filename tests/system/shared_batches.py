"""Replies that share batches, and text that is read ahead, on real llama.cpp at random.

    python -m tests.system.shared_batches [--kind llama|window|mamba] [--count N] [--seed N]

makes tiny random weights and a context that is too small for all.  Requests of several chats begin,
are cancelled in mid-step, fill the cells, and some hold a token that does not exist, so that
llama.cpp refuses the whole batch; between them text is typed, read ahead, changed, erased and sent.

Every reply that was written is then read by an empty context, token by token: each must have been
its first choice, but for EPSILON (see `branch_cache`).  So a reply that saw a token of another
chat, of an aborted step or of unsent text is seen.  Text that was typed and never sent is made of
tokens of its own: none of them may ever stand in a parked block, in memory or on disk.  Prints
one JSON object; the exit status is 1 on any miss.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from desktop_app.inference import llama
from desktop_app.inference.branches import Branches
from desktop_app.inference.context import Batch, Context, Outcome
from desktop_app.inference.parked_files import read_header
from desktop_app.inference.parking import Parking
from desktop_app.inference.protocol import Event, Failed, Finished, GenerateRequest, HasRead
from desktop_app.inference.reading_ahead import AheadPlan
from desktop_app.inference.sampling import Sampling
from desktop_app.inference.writer import Prepared, Writer
from tests.fakes import tiny_gguf
from tests.system.branch_cache import EPSILON

LENGTH = 512
WORDS = range(280, 400)
SECRET = range(400, 438)
"""Tokens of what is typed and never sent."""
POISON = 1_000_000
"""No token: llama.cpp refuses a batch with it."""
LONGEST_REPLY = 10


def threes(tokens: Sequence[int]) -> set[tuple[int, ...]]:
    """All runs of three tokens."""
    return {tuple(tokens[at : at + 3]) for at in range(len(tokens) - 2)}


class Touchy(Context):
    """A context whose next step is aborted where that is wanted."""

    stop_next = False

    def decode(self, batch: Batch) -> Outcome:
        if Touchy.stop_next:
            Touchy.stop_next = False
            self.abort(on=True)
        return super().decode(batch)


class Stage:
    """A writer with everything around it, and what became of its requests."""

    def __init__(self, kind: tiny_gguf.Kind, seed: int, folder: Path) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        path = tiny_gguf.write(folder / "weights.gguf", kind, seed=seed)
        self.weights = llama.Weights(str(path), gpu_layers=0)
        self.context = self._make(Touchy)
        self.fresh = self._make(Context)
        self.parking = Parking("t", memory_bytes=1 << 30, folder=folder, disk_bytes=1 << 30)
        self.branches = Branches(
            self.context,
            self.parking,
            can_roll_back=not self.weights.recurrent,
            window=self.weights.window,
        )
        self.writer = Writer(
            self.context, self.weights.vocabulary, self.branches, self._heard, facts={}
        )
        self.number = 0
        self.worst = 0.0
        self.prompts: dict[int, tuple[int, ...]] = {}
        self.open: dict[int, int] = {}
        self.chats: dict[str, list[int]] = {name: self.words(20) for name in "abcde"}
        self.typed: tuple[str, list[int]] | None = None
        self.counts = dict.fromkeys(
            ("asked", "finished", "cancelled", "refused", "overflow", "tokens", "wrong", "leaked"),
            0,
        )
        self.ahead = dict.fromkeys(("asked", "read", "sent", "sent_kept"), 0)
        self.sent: dict[int, int] = {}
        self.secrets: set[tuple[int, ...]] = set()
        self.replied: set[tuple[int, ...]] = set()

    def _make(self, kind: type[Context]) -> Context:
        return kind(
            self.weights,
            length=LENGTH,
            sequences=6,
            threads=1,
            kv_type="f16",
            batch=512,
            offload=False,
        )

    def words(self, count: int, among: range = WORDS) -> list[int]:
        """Random tokens."""
        return [self.random.choice(among) for _ in range(count)]

    # --- what the writer tells -----------------------------------------------------------------

    def _heard(self, job: int, event: Event) -> None:
        if isinstance(event, HasRead):
            self.ahead["read"] += event.read
        elif isinstance(event, Failed):
            self.open.pop(job)
            self.counts["refused"] += 1
            if POISON not in self.prompts[job]:
                self.counts["wrong"] += 1
        elif isinstance(event, Finished):
            self.open[job] -= 1
            if not self.open[job]:
                del self.open[job]
            self._ended(job, event)

    def _ended(self, job: int, event: Finished) -> None:
        self.counts["cancelled" if event.finish == "cancelled" else "finished"] += 1
        self.counts["overflow"] += event.finish == "overflow"
        self.counts["wrong"] += POISON in self.prompts[job] and event.finish != "cancelled"
        if job in self.sent and event.finish != "cancelled":
            self.ahead["sent_kept"] += event.counters.kept_tokens >= self.sent[job]
            self.ahead["sent"] += 1
        prompt = list(self.prompts[job])
        if POISON in prompt:
            return
        self.replied |= threes([*prompt[-2:], *event.tokens])
        self.fresh.clear()
        batch = Batch(512)
        batch.add(prompt, 0, 0, output=True)
        assert self.fresh.decode(batch) == "done"
        for place, token in enumerate(event.tokens):
            self._check(len(batch) - 1, {token})
            batch.clear()
            batch.add([token], len(prompt) + place, 0, output=True)
            assert self.fresh.decode(batch) == "done"
            self.counts["tokens"] += 1
        if event.finish == "stop":
            self._check(len(batch) - 1, set(self.weights.vocabulary.ends_turn))

    def _check(self, index: int, chosen: set[int]) -> None:
        logits = self.fresh.logits(index)
        best = max(logits[token] for token in chosen)
        self.worst = max(self.worst, max(logits) - best)
        self.counts["wrong"] += best < max(logits) - 2 * EPSILON

    # --- what is done --------------------------------------------------------------------------

    def ask(self, chat: str, tokens: list[int], kept: int = 0) -> None:
        """A request of a chat; `kept` tokens were read ahead."""
        self.number += 1
        drafts = self.random.choice((1, 1, 2))
        sampling = Sampling(temperature=0, max_tokens=self.random.randint(1, LONGEST_REPLY))
        request = GenerateRequest(sampling=sampling, drafts=drafts, chat=chat)
        self.prompts[self.number], self.open[self.number] = tuple(tokens), drafts
        if kept:
            self.sent[self.number] = kept
        self.writer.begin(Prepared(self.number, request, tuple(tokens), time.perf_counter()))
        self.counts["asked"] += 1
        self.typed = None

    def operate(self) -> None:
        """One random act."""
        act = self.random.random()
        chat = self.random.choice("abcde")
        history = self.chats[chat]
        if act < 0.12 and len(self.open) < 4:
            size = self.random.choice((5, 30, 150, 250))
            tokens = [*history, *self.words(min(size, LENGTH - len(history) - LONGEST_REPLY - 2))]
            if self.random.random() < 0.1:
                tokens[-1] = POISON
            elif self.random.random() < 0.3 and len(tokens) < 150:
                self.chats[chat] = tokens
            self.ask(chat, tokens)
        elif act < 0.18 and self.open:
            job = self.random.choice(sorted(self.open))
            self.writer.cancel(job, self.random.choice((None, None, 0)))
            self._cancelled_in_step()
        elif act < 0.32 and not self.open:
            self._type(chat, history)
        elif act < 0.36 and self.typed is not None and not self.open:
            self._send()
        elif act < 0.38:
            self.writer.ahead.drop()
            self.typed = None
            self._nothing_private()
        elif act < 0.42:
            Touchy.stop_next = not self.weights.recurrent
        elif act < 0.44 and self.open == {}:
            self.branches.forget([chat])
        for _ in range(self.random.randint(0, 4)):
            if self.writer.active:
                self.writer.step()
            else:
                self.branches.idle_work()
        Touchy.stop_next = False

    def _cancelled_in_step(self) -> None:
        """The command may come while the step is being computed as well as before it."""
        if self.random.random() < 0.5 and self.writer.active:
            Touchy.stop_next = not self.weights.recurrent
            self.writer.step()

    def _type(self, chat: str, history: list[int]) -> None:
        """Begin to type, type on, or change one's mind."""
        if self.typed is None or self.typed[0] != chat or self.random.random() < 0.2:
            among = self.random.choice((WORDS, SECRET))
            self.typed = (chat, self.words(self.random.randint(1, 60), among))
        elif self.random.random() < 0.3:
            del self.typed[1][self.random.randrange(len(self.typed[1])) :]
        else:
            among = SECRET if self._is_secret else WORDS
            self.typed[1].extend(self.words(self.random.randint(1, 40), among))
        del self.typed[1][200:]
        self.secrets |= {three for three in threes(self.typed[1]) if set(three) <= set(SECRET)}
        self.number += 1
        tokens = (*history, *self.typed[1])
        self.ahead["asked"] += 1
        self.writer.begin_ahead(AheadPlan(self.number, tokens, len(history), chat))

    @property
    def _is_secret(self) -> bool:
        return self.typed is not None and any(token in SECRET for token in self.typed[1])

    def _send(self) -> None:
        assert self.typed is not None
        chat, words = self.typed
        if self._is_secret:
            return
        tokens = [*self.chats[chat], *words]
        if self.writer.ahead.active and self.random.random() < 0.5:
            tokens_read = 0
        else:
            while self.writer.active:
                self.writer.step()
            tokens_read = len(tokens) if words else 0
        self.ask(chat, [*tokens, *self.words(4)], tokens_read)

    def look_for_leaks(self) -> None:
        """No parked block may hold what was never sent (a reply may use the same tokens)."""
        held = [block.tokens for block in self.parking._blocks.values()]
        held += [read[2] for f in self.folder.rglob("*.blk") if (read := read_header(f))]
        self.counts["leaked"] += sum(self._is_leak(tokens) for tokens in held)

    def _nothing_private(self) -> None:
        """After a drop no branch holds it either."""
        held = (branch.tokens for branch in self.branches._branches)
        self.counts["leaked"] += sum(self._is_leak(tokens) for tokens in held)

    def _is_leak(self, tokens: Sequence[int]) -> bool:
        return not (self.secrets - self.replied).isdisjoint(threes(tokens))


def run(kind: tiny_gguf.Kind, count: int, seed: int) -> dict[str, object]:
    """`count` random acts; what came of them."""
    llama.start(_silent)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(kind, seed, Path(folder))
        for place in range(count):
            stage.operate()
            if place % 50 == 0:
                stage.look_for_leaks()
        while stage.writer.active:
            stage.writer.step()
        while stage.branches.idle_work():
            pass
        stage.look_for_leaks()
    return {
        "kind": kind,
        "seed": seed,
        "n": count,
        **stage.counts,
        "worst": round(stage.worst, 4),
        "left_open": len(stage.open),
        "ahead": stage.ahead,
        "parked_blocks": len(stage.parking._blocks),
        "seconds": round(time.monotonic() - started, 1),
    }


def _silent(_line: str) -> None:
    """llama.cpp's log is of no interest here."""


def main() -> int:
    """Run the acts and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=get_args(tiny_gguf.Kind), default="llama")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    found = run(options.kind, options.count, options.seed)
    print(json.dumps(found))
    return 1 if found["wrong"] or found["leaked"] or found["left_open"] else 0


if __name__ == "__main__":
    sys.exit(main())
