"""Lines and headings of Markdown texts."""

from __future__ import annotations

import re
from collections.abc import Iterator

_LINES = re.compile(r"[^\n]*\n|[^\n]+")
_FIRST_WORDS = re.compile(r"^(?!#|---|\+\+\+)[^\n]*\S[^\n]*", re.MULTILINE)
_SEARCHED = 10_000
"""Characters, from the first one that is not blank, in which the first line is looked for."""
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+")
_MARKED = re.compile(r"^ {0,3}(?:(#{1,6})[ \t]+|(`{3,}|~{3,}))(.*)", re.MULTILINE)


def lines_of(text: str) -> list[str]:
    """The lines of a text, each with its line feed; nothing else ends a line."""
    return _LINES.findall(text)


def first_line(text: str) -> str:
    """Return the first line that is neither empty nor begins like a heading, a rule or front matter; else ``""``."""
    match = _FIRST_WORDS.search(_begin(text, _SEARCHED))
    return match[0] if match else ""


def first_heading(text: str) -> str | None:
    """Return the words of the heading that a text begins with, or ``None``."""
    return heading_in(_begin(text, _SEARCHED).partition("\n")[0])


def _begin(text: str, length: int) -> str:
    """Return the lines from the first one that is not blank, up to a length."""
    blank = len(text) - len(text.lstrip())
    start = text.rfind("\n", 0, blank) + 1
    return text[start : start + length]


def headings(content: str) -> Iterator[tuple[int, str]]:
    """The ATX headings of a text (CommonMark 4.2) outside of fenced code: where the next line begins, and the words."""
    fence = ""
    for match in _MARKED.finditer(content):
        opened, mark, rest = match.groups()
        if opened and not fence:
            yield min(match.end() + 1, len(content)), words_of(rest)
        elif mark and not fence:
            fence = "" if mark[0] == "`" and "`" in rest else mark
        elif mark and mark.startswith(fence) and not rest.strip():
            fence = ""


def heading_in(line: str) -> str | None:
    """What a line says if it is a heading."""
    match = _HEADING.match(line)
    return words_of(line[match.end() :]) if match else None


def words_of(heading: str) -> str:
    """What an ATX heading says, without the ``#`` that may close it."""
    words = heading.strip()
    opened = words.rstrip("#")
    return opened.rstrip() if not opened or opened[-1] in " \t" else words
