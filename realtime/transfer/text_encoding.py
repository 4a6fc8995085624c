"""The encoding of text files: find it, and decode them without losing text.

The rule is simple and always gives the same result: a byte order mark decides; else UTF-16 or UTF-32 if the NUL bytes
are where those have them; else UTF-8; and bytes that are not UTF-8 are Windows-1252. A guess by statistics would also
know other encodings, but it is often wrong for short notes, and wrong in another way with every version of the guesser.
Windows-1252 maps each byte to a character of its own, so nothing is lost where the file was in another encoding.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter

from realtime.errors import FileSkipped

WIDEST_CHARACTER = 4
"""The most bytes that an ASCII character takes in any of the encodings."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32 LE"),
    (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32 BE"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16 LE"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16 BE"),
)
_WIDE = {"UTF-32 LE": "utf-32-le", "UTF-32 BE": "utf-32-be", "UTF-16 LE": "utf-16-le", "UTF-16 BE": "utf-16-be"}
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_BINARY_SHARE = 0.1
"""From this share of control characters on, bytes that are not UTF-8 are no text."""
_WIDER = re.compile(r"[^\x00-\x7f]")
_ESCAPED = re.compile("[\udc80-\udcff]")


def _windows_1252() -> dict[int, str]:
    """Return what differs from Latin-1. Bytes that Windows-1252 leaves undefined stay as they are, as in browsers."""
    table = {}
    for byte in range(0x80, 0xA0):
        try:
            table[byte] = bytes([byte]).decode("cp1252")
        except UnicodeDecodeError:
            continue
    return table


_TABLE = _windows_1252()
_ESCAPES = {0xDC00 + byte: _TABLE.get(byte, chr(byte)) for byte in range(0x80, 0x100)}
"""The characters of bytes that ``surrogateescape`` leaves."""


def from_windows_1252(data: bytes) -> str:
    """Decode Windows-1252; never fails."""
    return data.decode("latin-1").translate(_TABLE)


def decode(data: bytes) -> tuple[str, list[str]]:
    """Return the text of a file, without a byte order mark, and what was done to read it.

    The text can be stored: it has neither NUL nor lone surrogates. Raises :class:`FileSkipped` for what is no text.
    """
    text, changes = _decoded(data)
    if "\0" in text:
        changes.append(f"text: {_counted(text.count(chr(0)), 'NUL character')} became U+FFFD")
        text = text.replace("\0", "\ufffd")
    return text, changes


def _decoded(data: bytes) -> tuple[str, list[str]]:
    for mark, codec, name in _MARKS:
        # The mark of UTF-32 LE begins with that of UTF-16 LE.
        if data.startswith(mark) and (codec != "utf-32-le" or _is_text(data, codec, printable=False)):
            if codec == "utf-8":
                text, changes = _decoded_utf_8(data[len(mark) :])
                return text, ["encoding: a byte order mark of UTF-8 was removed", *changes]
            return _decoded_wide(data[len(mark) :], codec, name)
    wide = _wide_encoding(data) if b"\0" in data else None
    if wide is not None:
        return _decoded_wide(data, _WIDE[wide], wide)
    return _decoded_utf_8(data)


def _decoded_wide(data: bytes, codec: str, name: str) -> tuple[str, list[str]]:
    changes = [f"encoding: was read as {name}"]
    try:
        return data.decode(codec), changes
    except UnicodeDecodeError:
        text = data.decode(codec, "replace")
        return text, [*changes, "text: what is damaged in it became U+FFFD"]


def _wide_encoding(data: bytes) -> str | None:
    """Return the encoding of a text in UTF-16 or UTF-32 without a byte order mark."""
    for name, high in (("UTF-32 LE", data[3::4]), ("UTF-32 BE", data[::4])):
        if len(data) % 4 == 0 and not any(high) and _is_text(data, _WIDE[name]):
            return name
    if len(data) % 2:
        return None
    even, odd = data[::2].count(0), data[1::2].count(0)
    if bool(even) is bool(odd):
        return None
    name = "UTF-16 LE" if odd else "UTF-16 BE"
    if max(even, odd) > 0.6 * len(data) / 2:
        return name if _is_text(data, _WIDE[name], printable=False) else None
    # Other alphabets have NUL only in spaces and line feeds, and their own number below 32 in most other high bytes.
    high = data[1::2] if odd else data[::2]
    (byte, common), *_ = Counter(high.replace(b"\0", b"")).most_common(1)
    likely = byte < 0x20 and common + max(even, odd) > 0.8 * len(high)
    return name if likely and _is_text(data, _WIDE[name]) else None


def _is_text(data: bytes, codec: str, *, printable: bool = True) -> bool:
    try:
        text = data.decode(codec)
    except UnicodeDecodeError:
        return False
    return "\0" not in text and (not printable or all(sign.isprintable() or sign.isspace() for sign in text))


def _decoded_utf_8(data: bytes) -> tuple[str, list[str]]:
    try:
        return data.decode(), []
    except UnicodeDecodeError:
        text = data.decode("utf-8", "surrogateescape")
    if b"\0" in data or len(_CONTROLS.findall(text)) > _BINARY_SHARE * len(text):
        raise FileSkipped("is not a text file")
    wrong = len(_ESCAPED.findall(text))
    if len(_WIDER.findall(text)) - wrong < wrong:
        return from_windows_1252(data), ["encoding: was read as Windows-1252, as it is not UTF-8"]
    bytes_were = "1 byte was not UTF-8 and was" if wrong == 1 else f"{wrong} bytes were not UTF-8 and were"
    return text.translate(_ESCAPES), [f"encoding: {bytes_were} read as Windows-1252"]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
