"""What the engine would have to read before it can answer, and how long that takes here.

The reading speed is measured: each reply of its own batch that read enough tells how fast these
weights read here.  Until then nothing is foretold.  Main thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from desktop_app.errors import KnownError
from desktop_app.inference.engine import Engine
from desktop_app.inference.protocol import ChatMessage, Finished, Rendered
from desktop_app.session.listening import Post
from desktop_app.settings import Settings

if TYPE_CHECKING:
    from desktop_app.conversation.document import Conversation

MEASURED_TOKENS: Final = 48
"""Reading fewer tokens says little: one step of the engine has a cost of its own."""
SHORT_S: Final = 1.0
"""A wait of this length is none."""
_KEPT_SPEEDS: Final = 50
_SURE_SHARE: Final = 0.75  # the engine keeps at most a quarter of the context for the reply
_LEAST_BYTES_PER_TOKEN: Final = 2.0
_TEMPLATE_TOKENS: Final = 24  # what a template puts around a message, at most, about

Messages = Callable[["Conversation", Sequence[int]], tuple[ChatMessage, ...]]


@dataclass(frozen=True, slots=True)
class Reading:
    """Tokens of the prompt that must be read anew, and for about how many seconds."""

    tokens: int
    seconds: float


class Foretelling:
    """Foretells waits.  Answers come on the main thread, unless their question was dropped."""

    def __init__(self, engine: Engine, settings: Settings, post: Post, messages: Messages) -> None:
        """`messages` makes a path into what the engine reads."""
        self.closed = False
        self._engine = engine
        self._settings = settings
        self._post = post
        self._messages = messages

    # ---- measuring -----------------------------------------------------------------------------

    def note(self, finished: Finished) -> None:
        """Learn from a reply that the engine wrote alone."""
        read, seconds = finished.counters.evaluated_tokens, finished.timings.read_s
        key = self._key()
        if key is None or read < MEASURED_TOKENS or seconds <= 0:
            return
        speeds = self._settings.reading_speeds
        speed, known = read / seconds, speeds.pop(key, None)
        if isinstance(known, int | float) and known > 0:
            speed = (speed + known) / 2
        speeds[key] = round(speed, 2)
        while len(speeds) > _KEPT_SPEEDS:
            del speeds[next(iter(speeds))]
        self._settings.reading_speeds = speeds

    def speed(self) -> float:
        """Tokens of a prompt read in a second with the loaded weights; 0.0 = never measured."""
        key = self._key()
        speed = self._settings.reading_speeds.get(key, 0.0) if key is not None else 0.0
        return float(speed) if isinstance(speed, int | float) else 0.0

    def _key(self) -> str | None:
        """The weights, and what of their settings changes how fast they read."""
        loaded = self._engine.loaded
        if loaded is None:
            return None
        return f"{loaded.hash[-16:]}/{loaded.threads}/{loaded.gpu_layers}"

    def _room(self) -> int:
        """Tokens that a prompt may have for sure without that turns are left out."""
        loaded = self._engine.loaded
        return int(loaded.context_length * _SURE_SHARE) if loaded is not None else 0

    # ---- foretelling ---------------------------------------------------------------------------

    def ask(
        self,
        conversation: Conversation | None,
        path: Sequence[int],
        text: str,
        template: str,
        then: Callable[[Reading | None], None],
    ) -> Callable[[], None]:
        """What the engine reads to answer `path`, and below it a prompt `text` if there is one.

        Calls `then` once, later: with None when the wait is short or not known.  The function that
        is returned drops the question.
        """
        dropped = False
        speed = self.speed()

        def drop() -> None:
            nonlocal dropped
            dropped = True

        def tell(reading: Reading | None) -> None:
            if not dropped:
                then(reading)

        def arrived(future: Future[Rendered]) -> None:
            try:
                rendered = future.result()
            except KnownError:  # no weights any more, or a template that refuses
                tell(None)
                return
            if len(rendered.tokens) > self._room():
                tell(None)  # the oldest turns may be left out, and what stays is not known here
                return
            fresh = max(0, len(rendered.tokens) - rendered.kept_tokens)
            seconds = fresh / speed
            tell(Reading(fresh, seconds) if seconds > SHORT_S else None)

        def render() -> None:
            if dropped or self.closed:
                return
            messages = self._messages(conversation, path) if conversation is not None else ()
            if text:
                messages = (*messages, ChatMessage("user", text))
            if not messages or _most_tokens(messages) / speed <= SHORT_S:
                tell(None)
                return
            job = self._engine.render(messages, template)
            job.done.add_done_callback(lambda future: self._post(lambda: arrived(future)))

        if speed <= 0:
            self._post(lambda: tell(None))
        elif conversation is None:
            self._post(render)
        else:
            conversation.need(path).add_done_callback(lambda _: self._post(render))
        return drop


def _most_tokens(messages: Sequence[ChatMessage]) -> float:
    """More tokens than these messages can well have: most questions need no engine."""
    size = sum(len(m.text.encode("utf-8", "replace")) for m in messages)
    return size / _LEAST_BYTES_PER_TOKEN + _TEMPLATE_TOKENS * len(messages)
