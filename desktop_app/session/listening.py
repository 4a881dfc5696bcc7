"""How a session tells things, and how it gets from other threads to the main one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from desktop_app.errors import KnownError
from desktop_app.inference.protocol import LoadedWeights

T = TypeVar("T")
Post = Callable[[Callable[[], None]], None]
"""Run this on the main thread soon; callable from any thread."""
Later = Callable[[float, Callable[[], None]], None]
"""Run this on the main thread after so many seconds; called on the main thread."""


class SessionListener:
    """What a session tells, always on the main thread.

    Any object with some of these methods serves; deriving from this class gives the rest.
    """

    def loading(self, fraction: float) -> None:
        """Weights are being read: 0.0 to 1.0."""

    def loaded(self, info: LoadedWeights) -> None:
        """The weights are ready."""

    def unloaded(self) -> None:
        """The weights are gone from memory."""

    def engine_failed(self, error: KnownError) -> None:
        """Loading failed or the engine died; the replies it was writing report by `failed`."""

    def waiting(self, chat_id: int, message_id: int) -> None:
        """The reply waits for the weights to load, or for another reply to end."""

    def reading(self, chat_id: int, message_id: int, done: int, total: int, kept: int) -> None:
        """Tokens of the prompt read so far; `kept` of them came from the cache."""

    def text_changed(self, chat_id: int, message_id: int) -> None:
        """The reply has grown; its text is in the conversation."""

    def finished(self, chat_id: int, message_id: int) -> None:
        """The reply is complete, or was stopped."""

    def failed(self, chat_id: int, message_id: int, error: KnownError) -> None:
        """The reply failed; what there is of its text is kept."""

    def storage_failed(self, error: KnownError) -> None:
        """Something could not be written; a step that could not was taken back."""


class Listeners:
    """The listeners of one session.  Main thread only."""

    def __init__(self) -> None:
        self._listeners: list[object] = []

    def add(self, listener: object) -> None:
        """Tell it from now on."""
        self._listeners.append(listener)

    def remove(self, listener: object) -> None:
        """Stop telling it."""
        self._listeners.remove(listener)

    def tell(self, name: str, *values: object) -> None:
        """Call this method of every listener that has it."""
        for listener in tuple(self._listeners):
            method = getattr(listener, name, None)
            if method is not None:
                method(*values)


def on_main(post: Post, future: Future[Any], then: Callable[[Any], T]) -> Future[T]:
    """`then(result)` on the main thread, as a future that is resolved there too."""
    out: Future[T] = Future()

    def arrived() -> None:
        if not out.set_running_or_notify_cancel():
            return
        try:
            value = then(future.result())
        except BaseException as error:  # noqa: BLE001 -- handed on to whoever waits
            out.set_exception(error)
        else:
            out.set_result(value)

    future.add_done_callback(lambda _: post(arrived))
    return out


def flattened(post: Post, future: Future[Future[T]]) -> Future[T]:
    """A future of a future as one, resolved on the main thread."""
    out: Future[T] = Future()

    def hand_on(inner: Future[T]) -> None:
        error = inner.exception()
        if error is not None:
            out.set_exception(error)
        else:
            out.set_result(inner.result())

    def first(outer: Future[Future[T]]) -> None:
        error = outer.exception()
        if error is not None:
            out.set_exception(error)
        else:
            outer.result().add_done_callback(lambda inner: post(lambda: hand_on(inner)))

    future.add_done_callback(first)
    return out
