"""Chats to files and back: the dialogs, the work on a thread of its own, and what is told of it."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QObject, QStandardPaths, QUrl
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QFileDialog, QWidget

from desktop_app.conversation.document import Conversation
from desktop_app.conversation.node import Role
from desktop_app.errors import KnownError
from desktop_app.session import Session
from desktop_app.ui.bridge import Bridge
from desktop_app.ui.chat_page import ChatPage
from desktop_app.ui.words import tr

if TYPE_CHECKING:
    # Files are read and written seldom: what does it is imported then.
    from desktop_app.exchange.export import Written
    from desktop_app.exchange.imports import Report
    from desktop_app.exchange.markdown import Said

_STRANGE: Final = re.compile(r'[\x00-\x1f<>:"/\\|?*]+')
_NAME_CHARACTERS: Final = 60
GROVE, MARKDOWN, OASST = "grove", "markdown", "oasst"
_ENDINGS: Final = {GROVE: ".json", MARKDOWN: ".md", OASST: ".jsonl"}


class ExchangeDesk(QObject):
    """Import and export.  Main thread; `close` waits for a file that is being written."""

    def __init__(self, window: QWidget, session: Session, bridge: Bridge, page: ChatPage) -> None:
        super().__init__(window)
        self._window = window
        self._session = session
        self._bridge = bridge
        self._page = page
        self._worker: ThreadPoolExecutor | None = None

    # ---- out ---------------------------------------------------------------------------------

    def export_chat(self) -> None:
        """Ask for a file and write the open chat to it, in the form that was chosen."""
        conversation = self._page.conversation
        if conversation is None:
            return
        title = conversation.chat.title or tr("chat.untitled")
        chosen = self._ask_where(tr("menu.export_chat"), title, (GROVE, MARKDOWN, OASST))
        if chosen is None:
            return
        path, form = chosen
        if form == MARKDOWN:
            said = _path_of(conversation)
            self._run(functools.partial(_write_markdown, path, title, said), self._told(path))
            return
        chat_id = conversation.chat.id
        self._bridge.when_done(
            conversation.saved(),
            lambda _none: self._write(path, form, [chat_id]),
            self._page.tell_error,
        )

    def export_all(self) -> None:
        """Ask for a file and write the whole library to it."""
        chosen = self._ask_where(tr("menu.export_all"), "Grove", (GROVE, OASST))
        if chosen is None:
            return
        path, form = chosen
        conversation = self._page.conversation
        if conversation is None:
            self._write(path, form, None)
            return
        self._bridge.when_done(
            conversation.saved(),
            lambda _none: self._write(path, form, None),
            self._page.tell_error,
        )

    def _write(self, path: Path, form: str, chat_ids: list[int] | None) -> None:
        library = self._session.library

        def work() -> Written:
            from desktop_app.exchange import export

            return export.write(library, path, chat_ids, form="oasst" if form == OASST else "grove")

        self._run(work, self._told(path))

    def _told(self, path: Path) -> Callable[[object], None]:
        def told(written: object) -> None:
            count = getattr(written, "chats", 1)
            text = tr("exchange.written", count=count, name=path.name)
            self._page.toast.tell(text, tr("exchange.show"), lambda: _show(path.parent))

        return told

    # ---- in ----------------------------------------------------------------------------------

    def import_file(self) -> None:
        """Ask for a file and add its chats."""
        name, _filter = QFileDialog.getOpenFileName(
            self._window,
            tr("menu.import_chats"),
            _documents(),
            f"{tr('exchange.importable')} (*.json *.jsonl *.jsonl.gz *.json.gz)",
        )
        if name:
            self.read(Path(name))

    def read(self, path: Path) -> None:
        """Add the chats of a file; the toast offers to take them back."""
        library = self._session.library
        self._page.toast.tell(tr("exchange.reading", name=path.name))

        def work() -> Report:
            from desktop_app.exchange import imports

            return imports.read_into(library, path)

        self._run(work, self._imported)

    def _imported(self, report: Report) -> None:
        if not report.added:
            self._page.toast.tell(tr("exchange.nothing_new"))
            return
        text = tr("exchange.added", count=report.added)
        if report.skipped:
            text = f"{text} {tr('exchange.skipped', count=report.skipped)}"
        if report.copies:
            text = f"{text} {tr('exchange.copies', count=report.copies)}"
        added = tuple(report.chat_ids)
        self._page.toast.tell(text, tr("page.undo"), lambda: self._take_back(added))
        self._page.open_chat(added[0])

    def _take_back(self, chat_ids: tuple[int, ...]) -> None:
        if self._page.chat_id in chat_ids:
            self._page.start_new()
        self._bridge.when_done(
            self._session.delete_chats(chat_ids), lambda _none: None, self._page.tell_error
        )

    # ---- both --------------------------------------------------------------------------------

    def _ask_where(self, title: str, name: str, forms: tuple[str, ...]) -> tuple[Path, str] | None:
        """The file and its form; None when the person thought better of it."""
        filters = {tr(f"exchange.{form}") + f" (*{_ENDINGS[form]})": form for form in forms}
        suggested = str(Path(_documents(), f"{file_name(name)}{_ENDINGS[forms[0]]}"))
        chosen, kind = QFileDialog.getSaveFileName(
            self._window, title, suggested, ";;".join(filters)
        )
        if not chosen:
            return None
        path = Path(chosen)
        # An ending that was typed says more than the filter that was left as it stood.
        typed = [form for form in forms if path.name.lower().endswith(_ENDINGS[form])]
        form = typed[0] if typed else filters.get(kind, forms[0])
        if path.name.lower().endswith(".jsonl.gz"):
            form = OASST
        elif not typed and not path.suffix:
            path = path.with_name(path.name + _ENDINGS[form])
        return path, form

    def _run(self, work: Callable[[], object], done: Callable[..., None]) -> None:
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="exchange")
        self._bridge.when_done(self._worker.submit(work), done, self._failed)

    def _failed(self, error: KnownError) -> None:
        self._page.tell_error(error)

    def close(self) -> None:
        """Wait until what is being read or written is whole."""
        if self._worker is not None:
            self._worker.shutdown()
            self._worker = None


def file_name(title: str) -> str:
    """A title as the name of a file on any system, without its ending."""
    name = _STRANGE.sub(" ", title)
    return " ".join(name.split())[:_NAME_CHARACTERS].strip(". ") or "Grove"


def _documents() -> str:
    return QStandardPaths.writableLocation(QStandardPaths.StandardLocation.DocumentsLocation)


def _path_of(conversation: Conversation) -> list[Said]:
    """What the open path says now; a reply that is being written is taken as it stands."""
    from desktop_app.exchange.markdown import Said

    tree = conversation.tree
    names = {
        Role.USER: tr("row.author_you"),
        Role.SYSTEM: tr("row.author_system"),
        Role.TOOL: tr("row.author_tool"),
        Role.ASSISTANT: tr("row.author_reply"),
    }
    return [
        Said(
            tree.node(node_id).author or names[tree.node(node_id).role],
            tree.text(node_id),
            tree.reasoning(node_id),
        )
        for node_id in conversation.path()
    ]


def _write_markdown(path: Path, title: str, said: list[Said]) -> int:
    from desktop_app.exchange import markdown

    return markdown.write(path, title, said)


def _show(folder: Path) -> None:
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder)))
