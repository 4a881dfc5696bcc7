"""How the next token is chosen: the options, their order, and the presets.

A `Sampling` is data; `llama.SamplerChain` turns it into llama.cpp's samplers.  Each step works on
what the step before it left, so the order matters as much as the numbers:

- ``"grove"`` (the neutral order, as llama.cpp's own tools): repetition penalty, top-k, typical,
  top-p, min-p, temperature.  The cuts see the weights' own probabilities, so a high temperature
  does not let the tail back in.
- ``"huggingface"``: repetition penalty, temperature, top-k, top-p, min-p, typical.  This is the
  order in which `transformers` builds its list in
  ``GenerationMixin._get_logits_processor`` (the penalty is a processor; then
  TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, MinPLogitsWarper,
  TypicalLogitsWarper).  Open-Assistant's presets were tuned there, and `temperature` before
  `top_p` keeps other tokens than after it.  Its penalty looks at the prompt and the reply.

The numbers of the ``oa-*`` presets are those that Open-Assistant's inference server offered
(``k50`` was its default), with at most 1,024 new tokens each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from desktop_app.errors import KnownError

Order = Literal["grove", "huggingface"]
Step = Literal["penalties", "temperature", "top_k", "top_p", "min_p", "typical_p"]

ORDERS: Final[Mapping[Order, tuple[Step, ...]]] = {
    "grove": ("penalties", "top_k", "typical_p", "top_p", "min_p", "temperature"),
    "huggingface": ("penalties", "temperature", "top_k", "top_p", "min_p", "typical_p"),
}

MAX_SEED: Final = 2**32 - 2
"""llama.cpp reads a seed of 2**32 - 1 as "pick one at random"."""

WHOLE_CONTEXT: Final = -1


@dataclass(frozen=True, slots=True)
class Sampling:
    """The options of one reply.

    `temperature` 0 always takes the likeliest token.  `top_k` 0, `top_p` 1, `min_p` 0, `typical_p`
    1 and `repetition_penalty` 1 switch the step off.  The penalty looks back over the last
    `penalty_last_n` tokens of prompt and reply together (-1: all of them, as Hugging Face does).
    `seed` None draws one, which the reply's turn facts tell.  `max_tokens` 0 writes until the
    weights end the turn or the context is full.  `stops` end the reply and are never shown.
    """

    temperature: float = 0.7
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    penalty_last_n: int = WHOLE_CONTEXT
    seed: int | None = None
    max_tokens: int = 0
    stops: tuple[str, ...] = ()
    order: Order = "grove"

    def checked(self) -> Sampling:
        """Return itself; KnownError("sampling-invalid") names the option that is out of range."""
        for name, value, low, high in (
            ("temperature", self.temperature, 0.0, 100.0),
            ("top_k", self.top_k, 0, 2**31 - 1),
            ("top_p", self.top_p, 0.0, 1.0),
            ("min_p", self.min_p, 0.0, 1.0),
            ("typical_p", self.typical_p, 0.0, 1.0),
            ("repetition_penalty", self.repetition_penalty, 0.01, 100.0),
            ("penalty_last_n", self.penalty_last_n, -1, 2**31 - 1),
            ("max_tokens", self.max_tokens, 0, 2**31 - 1),
            ("seed", 0 if self.seed is None else self.seed, 0, MAX_SEED),
        ):
            if not (math.isfinite(value) and low <= value <= high):
                raise KnownError(
                    "sampling-invalid",
                    f"The sampling option {name} must be between {low} and {high}, "
                    f"but it is {value}.",
                )
        if self.order not in ORDERS:
            raise KnownError("sampling-invalid", f"There is no sampler order “{self.order}”.")
        return self

    def steps(self) -> tuple[Step, ...]:
        """The steps that do something, in order; none at all for temperature 0."""
        if self.temperature == 0:
            return ("penalties",) if self.repetition_penalty != 1 else ()
        on: dict[Step, bool] = {
            "penalties": self.repetition_penalty != 1 and self.penalty_last_n != 0,
            "temperature": self.temperature != 1,
            "top_k": self.top_k > 0,
            "top_p": self.top_p < 1,
            "min_p": self.min_p > 0,
            "typical_p": self.typical_p < 1,
        }
        return tuple(step for step in ORDERS[self.order] if on[step])

    def for_draft(self, draft: int) -> Sampling:
        """The same options for draft number `draft` (0 is the first): its own seed, in order."""
        if self.seed is None or draft == 0:
            return self
        return replace(self, seed=(self.seed + draft) % (MAX_SEED + 1))


def _open_assistant(
    temperature: float, *, top_k: int = 0, top_p: float = 1.0, typical_p: float = 1.0
) -> Sampling:
    return Sampling(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=0.0,
        typical_p=typical_p,
        repetition_penalty=1.2,
        max_tokens=1024,
        order="huggingface",
    )


PRESETS: Final[Mapping[str, Sampling]] = {
    "balanced": Sampling(),
    "precise": Sampling(temperature=0.2, top_p=0.9, min_p=0.1),
    "creative": Sampling(temperature=1.0, top_k=0, top_p=0.98, min_p=0.03),
    "likeliest": Sampling(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0),
    "oa-k50": _open_assistant(0.75, top_k=50, top_p=0.95),
    "oa-k50-creative": _open_assistant(0.85, top_k=50, top_p=0.95),
    "oa-k50-precise": _open_assistant(0.10, top_k=50, top_p=0.95),
    "oa-k50-original": _open_assistant(0.90, top_k=50, top_p=0.95),
    "oa-nucleus9": _open_assistant(0.80, top_p=0.9),
    "oa-typical2": _open_assistant(0.80, typical_p=0.2),
    "oa-typical3": _open_assistant(0.80, typical_p=0.3),
}
"""Name -> options.  "balanced" is the default; a user's own presets live in the settings."""


def preset(name: str) -> Sampling:
    """The options of a preset; KnownError("preset-unknown") when there is none of that name."""
    found = PRESETS.get(name)
    if found is None:
        raise KnownError(
            "preset-unknown",
            f"There is no preset “{name}”. Choose one of: {', '.join(PRESETS)}.",
        )
    return found
