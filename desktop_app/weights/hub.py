"""The hub: search, a repository's files as quantisations, headers of files not downloaded yet.

Uses huggingface_hub for the hub's API, over Grove's own connections (offline switch, log).  The
library's telemetry, implicit tokens and storage back end are off; tokens go to the hub's origin
alone.  Blocking: call it from a worker thread.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import re
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx2

from desktop_app.errors import KnownError

from .answers import access_error, origin_of
from .connections import Connections
from .gguf import Header, read_header
from .hub_files import HubFile, Quantisation, group_files
from .links import DEFAULT_ENDPOINT, SORTS, HubAddress, parse_address
from .remote_file import RemoteFile
from .tokens import Tokens
from .transfer import Wanted

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = [
    "DEFAULT_ENDPOINT",
    "SORTS",
    "Hub",
    "HubAddress",
    "Repository",
    "RepositorySummary",
    "network_error",
    "parse_address",
]

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_SETTINGS: Final = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
_library_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class RepositorySummary:
    """One line of a search."""

    id: str
    author: str
    name: str
    downloads: int
    likes: int
    gated: bool
    licence: str
    updated: str
    # 0 and "" where the hub does not tell.
    parameter_count: int = 0
    context_length: int = 0
    architecture: str = ""


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository's weights.  `commit` pins what was listed."""

    id: str
    commit: str
    licence: str
    gated: bool
    languages: tuple[str, ...]
    quantisations: tuple[Quantisation, ...]
    projectors: tuple[HubFile, ...] = ()
    imatrix: tuple[HubFile, ...] = ()
    parameter_count: int = 0
    context_length: int = 0
    architecture: str = ""
    url: str = ""
    tags: tuple[str, ...] = field(default=())

    def quantisation(self, label: str) -> Quantisation:
        """By label or file name.  Raises KnownError ``hub-file-unknown``."""
        wanted = label.casefold()
        for quantisation in self.quantisations:
            names = [quantisation.label, quantisation.name, *(f.path for f in quantisation.files)]
            if wanted in (name.casefold() for name in names):
                return quantisation
        known = ", ".join(q.label for q in self.quantisations) or "none"
        raise KnownError(
            "hub-file-unknown",
            f"{self.id} has no “{label}”. It has: {known}.",
        )


class Hub:
    """See the module.  `endpoint` may be a mirror: else HF_ENDPOINT, else the hub itself."""

    def __init__(
        self, connections: Connections, *, endpoint: str = "", tokens: Tokens | None = None
    ) -> None:
        chosen = endpoint or os.environ.get("HF_ENDPOINT", "") or DEFAULT_ENDPOINT
        self.endpoint = chosen.rstrip("/")
        parts = urllib.parse.urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise KnownError(
                "hub-address",
                "The hub's address is not a web address. Set it to one like "
                f"{DEFAULT_ENDPOINT}, or leave it empty.",
            )
        self.origin = origin_of(self.endpoint)
        self.host = parts.netloc
        self.connections = connections
        self.tokens = tokens or Tokens()

    def token(self) -> str:
        """The access token for this hub, "" for none."""
        return self.tokens.get(self.origin)

    def check_token(self, token: str, *, cancel: threading.Event | None = None) -> str:
        """The account's name behind a token.  Raises KnownError ``hub-token`` for a wrong one."""
        with self._api("token", "", cancel) as api:
            try:
                return str(api.whoami(token=token).get("name", ""))
            except KnownError as error:
                raise error from None
            except Exception as error:
                raise KnownError(
                    "hub-token",
                    "The hub does not know this access token. Copy it again from your account's "
                    "settings.",
                    detail=type(error).__name__,
                ) from error

    def search(
        self,
        words: str,
        *,
        author: str = "",
        sort: str = "downloads",
        max_parameters: int = 0,
        limit: int = 30,
        cancel: threading.Event | None = None,
    ) -> list[RepositorySummary]:
        """Repositories with GGUF files.  `sort` is one of SORTS; `max_parameters` 0 = any size.

        Raises KnownError: ``offline``, ``cancelled``, ``network``, ``hub-refused`` …
        """
        parameters = f"min:0,max:{max_parameters}" if max_parameters else None
        with self._api("search", words or author, cancel) as api:
            found = api.list_models(
                search=words or None,
                author=author or None,
                filter="gguf",
                sort=sort if sort in SORTS else "downloads",  # type: ignore[arg-type] # ^ checked
                num_parameters=parameters,
                limit=limit,
                expand=["author", "downloads", "gated", "gguf", "lastModified", "likes", "tags"],
                token=self.token() or False,
            )
            return [_summary(info) for info in found]

    def repository(
        self, name: str, *, revision: str = "main", cancel: threading.Event | None = None
    ) -> Repository:
        """All weights of a repository.  Raises KnownError as `search`, and ``hub-missing``."""
        with self._api("files", name, cancel) as api:
            info = api.model_info(
                name,
                revision=None if revision == "main" else revision,
                files_metadata=True,
                token=self.token() or False,
            )
        files = []
        for sibling in info.siblings or []:
            lfs = sibling.lfs
            size = (lfs.size if lfs else sibling.size) or 0
            files.append(HubFile(sibling.rfilename, size, (lfs.sha256 if lfs else "") or ""))
        quantisations, projectors, imatrix = group_files(files)
        gguf = _plain(getattr(info, "gguf", None))
        return Repository(
            id=info.id,
            commit=info.sha or revision,
            licence=_licence(info),
            gated=bool(info.gated),
            languages=_languages(info),
            quantisations=quantisations,
            projectors=projectors,
            imatrix=imatrix,
            parameter_count=int(gguf.get("total") or 0),
            context_length=int(gguf.get("context_length") or 0),
            architecture=str(gguf.get("architecture") or ""),
            url=f"{self.endpoint}/{info.id}",
            tags=tuple(info.tags or ()),
        )

    def wanted(self, repository: Repository, file: HubFile) -> Wanted:
        """What a transfer needs, pinned to the commit that was listed."""
        return self.wanted_at(repository.id, repository.commit, file)

    def wanted_at(self, repository: str, revision: str, file: HubFile) -> Wanted:
        revision = revision if _COMMIT.fullmatch(revision) else (revision or "main")
        path = urllib.parse.quote(file.path)
        url = f"{self.endpoint}/{repository}/resolve/{urllib.parse.quote(revision, safe='')}/{path}"
        return Wanted(url, file.size_bytes, file.sha256)

    def header(
        self, repository: Repository, file: HubFile, *, cancel: threading.Event | None = None
    ) -> Header:
        """Read the header of a file on the hub by ranges: usually well under 10 MB."""
        subject = f"{repository.id}/{file.path}"
        with self.connections.action("header", subject, cancel=cancel):
            remote = RemoteFile(
                self.connections,
                self.wanted(repository, file).url,
                size_bytes=file.size_bytes,
                token=self.token(),
                hub_origin=self.origin,
            )
            return read_header(remote)

    @contextlib.contextmanager
    def _api(self, purpose: str, subject: str, cancel: threading.Event | None) -> Iterator[HfApi]:
        library = _library()
        # The library keeps its client in a global: one call at a time, each with a fresh one.
        with self.connections.action(purpose, subject, cancel=cancel), _library_lock:
            library.set_client_factory(self._client)
            api = library.HfApi(endpoint=self.endpoint, token=False, library_name="grove")
            try:
                with _translated(f"{self.endpoint}/{subject}"):
                    yield api
            finally:
                library.close_session()

    def _client(self) -> httpx2.Client:
        def keep_token_home(request: httpx2.Request) -> None:
            if origin_of(str(request.url)) != self.origin:
                request.headers.pop("authorization", None)

        def refuse_trouble(response: httpx2.Response) -> None:
            # The library would sleep and repeat; the user is told and decides.
            if response.status_code == 429 or response.status_code >= 500:
                raise _trouble(response.status_code)

        return self.connections.client(
            follow_redirects=True,
            event_hooks={"request": [keep_token_home], "response": [refuse_trouble]},
            failure=network_error,
        )


def _library() -> Any:
    """huggingface_hub, imported once under settings of ours that later programs do not inherit."""
    import sys

    with _library_lock:
        if "huggingface_hub.constants" not in sys.modules:
            import tempfile

            names = [*_SETTINGS, "HF_HOME"]
            before = {name: os.environ.get(name) for name in names}
            # A folder that is never made: nothing is cached, no token is found.
            private = Path(tempfile.gettempdir()) / f"grove-hub-{os.getpid()}"
            os.environ.update(_SETTINGS, HF_HOME=str(private))
            try:
                import huggingface_hub.constants
            finally:
                for name, value in before.items():
                    if value is None:
                        os.environ.pop(name, None)
                    else:
                        os.environ[name] = value
        import huggingface_hub

        huggingface_hub.logging.get_logger("huggingface_hub").setLevel(logging.ERROR)
    return huggingface_hub


@contextlib.contextmanager
def _translated(page: str) -> Iterator[None]:
    """The library's errors as sentences."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except HFValidationError as error:
        raise KnownError(
            "hub-missing",
            "This is not the name of a repository. Names look like owner/repository.",
            detail=str(error),
        ) from error
    except HfHubHTTPError as error:
        response = getattr(error, "response", None)
        status = response.status_code if response is not None else 0
        code = response.headers.get("x-error-code", "") if response is not None else ""
        if status == 0:
            raise _trouble(status) from error
        raise access_error(status, code, page) from error
    except httpx2.TransportError as error:
        raise network_error(error) from error
    except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
        raise KnownError(
            "hub-strange",
            "The hub's answer could not be understood. Check the hub's address, or update Grove.",
            detail=f"{type(error).__name__}: {error}",
        ) from error


def _trouble(status: int) -> KnownError:
    if status == 429:
        return KnownError("hub-busy", "The hub asks to wait. Try again in a few minutes.")
    return KnownError(
        "hub-down", "The hub has trouble right now. Try again later.", detail=f"status {status}"
    )


def network_error(error: Exception) -> KnownError:
    """A connection that failed, for requests that are not repeated."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return KnownError(
            "certificate",
            "The hub's certificate could not be checked. A proxy or virus scanner may sit in "
            "between: set REQUESTS_CA_BUNDLE to its certificate, or use another network.",
            detail=text,
        )
    return KnownError(
        "network",
        "The hub cannot be reached. Check your connection and try again.",
        detail=f"{type(error).__name__}: {text}",
    )


def _summary(info: Any) -> RepositorySummary:
    gguf = _plain(getattr(info, "gguf", None))
    owner, _, name = info.id.rpartition("/")
    updated = info.last_modified
    return RepositorySummary(
        id=info.id,
        author=owner,
        name=name,
        downloads=int(info.downloads or 0),
        likes=int(info.likes or 0),
        gated=bool(info.gated),
        licence=_licence(info),
        updated=updated.date().isoformat() if isinstance(updated, datetime.datetime) else "",
        parameter_count=int(gguf.get("total") or 0),
        context_length=int(gguf.get("context_length") or 0),
        architecture=str(gguf.get("architecture") or ""),
    )


def _plain(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _licence(info: Any) -> str:
    card = getattr(info, "card_data", None)
    licence = getattr(card, "license", None)
    if isinstance(licence, str) and licence and licence != "other":
        return licence
    name = getattr(card, "license_name", None)
    if isinstance(name, str) and name:
        return name
    for tag in info.tags or ():
        if tag.startswith("license:"):
            return str(tag[8:])
    return ""


def _languages(info: Any) -> tuple[str, ...]:
    languages = getattr(getattr(info, "card_data", None), "language", None)
    if isinstance(languages, str):
        languages = [languages]
    return tuple(str(item) for item in languages) if isinstance(languages, list) else ()
