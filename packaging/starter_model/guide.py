"""Asking the finished weights through the app's own engine: for the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from desktop_app.inference.engine import Engine
from desktop_app.inference.protocol import (
    ChatMessage,
    Event,
    GenerateRequest,
    Piece,
    WeightsSpec,
)
from desktop_app.inference.sampling import PRESETS, Sampling

DEFAULT = PRESETS["balanced"]
GREEDY = PRESETS["likeliest"]
# A loading or a reply takes a second at most; a machine with much else to do has this long.
PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, whether it ended by itself, and how many tokens it took."""

    text: str
    ended: bool
    tokens: int


class Guide:
    """The loaded weights, in the child process that the app uses."""

    def __init__(self, path: Path, context_length: int = 12288, threads: int = 1) -> None:
        """Load path; raises KnownError when the engine cannot."""
        self._engine = Engine()
        spec = WeightsSpec(str(path), context_length=context_length, threads=threads)
        try:
            self._engine.load(spec).done.result(PATIENCE_S)
        except BaseException:
            self._engine.close()
            raise

    def reply(self, asked: Sequence[str], replies: Sequence[str] = (), *,
              preset: Sampling = GREEDY, seed: int = 1, limit: int = 200) -> Reply:  # fmt: skip
        """The reply to the last of asked; raises KnownError when the prompt is too long."""
        messages: list[ChatMessage] = []
        for number, text in enumerate(asked):
            messages.append(ChatMessage("user", text))
            if number < len(replies):
                messages.append(ChatMessage("assistant", replies[number]))
        pieces: list[str] = []

        def hear(event: Event) -> None:
            if isinstance(event, Piece):
                pieces.append(event.text)

        sampling = replace(preset, seed=seed, max_tokens=limit)
        job = self._engine.generate(GenerateRequest(tuple(messages), sampling), hear)
        (finished,) = job.done.result(PATIENCE_S)
        return Reply(
            "".join(pieces).strip(),
            finished.finish == "stop",
            finished.counters.generated_tokens,
        )

    def close(self) -> None:
        """End the engine's child."""
        self._engine.close()
