"""What the weights page shows, kept in step with the weights room; the room's work in threads.

Main thread only.  Everything that reads a disk or a network is handed to worker threads and comes
back by the bridge; `changed` tells the page to look again, once for many changes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from PySide6.QtCore import QObject, QTimer, Signal

from desktop_app.errors import KnownError
from desktop_app.ui.bridge import Bridge
from desktop_app.ui.weights_details import FileDetails
from desktop_app.ui.weights_queue import Queue
from desktop_app.weights.catalogue import CatalogueChoice, CatalogueEntry, Suggestion
from desktop_app.weights.downloads import Download
from desktop_app.weights.fit import Device, Fit, Machine, Plan, load_of_size, predict
from desktop_app.weights.hub import Repository, RepositorySummary, parse_address
from desktop_app.weights.room import WeightsRoom
from desktop_app.weights.shelf import Entry

T = TypeVar("T")
SEARCH_WAIT_MS: Final = 250
FIRST_RESULTS: Final = 10
MORE_RESULTS: Final = 100
_CHANGED_MS: Final = 30


class WeightsStore(QObject):
    """See the module.  `make_room` is called on a worker: its imports are heavy."""

    changed = Signal()
    connections_changed = Signal()
    finished = Signal(object)
    """A Download that just became ready, or failed."""

    def __init__(
        self,
        bridge: Bridge,
        make_room: Callable[[], WeightsRoom],
        facts: Callable[[], tuple[int, tuple[Device, ...]]] = lambda: (0, ()),
        parent: QObject | None = None,
    ) -> None:
        """`facts` tells the bytes that loaded weights hold, and the graphics devices."""
        super().__init__(parent)
        self._bridge = bridge
        self._make_room = make_room
        self._facts = facts
        self.room: WeightsRoom | None = None
        self.machine: Machine | None = None
        self.suggestions: list[Suggestion] = []
        """In the order to show; see `judged`."""
        self.entries: list[Entry] = []
        self.looked = False
        """Whether the shelf was read once in this run."""
        self.downloads: tuple[Download, ...] = ()
        self.show_all = False
        """Whether the whole catalogue is shown."""
        self.words = ""
        self.searching = False
        self.results: list[RepositorySummary] = []
        self.search_error: KnownError | None = None
        self.repositories: dict[str, Repository | KnownError | None] = {}
        """Files of repositories by name: None while they are asked for."""
        self.open_repositories: set[str] = set()
        self.queue = Queue(self)
        self.checking: dict[str, float | str | KnownError] = {}
        """Files that are being hashed: how far (0 … 1), "sound", or what is wrong."""
        self.token_state: str | KnownError = ""
        """"" unknown, "checking", "keyring", "session", or why it was refused."""
        self.has_token = False
        """Whether an access token for this hub is known; asked for with gated weights only."""
        self.file_rows: dict[str, tuple[Repository, list[Any]]] = {}
        """The page's rows of a repository's files, kept while it is the same."""
        self.result_rows: dict[str, tuple[RepositorySummary, bool, Any]] = {}
        """Its row of a result, kept while that is the same and as open or closed."""
        self.details = FileDetails(self)
        self.fits: dict[Hashable, Fit] = {}
        """Judgements of this look at the computer."""
        self._search_cancel = threading.Event()
        self._cancels: set[threading.Event] = {self._search_cancel}
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="grove-weights")
        self._opening = False
        self._closed = False
        self._waiting: list[Callable[[WeightsRoom], None]] = []
        self._wait = QTimer(self, interval=SEARCH_WAIT_MS, singleShot=True)
        self._wait.timeout.connect(self._search_now)
        self._soon = QTimer(self, interval=_CHANGED_MS, singleShot=True)
        self._soon.timeout.connect(self.changed)

    # ---- beginning and end -----------------------------------------------------------------------

    def start(self) -> None:
        """Open the room, once; suggestions and the shelf follow by themselves."""
        if self._opening or self._closed:
            return
        self._opening = True
        self._bridge.when_done(self._pool.submit(self._make_room), self._opened, self._not_opened)

    def with_room(self, work: Callable[[WeightsRoom], None]) -> None:
        """Do `work` on this thread as soon as the room is open."""
        if self.room is not None:
            work(self.room)
        else:
            self._waiting.append(work)
            self.start()

    def _not_opened(self, error: KnownError) -> None:
        self.search_error = error
        self.touch()

    def _opened(self, room: WeightsRoom) -> None:
        if self._closed:
            room.close()
            return
        self.room = room
        self.downloads = room.downloads.snapshot()
        self.entries = room.shelf.entries()
        post = self._bridge.post
        room.downloads.add_listener(lambda items: post(lambda: self._downloads_changed(items)))
        room.shelf.add_listener(lambda: post(self._shelf_changed))
        room.connections.add_listener(lambda: post(self._connections_told))
        waiting, self._waiting = self._waiting, []
        for work in waiting:
            work(room)
        self.look()
        self.connections_changed.emit()
        self.touch()

    def close(self) -> None:
        """Stop everything and wait for the threads."""
        if self._closed:
            return
        self._closed = True
        self._wait.stop()
        self._soon.stop()
        for cancel in self._cancels:
            cancel.set()
        if self.room is not None:
            self.room.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def look(self) -> None:
        """Judge again what runs here, in a new order, and look at the disks again."""

        def looked(entries: list[Entry]) -> None:
            self.entries, self.looked = entries, True
            self.touch()

        def begin(room: WeightsRoom) -> None:
            self.judge_again(settle=True)
            self.later(room.shelf.refresh, looked, lambda _error: looked(room.shelf.entries()))

        self.with_room(begin)

    def judge_again(self, *, settle: bool = False) -> None:
        """Look at the memory that is free now; `settle`: a new order and recommendation too."""
        if self._closed:
            return
        held, devices = self._facts()

        def judge(room: WeightsRoom) -> tuple[Machine, list[Suggestion]]:
            room.measure_speed_once()
            machine = room.machine(devices)
            machine = replace(machine, free_bytes=machine.free_bytes + held)
            return machine, room.catalogue.suggest(machine, room.speeds)

        self.with_room(
            lambda room: self.later(
                lambda: judge(room), lambda found: self.judged(*found, settle=settle)
            )
        )

    def judged(
        self, machine: Machine, suggestions: Sequence[Suggestion], *, settle: bool = True
    ) -> None:
        """Take a judgement.  Unless it is to `settle`, what stood stays where it stood.

        Free memory comes and goes with other programs: rows that change places under the pointer
        are worse than an order of some minutes ago.
        """
        if self.suggestions and not settle:
            places = {item.entry.id: at for at, item in enumerate(self.suggestions)}
            first = self.recommended()
            kept = first.entry.id if first is not None else ""
            self.suggestions = sorted(
                (replace(item, recommended=item.entry.id == kept) for item in suggestions),
                key=lambda item: places.get(item.entry.id, len(places)),
            )
        else:
            self.suggestions = sorted(suggestions, key=_place)
        self.machine = machine
        self.fits.clear()
        self.touch()

    def later(
        self,
        work: Callable[[], T],
        done: Callable[[T], None],
        failed: Callable[[KnownError], None] | None = None,
    ) -> None:
        """Do `work` on a worker thread; the rest comes back on this one."""
        if self._closed:
            return
        future: Future[T] = self._pool.submit(work)
        self._bridge.when_done(future, done, failed)

    def touch(self) -> None:
        """Something has changed: `changed` follows soon."""
        if not self._closed and not self._soon.isActive():
            self._soon.start()

    # ---- told by the room --------------------------------------------------------------------

    def _downloads_changed(self, items: tuple[Download, ...]) -> None:
        before = {item.id: item.state for item in self.downloads}
        self.downloads = items
        for item in items:
            ended = item.state in ("done", "failed")
            if ended and before.get(item.id, item.state) not in (item.state,):
                self.finished.emit(item)
        self.connections_changed.emit()
        self.touch()

    def _shelf_changed(self) -> None:
        if self.room is not None:
            self.entries = self.room.shelf.entries()
            self.touch()

    def _connections_told(self) -> None:
        self.connections_changed.emit()
        self.touch()

    # ---- facts -------------------------------------------------------------------------------

    @property
    def offline(self) -> bool:
        """The switch; False while the room is not open."""
        return self.room is not None and self.room.connections.offline

    @property
    def is_connected(self) -> bool:
        """Whether something is being asked of, or fetched from, the hub right now."""
        if self.room is None:
            return False
        running = any(item.state in ("running", "checking") for item in self.downloads)
        asking = any(value is None for value in self.queue.asking.values())
        files = any(value is None for value in self.repositories.values())
        return running or asking or files or self.searching

    def fit(
        self, size_bytes: int, label: str, trained_context: int = 0, context_length: int = 0
    ) -> Fit | None:
        """How a file of this size would run; None until the computer was looked at."""
        if self.machine is None or self.room is None:
            return None
        key = (size_bytes, label, trained_context, context_length)
        known = self.fits.get(key)
        if known is None:
            load = load_of_size(size_bytes, label, trained_context)
            plan = Plan(context_length=context_length)
            known = self.fits[key] = predict(load, self.machine, self.room.speeds, plan)
        return known

    def forget_fit(self, key: Hashable) -> None:
        """Judge this again at the next look."""
        self.fits.pop(key, None)

    def fit_of_choice(self, entry: CatalogueEntry, choice: CatalogueChoice) -> Fit | None:
        """As `fit`, for a size of a catalogue entry."""
        if self.machine is None or self.room is None:
            return None
        return predict(entry.load(choice), self.machine, self.room.speeds)

    def recommended(self) -> Suggestion | None:
        """The one weights for this computer."""
        return next((s for s in self.suggestions if s.recommended), None)

    @property
    def is_outdated(self) -> bool:
        """Whether what is recommended has no room here any more."""
        found = self.recommended()
        return found is None or found.fit.verdict == "too-big"

    # ---- searching -------------------------------------------------------------------------------

    def search(self, words: str) -> None:
        """Search soon; what runs is cancelled at once.  Empty words end the search."""
        words = words.strip()
        if words == self.words:
            return
        self.words = words
        self._drop_search()
        self.search_error = None
        self.searching = bool(words) and not self.offline
        if not words:
            self._wait.stop()
            self.results = []
        elif self.searching:
            self._wait.start()
        self.touch()

    def search_again(self) -> None:
        """The same search once more, after a failure."""
        self._drop_search()
        self.search_error = None
        self.searching = bool(self.words)
        self.touch()
        if self.words:
            self._search_now()

    def _drop_search(self) -> None:
        self._search_cancel.set()
        self._cancels.discard(self._search_cancel)
        self._search_cancel = threading.Event()
        self._cancels.add(self._search_cancel)

    def _search_now(self) -> None:
        words, cancel = self.words, self._search_cancel

        def begin(room: WeightsRoom) -> None:
            address = parse_address(words, room.hub.endpoint)
            if address is not None:
                self._show_address(address.repository, cancel)
                return
            self._ask_hub(room, words, cancel, FIRST_RESULTS)

        self.with_room(begin)

    def _ask_hub(self, room: WeightsRoom, words: str, cancel: threading.Event, limit: int) -> None:
        def done(found: list[RepositorySummary]) -> None:
            if cancel.is_set():
                return
            self.results = found
            # The first answer is small and quick; the long one follows.
            self.searching = limit == FIRST_RESULTS and len(found) == limit
            if self.searching:
                self._ask_hub(room, words, cancel, MORE_RESULTS)
            self.touch()

        def failed(error: KnownError) -> None:
            if not cancel.is_set():
                self.searching = False
                self.search_error = error
                self.touch()

        self.later(lambda: room.hub.search(words, limit=limit, cancel=cancel), done, failed)

    def _show_address(self, name: str, cancel: threading.Event) -> None:
        """A pasted link: the one repository, opened."""
        owner, _, short = name.rpartition("/")
        self.results = [RepositorySummary(name, owner, short, 0, 0, False, "", "")]
        self.searching = False
        self.open_repositories.add(name)
        self._need_files(name, cancel)
        self.touch()

    # ---- a repository's files ----------------------------------------------------------------

    def toggle(self, name: str) -> None:
        """Open or fold a repository of the results."""
        if name in self.open_repositories:
            self.open_repositories.discard(name)
        else:
            self.open_repositories.add(name)
            self._need_files(name)
        self.touch()

    def ask_files_again(self, name: str) -> None:
        """Ask for a repository's files once more."""
        self.repositories.pop(name, None)
        self._need_files(name)
        self.touch()

    def _need_files(self, name: str, cancel: threading.Event | None = None) -> None:
        if isinstance(self.repositories.get(name), Repository):
            return
        self.repositories[name] = None
        cancel = cancel or self.new_cancel()

        def done(found: Repository) -> None:
            self.repositories[name] = found
            if found.gated and not self.has_token:
                # A keyring may be slow, or ask for its own password.
                self.with_room(lambda room: self.later(lambda: bool(room.hub.token()), self._token))
            self.touch()

        def failed(error: KnownError) -> None:
            if error.code == "cancelled":
                self.repositories.pop(name, None)
            else:
                self.repositories[name] = error
            self.touch()

        self.with_room(
            lambda room: self.later(lambda: room.hub.repository(name, cancel=cancel), done, failed)
        )

    def new_cancel(self) -> threading.Event:
        """An event that the end of the store sets."""
        made = threading.Event()
        self._cancels.add(made)
        return made

    # ---- the shelf -------------------------------------------------------------------------------

    def add_file(self, path: Path, done: Callable[[Entry], None], failed: Any) -> None:
        """List a file where it lies."""
        self.with_room(lambda room: self.later(lambda: room.shelf.add_file(path), done, failed))

    def add_folder(self, path: Path, failed: Callable[[KnownError], None]) -> None:
        """Watch a folder of the user's."""
        self.with_room(
            lambda room: self.later(
                lambda: room.shelf.add_folder(path), lambda _found: self._shelf_changed(), failed
            )
        )

    def remove(self, entry: Entry, failed: Callable[[KnownError], None]) -> None:
        """Delete a file of Grove's own folder, take any other off the list."""
        self.with_room(
            lambda room: self.later(
                lambda: room.shelf.remove(entry), lambda _none: self._shelf_changed(), failed
            )
        )

    def verify(self, entry: Entry) -> None:
        """Hash a file; `checking` tells how far it is and how it ended.  Again: stop it."""
        key = str(entry.path)
        if isinstance(self.checking.get(key), float):
            self.checking.pop(key)
            self.touch()
            return
        self.checking[key] = 0.0
        told = [0.0]

        def cancelled() -> bool:
            return self._closed or not isinstance(self.checking.get(key), float)

        def progress(done: int, total: int) -> None:
            share = done / total if total else 1.0
            if share - told[0] >= 0.01:
                told[0] = share
                self._bridge.post(lambda: self._checked_so_far(key, share))

        def sound(_digest: str) -> None:
            self.checking[key] = "sound"
            self.touch()

        def failed(error: KnownError) -> None:
            if error.code != "cancelled":
                self.checking[key] = error
            self.touch()

        def check(room: WeightsRoom) -> str:
            try:
                return room.shelf.verify(entry, progress=progress, cancelled=cancelled)
            except OSError as error:
                raise KnownError(
                    "weights-unreadable", "The file cannot be read.", detail=str(error)
                ) from error

        self.with_room(lambda room: self.later(lambda: check(room), sound, failed))
        self.touch()

    def _checked_so_far(self, key: str, share: float) -> None:
        if isinstance(self.checking.get(key), float):
            self.checking[key] = share
            self.touch()

    # ---- connections -----------------------------------------------------------------------------

    def set_offline(self, offline: bool) -> None:
        """Obey the switch at once."""

        def switch(room: WeightsRoom) -> None:
            room.connections.set_offline(offline)
            self.searching = False
            if not offline:
                self.queue.go_on_after_offline()
                if self.words:
                    self.search_again()
            self.touch()

        if self.room is not None:
            switch(self.room)

    def _token(self, known: bool) -> None:
        self.has_token = known
        self.touch()

    def set_token(self, token: str, then: Callable[[], None]) -> None:
        """Check an access token with the hub and keep it; `then` when it is right."""
        self.token_state = "checking"  # noqa: S105 - a state, not a token
        self.touch()

        def work(room: WeightsRoom) -> bool:
            room.hub.check_token(token)
            return room.hub.tokens.set(room.hub.origin, token)

        def done(kept: bool) -> None:
            self.token_state = "keyring" if kept else "session"
            self.has_token = True
            self.touch()
            then()

        def failed(error: KnownError) -> None:
            self.token_state = error
            self.touch()

        self.with_room(lambda room: self.later(lambda: work(room), done, failed))

    def forget_token(self) -> None:
        """Remove the access token from this computer."""

        def done(_none: None) -> None:
            self.token_state, self.has_token = "", False
            self.touch()

        self.with_room(
            lambda room: self.later(lambda: room.hub.tokens.forget(room.hub.origin), done)
        )


def _place(item: Suggestion) -> tuple[bool, int, float]:
    """The recommended one first, then what runs well, slowly, and not.

    Among equals the larger weights first, Open-Assistant's own before them.
    """
    order = {"well": 0, "slow": 1, "too-big": 2}
    own = 1000.0 if item.entry.family == "open-assistant" else 0.0
    return not item.recommended, order[item.fit.verdict], -own - item.entry.parameters_billion
