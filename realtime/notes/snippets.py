"""Snippets: excerpts of notes with the matches of a search, by the rules of MongoDB's text search.

The search ignores case and accents. A ``"phrase"`` must occur exactly, and a ``-word`` must not occur.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from html import escape

CONTEXT_CHARACTERS = 60
"""The number of characters before the first match."""
MAX_SNIPPET_CHARACTERS = 240

_TERM = re.compile(r'(-?)(?:"([^"]*)"|([^\s"]+))')
# Combining marks occur only in these ranges. Testing all code points would take 0.1 s at startup.
_MARK_RANGES = (*range(0x300, 0x3100), *range(0xA000, 0xB000), *range(0xFB00, 0x1F000), *range(0xE0100, 0xE01F0))
_MARKS = "".join(char for char in map(chr, _MARK_RANGES) if unicodedata.category(char)[0] == "M")
_WORD = re.compile(rf"\w+(?:[{_MARKS}]+\w*)*")


def snippet(query: str, *texts: str) -> str:
    """Return an excerpt of the first text with a match, or else the beginning of the first text that is not empty.

    Args:
        query: The search.
        texts: The texts of a note.

    Returns:
        HTML: the escaped text, with each match in ``<mark>``, and an ellipsis where it is cut.
    """
    wanted = set(_words(query))
    for text in texts:
        if first := next(_matches(text, wanted), None):
            start = max(0, first[0] - CONTEXT_CHARACTERS, first[1] - MAX_SNIPPET_CHARACTERS)
            if start:  # do not begin in the middle of a word
                start += re.match(r"\w*\W*", text[start : first[0]]).end()  # type: ignore[union-attr]  # may be empty
            return _marked(text, start, wanted)
    return _marked(next(filter(None, texts), ""), 0, set())


def _words(query: str) -> Iterator[str]:
    for minus, phrase, word in _TERM.findall(query):
        if not minus:
            yield from (folded(term) for term in _WORD.findall(phrase or word))


def folded(text: str) -> str:
    """Return a text in lower case without accents."""
    if text.isascii():
        return text.lower()
    return "".join(char for char in unicodedata.normalize("NFKD", text).casefold() if not unicodedata.combining(char))


def _matches(text: str, wanted: set[str], start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each wanted word that lies entirely within the bounds."""
    for match in _WORD.finditer(text, start):
        if stop is not None and match.end() > stop:
            return
        if folded(match[0]) in wanted:
            yield match.span()


def _marked(text: str, start: int, wanted: set[str]) -> str:
    """Return the excerpt that begins at an offset."""
    stop = min(start + MAX_SNIPPET_CHARACTERS, len(text))
    out = ["…"] if start else []
    position = start
    for begin, end in _matches(text, wanted, start, stop):
        out += [escape(text[position:begin]), "<mark>", escape(text[begin:end]), "</mark>"]
        position = end
    out.append(escape(text[position:stop]))
    if stop < len(text):
        out.append("…")
    return "".join(out)
