"""Snippets: where the words of a search stand in a note, as MongoDB's text search finds them.

It takes words without case and accents; ``"a phrase"`` must be there as it is, and ``-word`` must not be there.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from html import escape

BEFORE = 60
LENGTH = 240

_TERM = re.compile(r'(-?)(?:"([^"]*)"|([^\s"]+))')
# Marks are at the beginning of planes 0 and 1, and in plane 14: looking at all of Unicode takes a tenth of a second.
_PLACES = (*range(0x300, 0x3100), *range(0xA000, 0xB000), *range(0xFB00, 0x1F000), *range(0xE0100, 0xE01F0))
_MARKS = "".join(sign for sign in map(chr, _PLACES) if unicodedata.category(sign)[0] == "M")
_WORD = re.compile(rf"\w+(?:[{_MARKS}]+\w*)*")


def snippet(query: str, *texts: str) -> str:
    """An excerpt of the first text that has a hit, else the beginning of the first that is not empty.

    It is HTML: the text escaped, hits in ``<mark>``, an ellipsis where it is cut.
    """
    wanted = set(_words(query))
    for text in texts:
        if first := next(_hits(text, wanted), None):
            start = max(0, first[0] - BEFORE, first[1] - LENGTH)
            if start:  # not in the middle of a word
                start += re.match(r"\w*\W*", text[start : first[0]]).end()  # type: ignore[union-attr]  # may be empty
            return _marked(text, start, wanted)
    return _marked(next(filter(None, texts), ""), 0, set())


def _words(query: str) -> Iterator[str]:
    for minus, phrase, word in _TERM.findall(query):
        if not minus:
            yield from (folded(found) for found in _WORD.findall(phrase or word))


def folded(text: str) -> str:
    """A text without case and accents."""
    if text.isascii():
        return text.lower()
    return "".join(sign for sign in unicodedata.normalize("NFKD", text).casefold() if not unicodedata.combining(sign))


def _hits(text: str, wanted: set[str], start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int]]:
    """Where the wanted words stand that are whole between the bounds."""
    for match in _WORD.finditer(text, start):
        if stop is not None and match.end() > stop:
            return
        if folded(match[0]) in wanted:
            yield match.span()


def _marked(text: str, start: int, wanted: set[str]) -> str:
    stop = min(start + LENGTH, len(text))
    out = ["…"] if start else []
    at = start
    for begin, end in _hits(text, wanted, start, stop):
        out += [escape(text[at:begin]), "<mark>", escape(text[begin:end]), "</mark>"]
        at = end
    out.append(escape(text[at:stop]))
    if stop < len(text):
        out.append("…")
    return "".join(out)
