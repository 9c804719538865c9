"""Text for an output whose encoding lacks some of its characters: a Latin-1 locale, ``PYTHONIOENCODING``, a pipe on
Windows. What is lost otherwise is more than the character: Python ends the command, and pytest puts the whole message
on one line of escapes."""

from __future__ import annotations

import codecs
import io
from typing import TextIO

__all__ = ["encodable", "spell_out"]

_HANDLER = "pytest-trt-plain"
_SPELLINGS = {
    "…": "...", "─": "-", "→": "->", "·": "*", "×": "x", "±": "+-", "≤": "<=", "≥": ">=", "–": "-", "²": "^2"
}  # fmt: skip


def encodable(text: str, encoding: str | None) -> str:
    """*text* with what *encoding* lacks spelled out: ``→`` as ``->``, anything else as its escape."""
    known = encoding or "utf-8"
    return text.encode(known, _HANDLER).decode(known)


def spell_out(stream: TextIO) -> None:
    """Let *stream* spell out what its encoding lacks from now on, where it can."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=_HANDLER)


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    escaped = (_SPELLINGS.get(one) or one.encode("ascii", "backslashreplace").decode() for one in lacking)
    return "".join(escaped), error.end


codecs.register_error(_HANDLER, _spelled)
