"""Makes characters visible that would hide, reorder or break text; nothing is dropped.

Bidirectional overrides can make text read differently from what it says (CVE-2021-42574,
"Trojan Source"), tag characters can carry invisible text, and some code points mean structure to
Qt's documents.  All are shown as ``⟨U+202E⟩``; C0 controls as their Unicode pictures (␀, ␛).
"""

from __future__ import annotations

import re

# Emoji flags of parts of countries are spelled with tag characters: those stay.
_FLAG = "\U0001f3f4[\U000e0061-\U000e007a]+\U000e007f"
_HIDDEN = re.compile(
    _FLAG + "|["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls; tab and line feed stay
    "\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"  # direction and invisible marks
    "\u2028\u2029\ufeff\ufff9-\ufffc"  # separators, byte order mark, annotations, object marks
    "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"  # lone surrogates, noncharacters (Qt's frame marks)
    "\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """`text` with every hidden character shown.  Line ends become ``\\n``."""
    if text.isascii() and text.isprintable():
        return text
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _HIDDEN.sub(_shown, text)


def _shown(found: re.Match[str]) -> str:
    text = found[0]
    if len(text) > 1:
        return text  # a flag
    code = ord(text)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if text in "\u2028\u2029":
        return "\n"
    return f"⟨U+{code:04X}⟩"
