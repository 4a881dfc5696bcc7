"""Access tokens of hubs: in the system's keyring, or for this session only where there is none.

Tokens are never written to Grove's own files and never logged.  Thread-safe.
"""

from __future__ import annotations

import threading
from typing import Any, Final

_SERVICE: Final = "Grove"


class Tokens:
    """Tokens by the hub's origin, such as ``https://huggingface.co:443``."""

    def __init__(self, *, use_keyring: bool = True) -> None:
        self._use_keyring = use_keyring
        self._session: dict[str, str] = {}
        self._asked: set[str] = set()
        self._lock = threading.Lock()

    def get(self, origin: str) -> str:
        """The token for this origin, "" for none."""
        with self._lock:
            if origin not in self._session and origin not in self._asked:
                self._asked.add(origin)
                self._session[origin] = self._from_keyring(origin)
            return self._session.get(origin, "")

    def set(self, origin: str, token: str, *, keep: bool = True) -> bool:
        """Use a token from now on.  Returns whether it outlives this session.

        `keep` false leaves the keyring alone.
        """
        token = token.strip()
        with self._lock:
            self._session[origin] = token
            self._asked.add(origin)
            ring = self._keyring() if keep else None
            if ring is None:
                return False
            try:
                ring.set_password(_SERVICE, origin, token)
            except Exception:  # noqa: BLE001 - every back end fails in ways of its own
                return False
            return True

    def forget(self, origin: str) -> None:
        """Remove the token from here and from the keyring."""
        with self._lock:
            self._session[origin] = ""
            ring = self._keyring()
            if ring is not None:
                try:
                    ring.delete_password(_SERVICE, origin)
                except Exception:  # noqa: BLE001, S110 - not there, or the ring is locked
                    pass

    def _from_keyring(self, origin: str) -> str:
        ring = self._keyring()
        if ring is None:
            return ""
        try:
            return ring.get_password(_SERVICE, origin) or ""
        except Exception:  # noqa: BLE001 - a locked or broken ring is as good as none
            return ""

    def _keyring(self) -> Any:
        if not self._use_keyring:
            return None
        import keyring
        import keyring.backends.fail

        try:
            ring = keyring.get_keyring()
        except Exception:  # noqa: BLE001 - as above
            return None
        return None if isinstance(ring, keyring.backends.fail.Keyring) else ring
