"""Colours for code: Pygments tokens as ranges of theme roles.  Pure Python, any thread."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol, cast

_LONG_LINE = 600
"""Lexers are regular expressions; a line this long is data, not code to read."""

_ALIASES = {"py": "python", "js": "javascript", "ts": "typescript", "sh": "bash", "c++": "cpp"}

_ROLES = (  # the first prefix that fits decides
    ("Comment.Preproc", "codekey"),
    ("Comment", "codecomment"),
    ("Literal.String.Doc", "codecomment"),
    ("Literal.String", "codestring"),
    ("Literal.Number", "codenumber"),
    ("Keyword.Constant", "codenumber"),
    ("Keyword", "codekey"),
    ("Operator.Word", "codekey"),
    ("Name.Function", "codename"),
    ("Name.Class", "codename"),
    ("Name.Decorator", "codename"),
    ("Name.Tag", "codekey"),
    ("Name.Attribute", "codename"),
    ("Name.Builtin.Pseudo", "codenumber"),
    ("Generic.Deleted", "clay"),
    ("Generic.Inserted", "accent"),
    ("Generic.Heading", "codename"),
)


class _Lexer(Protocol):
    def get_tokens_unprocessed(self, text: str) -> list[tuple[int, object, str]]: ...


@lru_cache(maxsize=64)
def _lexer(language: str) -> _Lexer | None:
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        return cast("_Lexer", get_lexer_by_name(_ALIASES.get(language, language)))
    except ClassNotFound:
        return None


@lru_cache(maxsize=512)
def _role(token: object) -> str:
    name = str(token).removeprefix("Token.")
    return next((role for prefix, role in _ROLES if name.startswith(prefix)), "")


@lru_cache(maxsize=256)
def code_ranges(code: str, language: str, before: str = "") -> tuple[tuple[int, int, str], ...]:
    """(start, length, role) of coloured stretches of `code`, in characters.

    `before` is code that comes first, for a block that is shown in several pieces.  Nothing for
    an unknown language and for lines that are too long.
    """
    name = language.split(maxsplit=1)[0].lower() if language.strip() else ""
    lexer = _lexer(name.strip("{}.,:")) if name else None
    if lexer is None or any(len(line) > _LONG_LINE for line in code.split("\n")):
        return ()
    skip = len(before) + 1 if before else 0
    text = f"{before}\n{code}" if before else code
    ranges: list[tuple[int, int, str]] = []
    for start, token, value in lexer.get_tokens_unprocessed(text):
        role = _role(token)
        end = start + len(value)
        if role and end > skip:
            begin = max(start, skip)
            ranges.append((begin - skip, end - begin, role))
    return tuple(ranges)
