"""What people paste to name weights on the hub.  Pure and light: no network library is loaded."""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass
from typing import Final

DEFAULT_ENDPOINT: Final = "https://huggingface.co"
SORTS: Final = ("downloads", "likes", "trending_score", "last_modified", "created_at")
_NAME: Final = r"[A-Za-z0-9][\w.-]*"


@dataclass(frozen=True, slots=True)
class HubAddress:
    """What a pasted link or ``owner/repository[:quantisation]`` points to."""

    repository: str
    revision: str = "main"
    # A file's path, or a quantisation's label, or "".
    file: str = ""


def parse_address(text: str, endpoint: str = DEFAULT_ENDPOINT) -> HubAddress | None:
    """A link to the hub (or its mirror), ``hf.co/…``, ``owner/repo`` or ``owner/repo:Q4_K_M``.

    None for everything else: those are words to search for.
    """
    text = text.strip()
    hosts = [
        urllib.parse.urlsplit(endpoint).netloc,
        "huggingface.co",
        "hf.co",
        "www.huggingface.co",
    ]
    link = re.match(r"(?:https?://)?([^/\s]+)/(.+)$", text)
    if link and link[1].lower().removeprefix("www.") in [host.lower() for host in hosts]:
        text = urllib.parse.unquote(urllib.parse.urlsplit(link[2]).path).strip("/")
    elif "://" in text:
        return None
    match = re.fullmatch(
        rf"({_NAME}/{_NAME})(?:/(?:blob|resolve|tree|raw)/([^/\s]+)(?:/(.*))?|:([\w.-]+))?", text
    )
    if match is None:
        return None
    return HubAddress(match[1], match[2] or "main", match[3] or match[4] or "")
