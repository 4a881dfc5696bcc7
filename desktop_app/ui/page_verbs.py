"""What the user does to messages: each verb, its toast, and its failure."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, cast

from PySide6.QtCore import QObject, QUrl
from PySide6.QtGui import QDesktopServices

from desktop_app.conversation.document import Conversation
from desktop_app.conversation.node import Role, State
from desktop_app.errors import KnownError
from desktop_app.ui.chat_page import ChatPage, last_of
from desktop_app.ui.chat_undo import ChatUndo
from desktop_app.ui.path_rows import OTHER_WEIGHTS, RETRY, SMALLER_CONTEXT
from desktop_app.ui.row_view import EditMode
from desktop_app.ui.words import tr

P = ParamSpec("P")
_MIN_CONTEXT = 512


def verb(
    method: Callable[Concatenate[PageVerbs, Conversation, P], object],
) -> Callable[Concatenate[PageVerbs, P], None]:
    """A method that needs an open chat: skipped without one, its KnownError told in a toast."""

    @functools.wraps(method)
    def run(self: PageVerbs, *args: P.args, **kwargs: P.kwargs) -> None:
        conversation = self.page.conversation
        if conversation is None:
            return
        try:
            method(self, conversation, *args, **kwargs)
        except KnownError as error:
            self.failed(error)

    return cast("Callable[Concatenate[PageVerbs, P], None]", run)


def message_verb(
    method: Callable[Concatenate[PageVerbs, Conversation, int, P], object],
) -> Callable[Concatenate[PageVerbs, int, P], None]:
    """A verb on a message; skipped when the message went while its row was still to be seen."""

    def run(
        self: PageVerbs,
        conversation: Conversation,
        node_id: int,
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        if node_id in conversation.tree:
            method(self, conversation, node_id, *args, **kwargs)

    return verb(run)


class PageVerbs(QObject):
    """Connects the page's signals with the session.  The window gives the hooks below."""

    def __init__(self, page: ChatPage) -> None:
        super().__init__(page)
        self.page = page
        self.session = page.session
        self.ask_for_weights: Callable[[], object] = lambda: None
        self.show_prompt: Callable[[Conversation, int | None], object] = lambda _c, _h: None
        self.show_details: Callable[[Conversation, int], object] = lambda _c, _n: None
        self._creating = False
        self.chats = ChatUndo(self.session, page.bridge, page.open_chat, self.failed)
        page.submitted.connect(self.send)
        page.composer.stop_wanted.connect(self.stop)
        page.composer.edit_last_wanted.connect(self.edit_last)
        page.header.undo_wanted.connect(self.undo)
        page.header.redo_wanted.connect(self.redo)
        page.header.renamed.connect(self.rename)
        page.path_changed.connect(self.show_history)
        page.transcript_made.connect(self._connect_rows)

    def _connect_rows(self) -> None:
        page = self.page
        rows = page.transcript
        rows.set_draft_count(self.draft_count)
        rows.again_requested.connect(self.ask_again)
        rows.drafts_requested.connect(self.ask_drafts)
        rows.keep_draft_requested.connect(self.keep_draft)
        rows.show_draft_requested.connect(self.show_draft)
        rows.stop_drafts_requested.connect(self.stop_drafts)
        rows.continue_requested.connect(self.continue_reply)
        rows.retry_requested.connect(self.continue_reply)
        rows.copy_requested.connect(lambda _id: page.toast.tell(tr("page.copied"), icon="copy"))
        rows.copy_to_chat_requested.connect(self.copy_to_new_chat)
        rows.delete_requested.connect(self.delete)
        rows.details_requested.connect(self.show_details_of)
        rows.edit_saved.connect(self.save_edit)
        rows.elsewhere_requested.connect(self.show_version)
        rows.version_requested.connect(self.switch_version)
        rows.failure_action.connect(self.act_on_failure)
        rows.keep_path_requested.connect(self.keep_only_path)
        rows.link_activated.connect(lambda link: QDesktopServices.openUrl(QUrl(link)))
        rows.show_prompt_requested.connect(self.show_prompt_of)
        rows.star_requested.connect(self.star)
        rows.stop_requested.connect(self.session.stop)

    # ---- asking ------------------------------------------------------------------------------

    def send(self, text: str, drafts: int = 0) -> None:
        """Send the composer's text, in a new chat where none is open.

        `drafts` replies are written at once; 0: as many as the composer says.
        """
        drafts = drafts or self.session.settings.send_drafts
        if self.page.conversation is not None:
            self._send(text, drafts)
        elif not self._creating:
            self._creating = True
            self.page.bridge.when_done(
                self.session.new_chat(),
                lambda made: self._send_first(made, text, drafts),
                self._not_created,
            )

    def send_drafts(self) -> None:
        """Send what is in the composer and have it answered several times."""
        field = self.page.composer.text

        def send() -> None:
            text = field.toPlainText()
            if text.strip():
                self.send(text, self.draft_count)

        field.when_composed(send)

    def _send_first(self, conversation: Conversation, text: str, drafts: int) -> None:
        self._creating = False
        if self.page.conversation is not None:
            # Another chat was opened meanwhile: the message still goes where it was meant to go.
            self.page.forget_new_draft()
            try:
                self.session.send(conversation, text, drafts=drafts)
            except KnownError as error:
                self.failed(error)
            return
        self.page.composer.clear()
        self.page.forget_new_draft()
        self.page.show_conversation(conversation)
        self._send(text, drafts)

    def _not_created(self, error: KnownError) -> None:
        self._creating = False
        self.failed(error)

    def with_chat(self, action: Callable[[Conversation], object]) -> None:
        """Run `action` on the open chat; a chat is made first where there is none yet."""
        conversation = self.page.conversation
        if conversation is not None:
            action(conversation)
            return

        def made(conversation: Conversation) -> None:
            draft = self.page.new_draft
            self.page.composer.clear()
            self.page.forget_new_draft()
            self.page.show_conversation(conversation)
            self.page.composer.set_text(draft)
            action(conversation)

        self.page.bridge.when_done(self.session.new_chat(), made, self.failed)

    @verb
    def _send(self, conversation: Conversation, text: str, drafts: int) -> None:
        if self.session.writing(conversation.chat.id):
            # The text stays in the composer until the person decides.
            self.page.toast.tell(
                tr("page.still_writing"),
                tr("page.stop_and_send"),
                lambda: self._stop_and_send(text, drafts),
            )
            return
        try:
            _prompt, *replies = self.session.send(conversation, text, drafts=drafts)
        except KnownError:
            self.page.composer.set_text(text)
            raise
        self.page.composer.clear()
        if drafts > 1:
            self.page.compare(replies)
        else:
            self.page.follow_end()

    def _stop_and_send(self, text: str, drafts: int) -> None:
        conversation = self.page.conversation
        if conversation is None or self.page.composer.text.toPlainText() != text:
            return
        self.session.stop_chat(conversation.chat.id)
        self.page.bridge.post(lambda: self._send_when_free(conversation, text, drafts))

    def _send_when_free(self, conversation: Conversation, text: str, drafts: int) -> None:
        """Wait for the stop without blocking: the engine answers within a token."""
        if self.page.conversation is not conversation:
            return
        if self.session.writing(conversation.chat.id):
            self.page.after_next_end(lambda: self._send_when_free(conversation, text, drafts))
        else:
            self._send(text, drafts)

    @message_verb
    def ask_again(self, conversation: Conversation, node_id: int) -> None:
        """A new reply beside this reply, or below this prompt."""
        self.page.keep_in_place(node_id)
        self.session.ask_again(conversation, node_id)

    @message_verb
    def ask_drafts(self, conversation: Conversation, node_id: int, count: int = 0) -> None:
        """Several new replies at once, side by side; `count` 0: as many as last time."""
        count = count or self.draft_count
        ids = self.session.ask_again(conversation, node_id, count)
        self._remember_count(count)
        self.page.compare(ids)

    @property
    def draft_count(self) -> int:
        """How many drafts were asked for last."""
        return max(2, self.session.settings.drafts)

    def _remember_count(self, count: int) -> None:
        if count != self.session.settings.drafts:
            self.session.settings.drafts = count
            self.session.keep_settings()
            self.page.transcript.set_draft_count(count)

    @verb
    def ask_again_last(self, conversation: Conversation) -> None:
        """Ask again at the message with the focus, else at the last one."""
        node_id = self._askable(conversation)
        if node_id:
            self.ask_again(node_id)

    @verb
    def ask_drafts_last(self, conversation: Conversation) -> None:
        """Ask for drafts at the message with the focus, else at the last one."""
        node_id = self._askable(conversation)
        if node_id:
            self.ask_drafts(node_id)

    def _askable(self, conversation: Conversation) -> int:
        path = conversation.path()
        current = self.page.transcript.current()
        node_id = current if current in path else path[-1] if path else 0
        free = node_id and conversation.tree.node(node_id).state is not State.STREAMING
        return node_id if free else 0

    # ---- drafts ------------------------------------------------------------------------------

    @message_verb
    def show_draft(self, conversation: Conversation, node_id: int) -> None:
        """Another of the compared drafts becomes the open path."""
        if node_id != conversation.head_id:
            conversation.set_head(node_id)

    @message_verb
    def keep_draft(self, conversation: Conversation, node_id: int) -> None:
        """This draft is the reply.  The others stay as versions; those still written are stopped,
        for nobody waits for them any more, and can be continued."""
        page = self.page
        compared = page.drafts.shown(conversation)
        for other in compared:
            if other != node_id:
                self.session.stop(other)
        page.drafts.end(node_id)
        page.keep_in_place(node_id)
        conversation.choose_version(node_id)
        page.refresh()
        page.composer.focus_text()
        if node_id in compared:
            number, others = compared.index(node_id) + 1, len(compared) - 1
            page.toast.tell(
                tr("page.kept_draft", number=number, count=others),
                tr("page.show_drafts"),
                lambda: self._compare_again(conversation, compared),
            )

    def _compare_again(self, conversation: Conversation, ids: tuple[int, ...]) -> None:
        alive = [i for i in ids if i in conversation.tree]
        if self.page.conversation is conversation and len(alive) > 1:
            if conversation.head_id not in alive:
                conversation.set_head(alive[0])
            self.page.compare(alive)

    @message_verb
    def stop_drafts(self, conversation: Conversation, node_id: int) -> None:
        """Stop every draft that stands beside this one."""
        for other in self.page.drafts.shown(conversation) or (node_id,):
            self.session.stop(other)

    @message_verb
    def continue_reply(self, conversation: Conversation, node_id: int) -> None:
        """Let a reply go on; try a failed one again."""
        self.session.continue_reply(conversation, node_id)

    @verb
    def stop(self, conversation: Conversation) -> None:
        """Stop every reply of this chat."""
        self.session.stop_chat(conversation.chat.id)

    # ---- editing -----------------------------------------------------------------------------

    @message_verb
    def save_edit(self, conversation: Conversation, node_id: int, text: str, mode: str) -> None:
        """Keep an edit in one of its three ways."""
        self.page.keep_in_place(node_id)
        if mode == EditMode.ASK_AGAIN:
            self.session.save_and_ask_again(conversation, node_id, text)
            self.page.follow_end()
        elif mode == EditMode.AS_VERSION:
            conversation.edit_as_version(node_id, text)
        else:
            conversation.edit_in_place(node_id, text)

    @verb
    def edit_last(self, conversation: Conversation) -> None:
        """Open the editor of the last prompt."""
        node_id = last_of(conversation, Role.USER)
        if node_id:
            self.page.transcript.start_editing(node_id)

    @verb
    def edit_current(self, conversation: Conversation) -> None:
        """Open the editor of the message with the focus, else of the last prompt."""
        rows = self.page.transcript
        focused, current = rows.keys.focused_row(), rows.current()
        if focused >= 0:
            rows.start_editing(rows.rows[focused].message_id)
        elif current in conversation.path() and current != conversation.head_id:
            self.page.transcript.start_editing(current)
        else:
            self.edit_last()

    @message_verb
    def delete(self, conversation: Conversation, node_id: int) -> None:
        """Take a version and all below it away, with Undo."""
        tree = conversation.tree
        below = tree.descendants_count(node_id)
        siblings = tree.siblings(node_id)
        key = "deleted_version" if len(siblings) > 1 else "deleted"
        if below:
            key += "_below"
        version = siblings.index(node_id) + 1 if node_id in siblings else 1
        self.session.remove(conversation, node_id)
        self._tell_undo(tr(f"page.{key}", version=version, count=below), conversation)

    @verb
    def keep_only_path(self, conversation: Conversation, _node_id: int = 0) -> None:
        """Remove every branch but the one on screen, with Undo."""
        gone = conversation.keep_only_path()
        if gone:
            self._tell_undo(tr("page.kept_path", count=gone), conversation)
        else:
            self.page.toast.tell(tr("page.one_path"))

    @message_verb
    def star(self, conversation: Conversation, node_id: int, starred: bool) -> None:
        """Star a message or take the star away."""
        conversation.star(node_id, starred)

    @verb
    def rename(self, conversation: Conversation, title: str) -> None:
        """Name the chat."""
        conversation.set_title(title)

    @message_verb
    def copy_to_new_chat(self, conversation: Conversation, node_id: int) -> None:
        """The path to this message as a chat of its own."""
        tree = conversation.tree
        title = tr("chat.copy_of", title=conversation.chat.title or tr("chat.untitled"))
        messages = [
            (tree.node(i), tree.parts(i))
            for i in conversation.path(node_id)
            if tree.text(i) or tree.node(i).role is not Role.ASSISTANT
        ]

        def made(copy: Conversation) -> None:
            copy.copy_in(messages)
            self.page.show_conversation(copy)
            self.page.toast.tell(tr("page.copied_to_chat", count=len(messages)))

        self.page.bridge.when_done(self.session.new_chat(title), made, self.failed)

    # ---- versions ----------------------------------------------------------------------------

    @message_verb
    def switch_version(self, conversation: Conversation, node_id: int, version: int) -> None:
        """Show another version of a message, which keeps its place on screen."""
        siblings = conversation.tree.siblings(node_id)
        if 1 <= version <= len(siblings):
            target = siblings[version - 1]
            self.page.keep_in_place(target)
            conversation.choose_version(target)

    @message_verb
    def show_version(self, conversation: Conversation, node_id: int, version: int) -> None:
        """Go where another version was read last."""
        siblings = conversation.tree.siblings(node_id)
        if 1 <= version <= len(siblings):
            self.page.go_to_head(siblings[version - 1])

    @verb
    def step_version(self, conversation: Conversation, step: int) -> None:
        """The next (+1) or previous (-1) version of the message with the focus, else of the last
        message that has versions."""
        tree = conversation.tree
        path = conversation.path()
        current = self.page.transcript.current()
        # Between two quick presses the row with the focus may be of the version just left.
        beside = tree.siblings(current) if current in tree else ()
        candidates = [i for i in path if i in beside and len(beside) > 1]
        candidates += [i for i in reversed(path) if len(tree.siblings(i)) > 1]
        if candidates:
            siblings = tree.siblings(candidates[0])
            self.switch_version(candidates[0], siblings.index(candidates[0]) + 1 + step)

    # ---- undo --------------------------------------------------------------------------------

    def undo(self) -> None:
        """Take back what was done last: a step of this chat, or moving a chat to the trash."""
        if self.chats.can_undo(self.page.conversation):
            self.chats.undo(self._undo_step)
        else:
            self._undo_step()

    def redo(self) -> None:
        """Do again what was taken back last."""
        if self.chats.can_redo(self.page.conversation):
            self.chats.redo(self._leave)
        else:
            self._redo_step()

    def _leave(self, chat_id: int) -> bool:
        was_open = self.page.chat_id == chat_id
        if was_open:
            self.page.start_new()
        return was_open

    @property
    def can_undo(self) -> bool:
        """Whether Ctrl+Z does anything."""
        conversation = self.page.conversation
        own = conversation is not None and conversation.can_undo
        return own or self.chats.can_undo(conversation)

    @property
    def can_redo(self) -> bool:
        """Whether there is something to do again."""
        conversation = self.page.conversation
        own = conversation is not None and conversation.can_redo
        return own or self.chats.can_redo(conversation)

    @verb
    def _undo_step(self, conversation: Conversation) -> None:
        step = self.session.undo(conversation)
        if step is not None:
            text = tr("page.undone", step=step_name(step.name))
            self.page.toast.tell(text, tr("header.redo"), self.redo)

    @verb
    def _redo_step(self, conversation: Conversation) -> None:
        self.session.redo(conversation)

    def show_history(self) -> None:
        """Say in the header what undo and redo would do."""
        conversation = self.page.conversation
        undo = redo = ""
        if self.chats.can_undo(conversation):
            undo = step_name("delete-chat")
        elif conversation is not None and conversation.can_undo:
            undo = step_name(conversation.undo_name)
        if self.chats.can_redo(conversation):
            redo = step_name("delete-chat")
        elif conversation is not None and conversation.can_redo:
            redo = step_name(conversation.redo_name)
        self.page.header.show_history(undo, redo)

    def _tell_undo(self, text: str, conversation: Conversation) -> None:
        def back() -> None:
            if self.page.conversation is conversation:
                self.session.undo(conversation)

        self.page.toast.tell(text, tr("page.undo"), back)

    # ---- failures ----------------------------------------------------------------------------

    @message_verb
    def act_on_failure(self, conversation: Conversation, node_id: int, action: str) -> None:
        """The next step that a failed row offers."""
        if action == RETRY:
            self.session.continue_reply(conversation, node_id)
        elif action == OTHER_WEIGHTS:
            self.ask_for_weights()
        elif action == SMALLER_CONTEXT:
            self._shrink_context(conversation, node_id)

    def _shrink_context(self, conversation: Conversation, node_id: int) -> None:
        """The context that fits, or half of it where that is unknown; then the same reply again."""
        settings = self.session.settings
        loaded = self.session.engine.loaded
        now = loaded.context_length if loaded is not None else settings.context_length or 4096
        fits = self.session.fitting_context
        settings.context_length = max(_MIN_CONTEXT, min(fits, now) if fits else now // 2)
        self.session.keep_settings()
        path = self.session.default_weights()
        if path is None:
            self.ask_for_weights()
            return
        self.page.toast.tell(tr("page.smaller_context", tokens=settings.context_length))
        self.session.load_weights(Path(path))
        self.session.continue_reply(conversation, node_id)

    @message_verb
    def show_details_of(self, conversation: Conversation, node_id: int) -> None:
        """How a reply was made, and why it failed."""
        self.show_details(conversation, node_id)

    @message_verb
    def show_prompt_of(self, conversation: Conversation, node_id: int) -> None:
        """What the weights see up to this message."""
        self.show_prompt(conversation, node_id)

    def failed(self, error: KnownError) -> None:
        """One sentence; without weights also the way to some."""
        if error.code == "no-weights":
            self.page.toast.tell(
                error.sentence, tr("menu.open_weights_short"), self.ask_for_weights
            )
        else:
            self.page.tell_error(error)


def step_name(name: str) -> str:
    """A step in words, for "Undo: …"."""
    try:
        return tr(f"step.{name.replace('-', '_')}")
    except KeyError:
        return tr("step.change")
