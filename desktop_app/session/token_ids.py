"""The token ids of a reply, kept beside its text.

Text that was written token by token need not be cut into the same tokens again: then all that is
parked behind the first difference would be read anew.  So the text part of a reply holds the ids
that it was written with, and the weights whose ids they are, in its `meta`.  An edit or a
continuation makes a new part, without them.  The engine uses the ids only where they spell the
text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from desktop_app.conversation import Part, PartKind, Parts

_IDS: Final = "token_ids"
_WEIGHTS: Final = "weights_hash"


def with_ids(parts: Parts, tokens: Sequence[int], weights_hash: object) -> Parts:
    """`parts` of a reply with the ids that its text was written with.

    As they are where there is more than text: the ids of reasoning stand for more than is shown.
    """
    if len(parts) != 1 or parts[0].kind is not PartKind.TEXT or not tokens:
        return parts
    if not isinstance(weights_hash, str) or not weights_hash:
        return parts
    meta = {**parts[0].meta, _IDS: list(tokens), _WEIGHTS: weights_hash}
    return (replace(parts[0], meta=meta),)


def ids_of(parts: Iterable[Part], weights_hash: str) -> tuple[int, ...]:
    """The ids of a reply's text for these weights; none where nothing usable is kept."""
    for part in parts:
        ids = part.meta.get(_IDS)
        if part.meta.get(_WEIGHTS) == weights_hash and isinstance(ids, list):
            found = tuple(i for i in ids if type(i) is int and 0 <= i < 2**31)
            return found if len(found) == len(ids) else ()
    return ()
