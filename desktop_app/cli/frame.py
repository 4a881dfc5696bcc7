"""What every command stands on: the profile, its library, the engine, and a loop on this thread."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from desktop_app import log
from desktop_app.cli.loop import MainLoop
from desktop_app.cli.progress import Progress
from desktop_app.cli.terminal import note
from desktop_app.conversation.document import Conversation
from desktop_app.errors import KnownError
from desktop_app.inference.engine import Engine
from desktop_app.inference.protocol import LoadedWeights
from desktop_app.paths import Profile, default_profile
from desktop_app.session import Session, SessionListener
from desktop_app.settings import Settings
from desktop_app.storage import Library


@dataclass(frozen=True, slots=True)
class Frame:
    """The parts of a running Grove, without a window.  Main thread only."""

    profile: Profile
    settings: Settings
    loop: MainLoop
    library: Library
    engine: Engine
    session: Session

    def load(self, weights: Path | None) -> LoadedWeights:
        """Load these weights, else the default ones, with progress on the terminal."""
        path = weights or self.session.default_weights()
        if path is None:
            raise KnownError(
                "no-weights",
                "No weights are chosen yet. Name a GGUF file with --weights FILE.",
            )
        progress = _Loading(path)
        self.session.add_listener(progress)
        try:
            return self.loop.wait(self.session.load_weights(path))
        finally:
            progress.line.end()
            self.session.remove_listener(progress)

    def chat(self, name: str | None) -> Conversation:
        """The chat of this id or uid, or a new one."""
        if name is None:
            return self.loop.wait(self.session.new_chat())
        for info in self.loop.wait(self.library.chats()):
            if name in (str(info.id), info.uid):
                return self.loop.wait(self.session.open_chat(info.id))
        raise KnownError("chat-missing", f"There is no chat {name}. “grove chats” lists them.")


class _Loading(SessionListener):
    def __init__(self, path: Path) -> None:
        self.line = Progress(f"Loading {path.name}")
        self.line.update(0.0)

    def loading(self, fraction: float) -> None:
        self.line.update(fraction)


def profile_of(folder: Path | None) -> Profile:
    """The profile in `folder`, made where it is missing; KnownError when it cannot be made."""
    profile = default_profile() if folder is None else Profile(folder.expanduser().absolute())
    try:
        profile.create()
    except OSError as error:
        raise KnownError(
            "profile-unwritable",
            f"Grove cannot write to its folder {profile.root}. "
            "Check that it is yours and that the disk is not full, or name another with --profile.",
            detail=str(error),
        ) from error
    return profile


@contextlib.contextmanager
def opened(profile: Profile) -> Iterator[Frame]:
    """Everything, open for one command; closed in order whatever happens."""
    log.start(profile.logs)
    settings = Settings.load(profile)
    if settings.notice:
        note(settings.notice)
    loop = MainLoop()
    try:
        library = Library.open(profile, post=loop.post)
        try:
            engine = Engine(log_dir=profile.logs, cache_dir=profile.cache)
            session = Session(
                library, engine, settings, loop.post, profile=profile, later=loop.later
            )
            try:
                yield Frame(profile, settings, loop, library, engine, session)
            finally:
                session.close()
                loop.run_waiting()
        finally:
            library.close()
    finally:
        log.stop()


@contextlib.contextmanager
def reading(profile: Profile) -> Iterator[tuple[Library, MainLoop]]:
    """The library alone, for commands that only look: also beside a Grove that is running."""
    log.start(profile.logs)
    loop = MainLoop()
    try:
        try:
            library = Library.open(profile, post=loop.post)
        except KnownError as error:
            if error.code != "profile-busy":
                raise
            library = Library.open(profile, read_only=True, post=loop.post)
        try:
            yield library, loop
        finally:
            library.close()
    finally:
        log.stop()
