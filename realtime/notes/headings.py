"""Lines and headings of Markdown texts."""

from __future__ import annotations

import re
from collections.abc import Iterator

_LINES = re.compile(r"[^\n]*\n|[^\n]+")
_FIRST_WORDS = re.compile(r"^(?!#|---|\+\+\+)[^\n]*\S[^\n]*", re.MULTILINE)
_SEARCHED_CHARACTERS = 10_000
"""The number of characters, from the first one that is not blank, that are searched for the first line."""
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+")
_MARKED = re.compile(r"^ {0,3}(?:(#{1,6})[ \t]+|(`{3,}|~{3,}))(.*)", re.MULTILINE)


def lines_of(text: str) -> list[str]:
    """Return the lines of a text, including their line feeds. Other characters do not end a line."""
    return _LINES.findall(text)


def first_line(text: str) -> str:
    """Return the first line that is neither empty nor begins like a heading, a rule or front matter; else ``""``."""
    match = _FIRST_WORDS.search(_begin(text, _SEARCHED_CHARACTERS))
    return match[0] if match else ""


def first_heading(text: str) -> str | None:
    """Return the text of the heading that a text begins with, or ``None``."""
    return heading_in(_begin(text, _SEARCHED_CHARACTERS).partition("\n")[0])


def _begin(text: str, length: int) -> str:
    """Return the lines from the first one that is not blank, up to a length."""
    blank = len(text) - len(text.lstrip())
    start = text.rfind("\n", 0, blank) + 1
    return text[start : start + length]


def headings(content: str) -> Iterator[tuple[int, str]]:
    """Yield the ATX headings of a text (CommonMark 4.2) that are not in fenced code.

    Yields:
        The offset of the line after the heading, and the text of the heading.
    """
    fence = ""
    for match in _MARKED.finditer(content):
        hashes, mark, remainder = match.groups()
        if hashes and not fence:
            yield min(match.end() + 1, len(content)), heading_text(remainder)
        elif mark and not fence:
            fence = "" if mark[0] == "`" and "`" in remainder else mark
        elif mark and mark.startswith(fence) and not remainder.strip():
            fence = ""


def heading_in(line: str) -> str | None:
    """Return the text of a heading, or ``None`` if the line is not a heading."""
    match = _HEADING.match(line)
    return heading_text(line[match.end() :]) if match else None


def heading_text(line: str) -> str:
    """Return the text of an ATX heading without its opening, and without a closing sequence of ``#``."""
    text = line.strip()
    unclosed = text.rstrip("#")
    return unclosed.rstrip() if not unclosed or unclosed[-1] in " \t" else text
