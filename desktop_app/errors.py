"""The one exception type for expected failures.

The world fails in known ways (a file is damaged, a disk is full): raise `KnownError` with one
sentence for the user.  Anything else that is raised is a bug and ends in the one excepthook.
"""

from __future__ import annotations


class KnownError(Exception):
    """An expected failure of the world around Grove, not a bug.

    `code` is a stable identifier such as ``"weights-damaged"``: the interface words and translates
    by it.  `sentence` is the English wording: one or two sentences that say what happened and what
    to do.  `detail` is technical text for "Details" (never what a person wrote).
    """

    def __init__(self, code: str, sentence: str, *, detail: str = "") -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.detail = detail
