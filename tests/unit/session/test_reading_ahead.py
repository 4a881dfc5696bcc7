"""When the engine is asked to read what is being typed, and when not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, cast

import pytest

from desktop_app.conversation.document import Conversation
from desktop_app.errors import KnownError
from desktop_app.inference.protocol import ChatMessage, HasRead, ReadAhead
from desktop_app.inference.sampling import Sampling
from desktop_app.session.reading_ahead import ReadsAhead, inserted, settled
from desktop_app.settings import Settings


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("", ""),
        ("Hel", ""),
        ("Hello wor", "Hello"),
        ("Hello world ", "Hello world"),
        ("One.\n\nTwo", "One."),
        ("안녕 하세", "안녕"),
        ("今日は天気が", "今日は天気が"),
        ("説明 ok", "説明"),
    ],
)
def test_settled(text: str, whole: str) -> None:
    assert settled(text) == whole


@pytest.mark.parametrize(
    ("before", "after", "count"),
    [("", "abc", 3), ("ab", "abc", 1), ("ac", "abc", 1), ("abc", "ac", 0), ("aa", "aaa", 1)],
)
def test_inserted(before: str, after: str, count: int) -> None:
    assert inserted(before, after) == count


class _Asked:
    def __init__(self) -> None:
        self.done: Future[HasRead] = Future()


class World:
    """An engine that only remembers, a clock that stands still, and timers that are let go."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.requests: list[ReadAhead] = []
        self.jobs: list[_Asked] = []
        self.is_idle = True
        self.battery = False
        self.power_looks = 0
        self.settings = Settings()
        self.ahead = ReadsAhead(
            cast("Any", self),
            self.settings,
            lambda call: call(),
            self.later,
            self,
            on_battery=self.on_battery,
        )

    def on_battery(self) -> bool:
        self.power_looks += 1
        return self.battery

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        self.timers.append((self.now + delay_s, call))

    def read_ahead(self, request: ReadAhead) -> _Asked:
        self.requests.append(request)
        self.jobs.append(_Asked())
        return self.jobs[-1]

    def options(self, _conversation: Conversation | None, /) -> tuple[Sampling, str]:
        return Sampling(), "auto"

    def messages(self, conversation: Conversation, path: Sequence[int]) -> tuple[ChatMessage, ...]:
        tree = conversation.tree
        return tuple(ChatMessage(tree.node(i).role.value, tree.text(i)) for i in path)

    def wait(self, seconds: float) -> None:
        """Let time pass, with the timers that are due in it."""
        end = self.now + seconds
        while due := sorted((t for t in self.timers if t[0] <= end), key=lambda t: t[0]):
            self.timers.remove(due[0])
            self.now = max(self.now, due[0][0])
            due[0][1]()
        self.now = end

    @property
    def texts(self) -> list[str]:
        """The last message of each request, "" for a drop."""
        return [r.messages[-1].text if r.messages else "" for r in self.requests]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World()
    monkeypatch.setattr("desktop_app.session.reading_ahead.time.monotonic", lambda: made.now)
    yield made
    made.ahead.close()


def answered(world: World) -> None:
    """The engine has read what it was asked to."""
    for job in world.jobs:
        if not job.done.done():
            job.done.set_result(HasRead(9, 0, 9))


def test_whole_words_are_read_while_typing_and_the_last_one_after_a_pause(world: World) -> None:
    text = ""
    for key in "Tell me a story about cats":
        text += key
        world.ahead.typed(None, text)
        world.wait(0.1)
        answered(world)
    typed = world.texts
    assert 2 <= len(typed) <= 8, "neither every key nor only the end"
    assert all(text.startswith(part + " ") for part in typed)
    world.wait(2)
    assert world.texts[-1] == text


def test_a_paste_is_read_whole_and_at_once(world: World) -> None:
    world.ahead.typed(None, "Summarise this: it was a dark and stormy nigh")
    world.wait(0.1)
    assert world.texts == ["Summarise this: it was a dark and stormy nigh"]


def test_nothing_new_is_asked_while_the_engine_reads_the_beginning_of_it(world: World) -> None:
    world.ahead.typed(None, "A pasted text that takes long to read")
    world.wait(1)
    world.ahead.typed(None, "A pasted text that takes long to read, and more of it ")
    world.wait(1)
    assert len(world.requests) == 1
    answered(world)
    world.wait(1)
    assert len(world.requests) == 2
    world.ahead.typed(None, "Something else entirely, pasted over it")
    world.wait(0.2)
    assert len(world.requests) == 3, "what is read is not wanted any more: at once"


def test_the_conversation_stands_before_it(world: World) -> None:
    chat = Conversation.in_memory()
    user, reply = chat.send("Hi")
    chat.stream_text(reply, reading_ahead_parts("Hello."))
    chat.finish_stream(reply, cast("Any", "done"))
    world.ahead.typed(chat, "How are you today, my friend?")
    world.wait(1)
    (request,) = world.requests
    assert [m.text for m in request.messages] == ["Hi", "Hello.", "How are you today, my friend?"]
    assert request.chat == chat.chat.uid
    chat.set_head(user)
    world.ahead.typed(chat, "How are you today, my friend? Fine, ")
    answered(world)
    world.wait(1)
    assert [m.text for m in world.requests[-1].messages][:-1] == ["Hi"]


def reading_ahead_parts(text: str) -> Any:
    """A reply's parts."""
    from desktop_app.conversation.node import text_parts

    return text_parts(text)


def test_erased_text_is_dropped_and_sent_text_is_not(world: World) -> None:
    world.ahead.typed(None, "A secret that I had better not send")
    world.wait(1)
    answered(world)
    world.ahead.typed(None, "")
    world.wait(0.5)
    assert len(world.requests) == 1, "it may have been sent just now"
    world.wait(1)
    assert world.texts[1:] == [""]
    # Sent: a reply is being written when the field has become empty.
    world.ahead.typed(None, "A question that is going to be sent")
    world.wait(1)
    answered(world)
    world.is_idle = False
    world.ahead.typed(None, "")
    world.wait(5)
    assert len(world.requests) == 3
    world.is_idle = True
    world.ahead.finished(1, 2)
    world.wait(1)
    assert world.texts[-1] == "", "whatever is left is dropped after the reply"


def test_a_busy_engine_is_asked_nothing_and_asked_when_it_is_free(world: World) -> None:
    world.is_idle = False
    world.ahead.typed(None, "Something pasted while a reply is written")
    world.wait(5)
    assert world.requests == []
    world.is_idle = True
    world.ahead.finished(1, 2)
    world.wait(1)
    assert len(world.requests) == 1


def test_off_on_battery_unless_wished(world: World) -> None:
    world.battery = True
    world.ahead.typed(None, "Something pasted on the train to Busan")
    world.wait(3)
    assert world.requests == []
    world.settings.read_ahead = "always"
    world.wait(1)
    assert len(world.requests) == 1
    answered(world)
    world.settings.read_ahead = "never"
    world.wait(2)
    assert world.texts[1:] == [""], "what was read is dropped"
    world.battery = False
    world.settings.read_ahead = "plugged_in"
    world.wait(1)
    assert len(world.requests) == 3


def test_the_battery_is_not_looked_at_with_every_key(world: World) -> None:
    for n in range(50):
        world.ahead.typed(None, "word " * (n + 1))
        world.wait(0.1)
        answered(world)
    assert world.power_looks == 1


def test_what_cannot_be_read_ahead_is_told_when_it_is_sent(world: World) -> None:
    world.ahead.typed(None, "Something that is far too long for it")
    world.wait(1)
    world.jobs[0].done.set_exception(KnownError("message-too-long", "Too long."))
    world.wait(3)
    assert len(world.requests) == 1


def test_new_weights_have_read_nothing(world: World) -> None:
    world.ahead.typed(None, "Something pasted before the weights changed")
    world.wait(1)
    answered(world)
    world.ahead.loaded(None)
    world.wait(1)
    assert len(world.requests) == 2
