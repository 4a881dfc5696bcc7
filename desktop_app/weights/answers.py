"""What a hub's answer says: headers as values, refusals as sentences.  Pure functions."""

from __future__ import annotations

import contextlib
import email.utils
import re
import time

import httpx2

from desktop_app.errors import KnownError


def access_error(status: int, error_code: str, url: str) -> KnownError:
    """Why the hub refuses, and the page where the user can change that."""
    page = re.sub(r"/resolve/.*$", "", url)
    if error_code == "GatedRepo" or (status == 403 and error_code != "RepoNotFound"):
        return KnownError(
            "hub-gated",
            f"Its makers want you to accept their terms first. Visit {page} , accept, and enter "
            "an access token of your account in Grove.",
            detail=f"{status} {error_code}",
        )
    if status == 401:
        return KnownError(
            "hub-login",
            f"These weights are private, or they are not there any more. If {page} shows them to "
            "you, enter an access token of your account in Grove.",
            detail=f"{status} {error_code}",
        )
    if status in (404, 410):
        return KnownError(
            "hub-missing",
            "This is not on the hub, or not any more. Check its name, or search again.",
            detail=f"{status} {error_code}",
        )
    return KnownError(
        "hub-refused",
        f"The hub refuses this request (status {status}). Try again later.",
        detail=error_code,
    )


def origin_of(url: str) -> str:
    """Scheme, host and port: what a token may be sent to."""
    parts = httpx2.URL(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return f"{parts.scheme}://{parts.host}:{port}".lower()


def redirected(url: str, location: str) -> str:
    """Where `url` leads.  Raises KnownError ``hub-refused``: never from TLS to no TLS."""
    following = httpx2.URL(url).join(location)
    if following.scheme not in ("http", "https"):
        raise KnownError(
            "hub-refused",
            "The hub sends this download to something that is no web address, so it was stopped.",
            detail=following.scheme,
        )
    if httpx2.URL(url).scheme == "https" and following.scheme == "http":
        raise KnownError(
            "hub-refused",
            "The hub sends this download over an unprotected connection, so it was stopped.",
            detail=f"from {origin_of(url)}",
        )
    return str(following)


def etag_of(text: str) -> str:
    return text.removeprefix("W/").strip('"')


def count_of(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 18 else 0


def content_range(text: str) -> tuple[int, int] | None:
    """(first byte, total) of ``bytes 5-9/10``; total 0 for ``*``."""
    match = re.fullmatch(r"bytes (\d{1,17})-\d{1,17}/(\d{1,17}|\*)", text.strip())
    return (int(match[1]), count_of(match[2])) if match else None


def retry_after_s(text: str) -> float:
    """Seconds to wait: a number or a date.  At most one hour."""
    text = text.strip()
    if text.isdecimal():
        return min(3600.0, float(text))
    with contextlib.suppress(ValueError, TypeError):
        return min(
            3600.0, max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
        )
    return 0.0
