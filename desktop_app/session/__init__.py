"""What an interface talks to: the open chats, the engine, and the replies that are being written.

No Qt, main thread only.  The threads of the engine and the storage never touch a conversation: what
they report is hopped over by `post`, which the window gives as a queued call and the command line
as its own loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from desktop_app import log
from desktop_app.conversation.document import Conversation
from desktop_app.conversation.edits import Step
from desktop_app.errors import KnownError
from desktop_app.inference.engine import Engine
from desktop_app.inference.protocol import ChatMessage, LoadedWeights, Rendered
from desktop_app.inference.sampling import PRESETS, Sampling
from desktop_app.paths import Profile
from desktop_app.session.foretelling import Foretelling, Reading
from desktop_app.session.listening import (
    Later,
    Listeners,
    Post,
    SessionListener,
    flattened,
    on_main,
)
from desktop_app.session.loading import Loading
from desktop_app.session.reading_ahead import ReadsAhead
from desktop_app.session.writing import Writing
from desktop_app.settings import Settings

if TYPE_CHECKING:
    from desktop_app.conversation.node import ChatInfo
    from desktop_app.storage import Library, Trash

__all__ = ["Later", "Post", "Reading", "Session", "SessionListener", "title_of"]

TITLE_CHARACTERS: Final = 60
_log = log.logger("session")


class Session:
    """The open chats of one library and the one engine.

    Every method is called on the main thread and returns at once; the futures it returns are
    resolved on the main thread.  Methods raise KnownError for what the user can mend.
    """

    def __init__(
        self,
        library: Library,
        engine: Engine,
        settings: Settings,
        post: Post,
        *,
        profile: Profile,
        later: Later | None = None,
    ) -> None:
        """`later` is the interface's own timer; without it a timer thread posts."""
        self.library = library
        self.engine = engine
        self.settings = settings
        self.profile = profile
        self._post = post
        self._listeners = Listeners()
        self._chats: dict[int, Conversation] = {}
        self._opening: dict[int, Future[Conversation]] = {}
        self._loading = Loading(
            engine, settings, post, self._listeners, profile.root / "speed.json"
        )
        later = later or self._later_by_thread
        self._writing = Writing(engine, self._loading, post, later, self._listeners)
        self._reads_ahead = ReadsAhead(engine, settings, post, later, self)
        self._listeners.add(self._reads_ahead)
        self._foretelling = Foretelling(engine, settings, post, self._writing.messages)
        self._writing.on_measured = self._foretelling.note
        self._loading.on_ready = self._writing.pump
        self._loading.on_failed = self._writing.fail_waiting
        self._closed = False

    # ---- listeners ---------------------------------------------------------------------------

    def add_listener(self, listener: object) -> None:
        """Tell `listener` (see `SessionListener`) from now on."""
        self._listeners.add(listener)

    def remove_listener(self, listener: object) -> None:
        """Stop telling it."""
        self._listeners.remove(listener)

    # ---- chats -------------------------------------------------------------------------------

    def open_chat(self, chat_id: int) -> Future[Conversation]:
        """The chat; the same object for everybody who opens it.  A reply that is being written
        there goes on being written, whoever looks."""
        known = self._chats.get(chat_id)
        if known is not None:
            future: Future[Conversation] = Future()
            future.set_result(known)
            return future
        opening = self._opening.get(chat_id)
        if opening is None:
            opening = on_main(self._post, self.library.load(chat_id), self._adopt)
            self._opening[chat_id] = opening
            opening.add_done_callback(lambda _: self._opening.pop(chat_id, None))
        return opening

    def new_chat(self, title: str = "", **fields: Any) -> Future[Conversation]:
        """A new, empty chat."""
        return on_main(self._post, self.library.new_chat(title, **fields), self._adopt)

    def conversation(self, chat_id: int) -> Conversation | None:
        """An open chat, None when it is not open."""
        return self._chats.get(chat_id)

    def close_chat(self, chat_id: int) -> None:
        """Forget an open chat, unless a reply is being written in it."""
        if not self.writing(chat_id):
            self._chats.pop(chat_id, None)

    def _adopt(self, conversation: Conversation) -> Conversation:
        known = self._chats.setdefault(conversation.chat.id, conversation)
        if known is conversation:
            conversation.on_stop_streams = lambda ids: self._writing.end_now(conversation, ids)
            conversation.on_take_back = lambda error: self._taken_back(conversation, error)
            conversation.on_store_error = lambda error: self._listeners.tell(
                "storage_failed", error
            )
        return known

    def _taken_back(self, conversation: Conversation, error: KnownError) -> None:
        _log.info("step taken back: %s", error.code)
        self._writing.taken_back(conversation)
        self._listeners.tell("storage_failed", error)

    def delete_chats(self, chat_ids: Iterable[int]) -> Future[None]:
        """Put chats into the trash as one step of the library; replies there are stopped first."""
        ids = tuple(chat_ids)
        for chat_id in ids:
            conversation = self._chats.get(chat_id)
            if conversation is not None:
                self._writing.end_now(conversation, self.writing(chat_id))
        return on_main(self._post, self.library.delete_chats(ids), lambda _: None)

    def empty_trash(self) -> Future[int]:
        """Erase what lies in the trash for good, also from the engine's cache, which holds chats in
        another form.  Resolves to the number of messages."""

        def named(found: tuple[Trash, list[ChatInfo]]) -> Future[int]:
            trash, chats = found
            touched = {removal.chat_id for removal in trash.removals}
            uids = [chat.uid for chat in trash.chats]
            uids += [chat.uid for chat in chats if chat.id in touched]
            return on_main(self._post, self.library.empty_trash(), lambda n: self._forget(uids, n))

        both = on_main(
            self._post,
            self.library.trash(),
            lambda trash: on_main(self._post, self.library.chats(), lambda chats: (trash, chats)),
        )
        return flattened(self._post, on_main(self._post, flattened(self._post, both), named))

    def _forget(self, chat_uids: list[str], messages: int) -> int:
        if chat_uids and not self._closed:
            self.engine.forget(chat_uids)
        return messages

    # ---- writing replies -----------------------------------------------------------------------
    # `sampling` and `template` override the chat's own for that one reply.

    def send(
        self,
        conversation: Conversation,
        text: str,
        *,
        drafts: int = 1,
        sampling: Sampling | None = None,
        template: str | None = None,
    ) -> tuple[int, ...]:
        """A prompt below the head and its reply, or several drafts of it, as one step.

        Returns the ids, the prompt's first.  Names a chat without title.
        """
        options = self._options(conversation, sampling)
        ids = conversation.send(text, author=self._loading.author, drafts=drafts)
        if not conversation.chat.title:
            conversation.set_title(title_of(text), undoable=False)
        self._write(conversation, ids[1:], options, template, sampling)
        return ids

    def ask_again(
        self,
        conversation: Conversation,
        node_id: int,
        drafts: int = 1,
        *,
        sampling: Sampling | None = None,
        template: str | None = None,
    ) -> tuple[int, ...]:
        """New replies: below a prompt, or beside a reply.  Returns their ids."""
        options = self._options(conversation, sampling)
        ids = conversation.ask_again(node_id, author=self._loading.author, drafts=drafts)
        self._write(conversation, ids, options, template, sampling)
        return ids

    def save_and_ask_again(
        self,
        conversation: Conversation,
        node_id: int,
        text: str,
        *,
        sampling: Sampling | None = None,
        template: str | None = None,
    ) -> tuple[int, int]:
        """Another version of a prompt with a reply below it; returns both ids."""
        options = self._options(conversation, sampling)
        ids = conversation.save_and_ask_again(node_id, text, author=self._loading.author)
        self._write(conversation, ids[1:], options, template, sampling)
        return ids

    def continue_reply(
        self,
        conversation: Conversation,
        node_id: int,
        *,
        sampling: Sampling | None = None,
        template: str | None = None,
    ) -> None:
        """Let a reply go on from its end.  This is Retry too: a failed or interrupted reply goes on
        where it broke off, and one without any text is written anew into the same row."""
        if node_id in conversation.streaming_ids:
            return
        options = self._options(conversation, sampling)
        conversation.continue_reply(node_id)
        self._write(conversation, (node_id,), options, template, sampling, continues=True)

    def _write(
        self,
        conversation: Conversation,
        reply_ids: tuple[int, ...],
        options: Sampling,
        template: str | None,
        own: Sampling | None,
        *,
        continues: bool = False,
    ) -> None:
        """Have replies written; `own` are options that come with no preset."""
        preset = self._preset_name(conversation) if own is None else ""
        self._writing.enqueue(
            conversation,
            reply_ids,
            sampling=options,
            template=template,
            continues=continues,
            preset=preset,
        )

    def _options(self, conversation: Conversation, sampling: Sampling | None) -> Sampling:
        """Before anything is changed: is there somebody to write, and with what options?"""
        options = sampling if sampling is not None else self.sampling(conversation)
        self._loading.need()
        return options.checked()

    def stop(self, message_id: int) -> None:
        """Stop a reply; its text is kept.  Nothing happens when it has ended already."""
        self._writing.stop(message_id)

    def stop_chat(self, chat_id: int) -> None:
        """Stop every reply of a chat."""
        for message_id in self.writing(chat_id):
            self.stop(message_id)

    def stop_all(self) -> None:
        """Stop every reply."""
        for message_id in self.writing():
            self.stop(message_id)

    def writing(self, chat_id: int | None = None) -> tuple[int, ...]:
        """The replies being written or waiting (of one chat), the oldest request first."""
        return self._writing.ids(chat_id)

    # ---- changes that may touch a reply while it is written --------------------------------------
    # The conversation itself has it stopped first, through `on_stop_streams`, and keeps its text.

    def remove(self, conversation: Conversation, node_id: int, *, keep_below: bool = False) -> None:
        """Take a message out; a reply that is being written there is stopped first."""
        conversation.remove(node_id, keep_below=keep_below)

    def undo(self, conversation: Conversation) -> Step | None:
        """Undo the newest step; replies that it touches are stopped first, their text is kept."""
        return conversation.undo()

    def redo(self, conversation: Conversation) -> Step | None:
        """Redo what was undone last."""
        return conversation.redo()

    # ---- reading ahead -----------------------------------------------------------------------

    def typed(self, conversation: Conversation | None, text: str) -> None:
        """What stands in the composer now, after each change; empty when nothing does.

        None stands for a chat that does not exist yet.  While the engine has nothing else to do, it
        reads what is settled of the text (see `session.reading_ahead`).  Costs nothing here.
        """
        self._reads_ahead.typed(conversation, text)

    @property
    def is_idle(self) -> bool:
        """Whether weights are loaded, and nothing is read, written or waited for."""
        ready = self.engine.loaded is not None and not self._loading.is_loading
        return ready and not self._closed and not self._writing.ids()

    def options(self, conversation: Conversation | None) -> tuple[Sampling, str]:
        """Sampler options and template of the next reply of a chat."""
        return self.sampling(conversation).checked(), self._loading.template

    def messages(self, conversation: Conversation, path: Sequence[int]) -> tuple[ChatMessage, ...]:
        """A path as the engine reads it.  Its parts must be loaded (`Conversation.need`)."""
        return self._writing.messages(conversation, path)

    # ---- weights -----------------------------------------------------------------------------

    def load_weights(self, path: Path | str) -> Future[LoadedWeights]:
        """Check a file, load it, and remember it as the last used one.

        Replies being written are stopped, those that wait go on waiting.  The future fails with
        KnownError (also told as `engine_failed`), or is cancelled when another load or
        `cancel_loading` comes in between.
        """
        self._writing.stop_running()
        return self._loading.start(path)

    def cancel_loading(self) -> None:
        """Give up loading, if anything is being loaded; replies that wait for it are stopped."""
        if self._loading.is_loading:
            self._loading.cancel()
            self._writing.end_all()

    @property
    def fitting_context(self) -> int:
        """Tokens of context that would fit where loading failed for want of memory; 0: unknown."""
        return self._loading.fitting_context

    @property
    def is_loading(self) -> bool:
        """Whether weights are being loaded now."""
        return self._loading.is_loading

    def unload(self) -> None:
        """Stop every reply and free the memory of the weights."""
        self._loading.cancel()
        self._writing.end_all()
        self.engine.unload()
        self._listeners.tell("unloaded")

    def keep_settings(self) -> None:
        """Write the settings; a disk that refuses is told by `storage_failed`."""
        self._loading.keep_settings()

    def default_weights(self) -> Path | None:
        """The file used last if it still is there, else the one that came with Grove, or None."""
        return self._loading.default()

    # ---- facts -------------------------------------------------------------------------------

    def prompt_preview(
        self, conversation: Conversation, head: int | None = None, *, template: str | None = None
    ) -> Future[Rendered]:
        """The prompt as the weights will read it when the path to `head` is answered."""
        path = conversation.path(head)

        def render(_: object) -> Future[Rendered]:
            messages = self._writing.messages(conversation, path)
            return self.engine.render(messages, template or self._loading.template).done

        return flattened(self._post, on_main(self._post, conversation.need(path), render))

    def context_use(self, conversation: Conversation) -> tuple[int, int]:
        """(tokens of the active path, tokens of the context): counted where a reply of this run
        ends the path, else estimated from the text; (0, 0) without weights."""
        loaded = self.engine.loaded
        if loaded is None:
            return 0, 0
        return self._writing.tokens_used(conversation), loaded.context_length

    def speed(self, message_id: int) -> float:
        """Tokens a second of a reply of this run, also while it is written; 0.0 = not known."""
        return self._writing.speed(message_id)

    def seed(self, message_id: int) -> int | None:
        """The seed of a draft or reply of this run; None when it is not known (yet)."""
        return self._writing.seed(message_id)

    def written(self, message_id: int) -> int:
        """Tokens written of a reply of this run, also while it grows; 0 = not known."""
        return self._writing.written(message_id)

    def foretell(
        self,
        conversation: Conversation | None,
        then: Callable[[Reading | None], None],
        *,
        head: int | None = None,
        text: str = "",
    ) -> Callable[[], None]:
        """What the engine would read before it answers the path to `head`, or below it `text`.

        Calls `then` once, later, on the main thread; None = about a second at most, or not known.
        Nothing waits for it.  The function that is returned drops the question.
        """
        path = conversation.path(head) if conversation is not None else ()
        return self._foretelling.ask(conversation, path, text, self._loading.template, then)

    def sampling(self, conversation: Conversation | None = None) -> Sampling:
        """The sampler options in force: the chat's preset, else the one of the settings."""
        return self.preset(self._preset_name(conversation))

    def _preset_name(self, conversation: Conversation | None) -> str:
        own = conversation.chat.preset if conversation is not None else ""
        return own or self.settings.preset

    def preset(self, name: str) -> Sampling:
        """A preset by name, the user's own before those that come with Grove.

        KnownError("preset-unknown") names those there are.
        """
        own = self.settings.presets.get(name)
        if isinstance(own, dict):
            try:
                return Sampling(**{**own, "stops": tuple(own.get("stops", ()))}).checked()
            except (TypeError, KnownError):
                raise KnownError(
                    "preset-damaged", f"The preset {name} cannot be used. Set its options again."
                ) from None
        if name in PRESETS:
            return PRESETS[name]
        known = ", ".join(sorted({*PRESETS, *self.settings.presets}))
        raise KnownError("preset-unknown", f"There is no preset {name}. There are: {known}.")

    def close(self) -> None:
        """Stop every reply (its text is kept) and end the engine's process.

        The library stays open and has the last writes: whoever opened it closes it.
        """
        if self._closed:
            return
        self._closed = self._foretelling.closed = True
        self._reads_ahead.close()
        self._writing.close()
        self._loading.close()
        self.engine.close()

    def _later_by_thread(self, delay_s: float, call: Callable[[], None]) -> None:
        timer = threading.Timer(delay_s, lambda: self._post(call))
        timer.daemon = True
        timer.start()


def title_of(text: str) -> str:
    """A chat's title from its first message: the first line that says something, shortened."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    line = " ".join(line.split())
    if len(line) <= TITLE_CHARACTERS:
        return line
    cut = line[: TITLE_CHARACTERS - 1]
    space = cut.rfind(" ")
    return (cut[:space] if space > TITLE_CHARACTERS // 2 else cut).rstrip() + "…"
