"""Has the engine read what is being typed while it has nothing else to do.

What is read is the settled part of the text: whole words while somebody types, all of it after a
paste or a pause.  The engine itself gives it up as soon as anybody asks for anything, and keeps of
it nothing that was not sent (`inference.reading_ahead`); here is decided when it is worth asking.
Main thread only.
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final, Protocol

from desktop_app import log
from desktop_app.conversation.document import Conversation
from desktop_app.errors import KnownError
from desktop_app.inference.engine import Engine, Job
from desktop_app.inference.protocol import ChatMessage, HasRead, ReadAhead
from desktop_app.inference.sampling import Sampling
from desktop_app.session.listening import Later, Post, SessionListener, on_main
from desktop_app.settings import Settings

WAIT_S: Final = 0.4
"""Keys that come within this are looked at together."""
PASTE_WAIT_S: Final = 0.05
PASTE_CHARACTERS: Final = 20
"""More than this at once was pasted, not typed."""
PAUSE_S: Final = 1.2
"""After so long without a key the last word counts as whole."""
FORGET_S: Final = 1.0
"""An empty field may have been sent just now: what was read is dropped a little later."""
_POWER_S: Final = 15.0
_log = log.logger("session")


class Surroundings(Protocol):
    """What reading ahead needs of the session."""

    @property
    def is_idle(self) -> bool:
        """Weights are loaded, and nothing is read, written or waited for."""

    def options(self, conversation: Conversation | None, /) -> tuple[Sampling, str]:
        """Sampler options and template of the next reply; KnownError where there are none."""

    def messages(
        self, conversation: Conversation, path: Sequence[int]
    ) -> tuple[ChatMessage, ...]: ...


def settled(text: str) -> str:
    """The whole words at the beginning of `text`: without the last word and the space before it.

    Scripts that are written without spaces settle with every character.
    """
    end = len(text)
    while end and not text[end - 1].isspace() and not _stands_alone(text[end - 1]):
        end -= 1
    return text[:end].rstrip()


def _stands_alone(character: str) -> bool:
    """Chinese characters and Japanese syllables: no key that follows makes another word of it."""
    name = unicodedata.name(character, "")
    return name.startswith(("CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC"))


def inserted(before: str, after: str) -> int:
    """How many characters of `after` are new: those between what both begin and end with."""
    size = min(len(before), len(after))
    start = _longest(size, lambda n: before[:n] == after[:n])
    end = _longest(size - start, lambda n: before[len(before) - n :] == after[len(after) - n :])
    return len(after) - start - end


def _longest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `most` that fits, where all below it do."""
    if fits(most):
        return most
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def on_battery() -> bool:
    """Whether this machine runs on its battery now; False where that cannot be known."""
    import psutil

    try:
        battery = psutil.sensors_battery()
    except (AttributeError, NotImplementedError, OSError, RuntimeError):
        return False
    return battery is not None and battery.power_plugged is False


class ReadsAhead(SessionListener):
    """The text in the composer, and what of it the engine was asked to read."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        post: Post,
        later: Later,
        around: Surroundings,
        *,
        on_battery: Callable[[], bool] = on_battery,
    ) -> None:
        self._engine, self._settings, self._post, self._later = engine, settings, post, later
        self._around, self._on_battery = around, on_battery
        self._conversation: Conversation | None = None
        self._text = ""
        self._changed_at = 0.0
        self._pasted = False
        self._asked: tuple[Conversation | None, tuple[int, ...], str] | None = None
        self._job: Job[HasRead] | None = None
        self._holds = False  # the engine may hold text that was not sent
        self._timer_at = float("inf")
        self._power: tuple[float, bool] = (float("-inf"), False)
        self._closed = False
        settings.add_watcher(self._setting_changed)

    def typed(self, conversation: Conversation | None, text: str) -> None:
        """This stands in the composer of a chat now (None: of one that does not exist yet)."""
        if conversation is self._conversation and text == self._text:
            return
        another = conversation is not self._conversation
        new = inserted("" if another else self._text, text)
        self._pasted = new >= PASTE_CHARACTERS or (
            self._pasted and not another and text == self._text[: len(text)]
        )
        self._conversation, self._text = conversation, text
        self._changed_at = time.monotonic()
        if text.strip():
            self._arm(PASTE_WAIT_S if self._pasted else WAIT_S)
        elif self._holds:
            self._arm(FORGET_S)

    def close(self) -> None:
        """Ask nothing any more."""
        self._closed = True
        self._settings.remove_watcher(self._setting_changed)

    # ---- told by the session -----------------------------------------------------------------

    def loaded(self, _info: object) -> None:
        """Other weights, or a new child: it has read nothing."""
        self._asked, self._holds = None, False
        self._again()

    def finished(self, _chat_id: int, _message_id: int) -> None:
        """A reply has ended: perhaps there is time again."""
        self._again()

    def failed(self, _chat_id: int, _message_id: int, _error: KnownError) -> None:
        """A reply has failed: perhaps there is time again."""
        self._again()

    def _again(self) -> None:
        """What was read before may be gone."""
        self._asked = None
        if self._around.is_idle:
            self._arm(WAIT_S if self._text.strip() else 0.0)

    def _setting_changed(self, key: str) -> None:
        if key == "read_ahead":
            self._power = (float("-inf"), False)
            self._asked = None
            self._arm(0.0)

    # ---- inside ------------------------------------------------------------------------------

    def _arm(self, delay_s: float) -> None:
        """Look again after `delay_s`, or earlier where that is planned already."""
        at = time.monotonic() + delay_s
        if at < self._timer_at and not self._closed:
            self._timer_at = at
            self._later(delay_s, lambda: self._fire(at))

    def _fire(self, at: float) -> None:
        if at == self._timer_at:  # else an earlier one has taken its place
            self._timer_at = float("inf")
            self._look()

    def _look(self) -> None:
        """Ask the engine for what is new, if it has time."""
        if self._closed or not self._around.is_idle:
            return
        quiet_s = time.monotonic() - self._changed_at
        if not self._text.strip() or not self._is_allowed():
            if self._holds and quiet_s >= FORGET_S - 0.01:
                self._drop()
            elif self._holds:
                self._arm(FORGET_S - quiet_s)
            return
        whole = self._pasted or quiet_s >= PAUSE_S - 0.01
        text = self._text.rstrip() if whole else settled(self._text)
        if not whole:
            self._arm(PAUSE_S - quiet_s)
        path = () if self._conversation is None else tuple(self._conversation.path())
        wanted = (self._conversation, path, text)
        if not text or wanted == self._asked or self._is_on_the_way(wanted):
            return
        self._ask(wanted)

    def _is_on_the_way(self, wanted: tuple[Conversation | None, tuple[int, ...], str]) -> bool:
        """Whether the engine still reads the beginning of it; the rest follows then."""
        if self._job is None or self._asked is None:
            return False
        return wanted[:2] == self._asked[:2] and wanted[2].startswith(self._asked[2])

    def _ask(self, wanted: tuple[Conversation | None, tuple[int, ...], str]) -> None:
        conversation, path = wanted[:2]
        self._asked = wanted
        if conversation is None or all(conversation.tree.is_loaded(i) for i in path):
            self._send(wanted)
            return

        def arrived(_: object) -> None:
            if self._asked is wanted and self._around.is_idle:
                self._send(wanted)

        on_main(self._post, conversation.need(path), arrived)

    def _send(self, wanted: tuple[Conversation | None, tuple[int, ...], str]) -> None:
        conversation, path, text = wanted
        try:
            sampling, template = self._around.options(conversation)
        except KnownError:
            return  # it is told when the text is sent
        before = self._around.messages(conversation, path) if conversation is not None else ()
        chat = conversation.chat.uid if conversation is not None else ""
        request = ReadAhead((*before, ChatMessage("user", text)), sampling, template, chat)
        self._holds = True
        self._follow(self._engine.read_ahead(request))

    def _drop(self) -> None:
        self._holds, self._asked = False, None
        self._engine.read_ahead(ReadAhead())

    def _follow(self, job: Job[HasRead]) -> None:
        self._job = job

        def over(_: Future[HasRead]) -> None:
            self._post(lambda: self._answered(job))

        job.done.add_done_callback(over)

    def _answered(self, job: Job[HasRead]) -> None:
        """It is read, or was given up, or could not be: no word about it, nobody has asked."""
        if job is not self._job:
            return
        self._job = None
        error = job.done.exception()
        if error is not None and not isinstance(error, KnownError):
            raise error
        if error is not None:
            _log.info("not read ahead: %s", error.code)
        if self._text.strip():
            self._arm(PASTE_WAIT_S)

    def _is_allowed(self) -> bool:
        wish = self._settings.read_ahead
        if wish != "plugged_in":
            return wish == "always"
        now = time.monotonic()
        if now - self._power[0] >= _POWER_S:
            self._power = (now, self._on_battery())
        return not self._power[1]
