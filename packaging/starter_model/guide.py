"""Asking the finished weights through llama.cpp, as the app's engine does: for the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import llama_cpp

PROMPTER, ASSISTANT = "<|prompter|>", "<|assistant|>"


@dataclass(frozen=True, slots=True)
class Preset:
    """Sampler options; the defaults are those of the app's default preset."""

    temperature: float = 0.7
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05


GREEDY = Preset(temperature=0.0)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, whether it ended by itself, and how many tokens it took."""

    text: str
    ended: bool
    tokens: int


class Guide:
    """The loaded weights."""

    def __init__(self, path: Path, context_length: int = 12288, threads: int = 1) -> None:
        """Load path; raises ValueError when llama.cpp cannot."""
        self._llama = llama_cpp.Llama(
            str(path), n_ctx=context_length, n_threads=threads, n_threads_batch=threads,
            n_gpu_layers=0, verbose=False,
        )  # fmt: skip
        self.context_length = context_length
        self._prompter, self._assistant = (
            self.tokens(marker, special=True)[0] for marker in (PROMPTER, ASSISTANT)
        )
        self._end = self._llama.token_eos()

    def tokens(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of a text; control tokens are read as such only when special."""
        if not text:
            return []
        return list(self._llama.tokenize(text.encode("utf-8"), add_bos=False, special=special))

    def text(self, tokens: Sequence[int]) -> str:
        """The text of token ids."""
        found = self._llama.detokenize(list(tokens))
        return bytes(found).decode("utf-8", errors="replace").strip()

    def prompt(self, asked: Sequence[str], replies: Sequence[str]) -> list[int]:
        """Token ids of a conversation up to where the next reply starts."""
        ids: list[int] = []
        for number, text in enumerate(asked):
            ids += [self._prompter, *self.tokens(text), self._end, self._assistant]
            if number < len(replies):
                ids += [*self.tokens(replies[number]), self._end]
        return ids

    def reply(self, asked: Sequence[str], replies: Sequence[str] = (), *, preset: Preset = GREEDY,
              seed: int = 1, limit: int = 200) -> Reply:  # fmt: skip
        """The reply to the last of asked; raises ValueError when it does not fit the context."""
        prompt = self.prompt(asked, replies)
        if len(prompt) + limit > self.context_length:
            raise ValueError(f"{len(prompt)} tokens do not fit the context")
        self._llama.set_seed(seed)
        out: list[int] = []
        for token in self._llama.generate(
            prompt, temp=preset.temperature, top_k=preset.top_k, top_p=preset.top_p,
            min_p=preset.min_p, repeat_penalty=1.0, reset=True,
        ):  # fmt: skip
            if token == self._end or len(out) >= limit:
                return Reply(self.text(out), token == self._end, len(out))
            out.append(int(token))
        return Reply(self.text(out), False, len(out))

    def close(self) -> None:
        """Free the weights."""
        self._llama.close()
