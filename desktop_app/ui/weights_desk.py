"""Weights, presets and drafts as the whole window shows them, and the menus that choose them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QWidget

from desktop_app.conversation.node import State
from desktop_app.errors import KnownError
from desktop_app.inference.protocol import LoadedWeights
from desktop_app.paths import starter_weights
from desktop_app.session import Session
from desktop_app.ui.chat_page import ChatPage
from desktop_app.ui.choices import (
    ask_for_weights,
    drafts_menu,
    file_name,
    preset_menu,
    preset_name,
    preset_of,
    short_name,
    weights_menu,
    weights_name,
)
from desktop_app.ui.controls import ChoiceButton, open_above
from desktop_app.ui.empty_page import computer_facts
from desktop_app.ui.sidebar import Sidebar
from desktop_app.ui.words import tr


class WeightsDesk(QObject):
    """Keeps card, composer and empty page in step with the engine; one of its session's listeners.

    Until weights were chosen once (`first_run`), the empty page shows the ways to begin.
    """

    preset_chosen = Signal()

    def __init__(
        self,
        window: QWidget,
        session: Session,
        sidebar: Sidebar,
        page: ChatPage,
    ) -> None:
        super().__init__(window)
        self._window = window
        self.session = session
        self.settings = session.settings
        self.sidebar = sidebar
        self.page = page
        self.first_run = not self.settings.weights_path
        self._stopped: KnownError | None = None
        self._loading_path: Path | None = None
        self.open_page: Callable[[], object] | None = None
        """Shows the weights page."""
        session.add_listener(self)

    def open_file(self) -> None:
        """Ask for a .gguf file and load it."""
        path = ask_for_weights(self._window)
        if path is not None:
            self.load(path)

    def load(self, path: Path) -> None:
        """Load a file; the card tells how it goes."""
        self.first_run = False
        self._stopped = None
        self._loading_path = path
        self.session.load_weights(path)
        self.show_state()
        self.show_empty()

    def load_again(self) -> None:
        """Load the weights used last once more."""
        path = self.session.default_weights()
        if path is not None:
            self.load(path)
        else:
            self.open_file()

    def begin_with_guide(self) -> None:
        """Talk to the weights that ship with Grove."""
        self.first_run = False
        starter = starter_weights()
        loaded = self.session.engine.loaded
        if starter is not None and (loaded is None or Path(loaded.path) != starter):
            self.load(starter)
        self.show_empty()
        self.page.composer.focus_text()

    def menu_at_card(self) -> None:
        """Choose weights above the card."""
        menu = weights_menu(self._window, self.session, self.load, self.open_file, self.open_page)
        open_above(self.sidebar.card, menu)
        menu.deleteLater()

    def menu_at(self, button: ChoiceButton) -> None:
        """Choose weights beside a button."""
        menu = weights_menu(self._window, self.session, self.load, self.open_file, self.open_page)
        button.open_menu(menu)
        menu.deleteLater()

    def choose_preset(self, key: str) -> None:
        """Use a preset in the open chat, and in new chats from now on."""
        conversation = self.page.conversation
        if conversation is not None:
            conversation.set_defaults(preset=key)
        self.settings.preset = key
        self.session.keep_settings()
        self.show_choices()
        self.preset_chosen.emit()

    def preset_menu(self) -> None:
        """Choose a preset above the composer."""
        current = preset_of(self.settings, self.page.conversation)
        menu = preset_menu(self._window, self.settings, current, self.choose_preset)
        self.page.composer.preset.open_menu(menu)
        menu.deleteLater()

    def drafts_menu(self) -> None:
        """Choose the number of drafts above the composer."""
        menu = drafts_menu(self._window, self.settings.send_drafts, self._set_drafts)
        self.page.composer.drafts.open_menu(menu)
        menu.deleteLater()

    def _set_drafts(self, count: int) -> None:
        self.settings.send_drafts = count
        self.session.keep_settings()

    def show_choices(self) -> None:
        """Say below the composer what stands."""
        preset = preset_name(preset_of(self.settings, self.page.conversation))
        self.page.composer.show_choices(
            short_name(weights_name(self.session)), preset, self.settings.send_drafts
        )

    def show_state(self) -> None:
        """Say in the card what the engine is doing."""
        card = self.sidebar.card
        path = self.session.default_weights()
        loaded = self.session.engine.loaded
        if self.session.is_loading:
            pass  # `loading` and `loaded` tell
        elif self._stopped is not None and path is not None:
            card.show_stopped(file_name(path), self._stopped)
        elif loaded is not None:
            card.show_ready(loaded)
        elif path is None:
            card.show_none()
        else:
            card.show_idle(file_name(path))
        self.show_choices()

    def show_empty(self) -> None:
        """Say in an empty chat how to begin."""
        has_weights = self.session.engine.loaded is not None or self.session.is_loading
        none = self.session.default_weights() is None and not has_weights
        if none or self.first_run:
            self.page.empty.show_no_weights(
                has_guide=starter_weights() is not None,
                has_weights_page=self.open_page is not None,
                computer=computer_facts(self.session.profile.root),
            )
        else:
            starter, loaded = starter_weights(), self.session.engine.loaded
            guide = loaded is not None and starter is not None and Path(loaded.path) == starter
            self.page.empty.show_suggestions(guide=guide)

    # ---- told by the session -----------------------------------------------------------------

    def loading(self, fraction: float) -> None:
        """Weights are being read."""
        self._stopped = None
        path = self._loading_path or self.session.default_weights()
        self.sidebar.card.show_loading(file_name(path) if path is not None else "", fraction)

    def loaded(self, _info: LoadedWeights) -> None:
        """The weights are ready."""
        self._stopped = None
        self._loading_path = None
        self.show_state()
        self.show_empty()

    def unloaded(self) -> None:
        """The weights are gone from memory."""
        self.show_state()

    def engine_failed(self, error: KnownError) -> None:
        """The card says so; the replies that failed have their own rows."""
        self._stopped = error
        self._loading_path = None
        self.show_state()
        if error.code != "cancelled" and not self._row_tells(error):
            self.page.toast.tell(
                error.sentence, tr("failure.other_weights"), self.open_file, icon="circle-alert"
            )

    def _row_tells(self, error: KnownError) -> bool:
        """Whether the open chat's last row shows this failure, or is about to."""
        conversation = self.page.conversation
        if conversation is None or conversation.head_id is None:
            return False
        node = conversation.tree.node(conversation.head_id)
        return node.state is State.STREAMING or node.failure == error.code
