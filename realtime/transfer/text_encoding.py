"""Detects the encoding of text files and decodes them without loss.

Detection is deterministic: a byte order mark, else UTF-16 or UTF-32 by the positions of NUL bytes, else UTF-8; bytes
that are not UTF-8 are decoded as Windows-1252. Statistical detection would support more encodings, but it is often
wrong for short texts, and its results change between versions. Windows-1252 maps each byte to a different character, so
nothing is lost if the file has another encoding.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter

from realtime.errors import FileSkipped

WIDEST_CHARACTER = 4
"""The size in bytes of an ASCII character in the widest encoding."""

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32 LE"),
    (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32 BE"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16 LE"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16 BE"),
)
_WIDE = {"UTF-32 LE": "utf-32-le", "UTF-32 BE": "utf-32-be", "UTF-16 LE": "utf-16-le", "UTF-16 BE": "utf-16-be"}
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_MAX_CONTROL_SHARE = 0.1
"""A file that is not UTF-8 counts as binary if its share of control characters is larger than this."""
_NON_ASCII = re.compile(r"[^\x00-\x7f]")
_UNDECODABLE = re.compile("[\udc80-\udcff]")


def _windows_1252_table() -> dict[int, str]:
    """Return the differences from Latin-1. Undefined bytes map to the same code point, as in browsers."""
    table = {}
    for byte in range(0x80, 0xA0):
        try:
            table[byte] = bytes([byte]).decode("cp1252")
        except UnicodeDecodeError:
            continue
    return table


_WINDOWS_1252 = _windows_1252_table()
_UNDECODABLE_AS_WINDOWS_1252 = {0xDC00 + byte: _WINDOWS_1252.get(byte, chr(byte)) for byte in range(0x80, 0x100)}
"""Maps the surrogates of the ``surrogateescape`` error handler to characters."""


def from_windows_1252(data: bytes) -> str:
    """Decode Windows-1252. Every byte is valid."""
    return data.decode("latin-1").translate(_WINDOWS_1252)


def decode(data: bytes) -> tuple[str, list[str]]:
    """Decode a text file.

    Returns:
        The text, without a byte order mark, NUL characters, or lone surrogates; and the changes to report.

    Raises:
        FileSkipped: It is not a text file.
    """
    text, changes = _decode_any(data)
    if "\0" in text:
        changes.append(f"text: {_counted(text.count(chr(0)), 'NUL character')} became U+FFFD")
        text = text.replace("\0", "\ufffd")
    return text, changes


def _decode_any(data: bytes) -> tuple[str, list[str]]:
    for mark, codec, name in _BYTE_ORDER_MARKS:
        # The byte order mark of UTF-32 LE begins with that of UTF-16 LE.
        if data.startswith(mark) and (codec != "utf-32-le" or _is_text(data, codec, printable=False)):
            if codec == "utf-8":
                text, changes = _decode_utf_8(data[len(mark) :])
                return text, ["encoding: a byte order mark of UTF-8 was removed", *changes]
            return _decode_wide(data[len(mark) :], codec, name)
    wide = _wide_encoding(data) if b"\0" in data else None
    if wide is not None:
        return _decode_wide(data, _WIDE[wide], wide)
    return _decode_utf_8(data)


def _decode_wide(data: bytes, codec: str, name: str) -> tuple[str, list[str]]:
    changes = [f"encoding: was read as {name}"]
    try:
        return data.decode(codec), changes
    except UnicodeDecodeError:
        text = data.decode(codec, "replace")
        return text, [*changes, "text: invalid characters became U+FFFD"]


def _wide_encoding(data: bytes) -> str | None:
    """Return the name of the encoding of a UTF-16 or UTF-32 text without a byte order mark, or ``None``."""
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
    # Other alphabets have NUL only in spaces and line feeds, and one value below 32 in most other high bytes.
    high = data[1::2] if odd else data[::2]
    (byte, count), *_ = Counter(high.replace(b"\0", b"")).most_common(1)
    likely = byte < 0x20 and count + max(even, odd) > 0.8 * len(high)
    return name if likely and _is_text(data, _WIDE[name]) else None


def _is_text(data: bytes, codec: str, *, printable: bool = True) -> bool:
    try:
        text = data.decode(codec)
    except UnicodeDecodeError:
        return False
    return "\0" not in text and (
        not printable or all(character.isprintable() or character.isspace() for character in text)
    )


def _decode_utf_8(data: bytes) -> tuple[str, list[str]]:
    try:
        return data.decode(), []
    except UnicodeDecodeError:
        text = data.decode("utf-8", "surrogateescape")
    if b"\0" in data or len(_CONTROL_CHARACTERS.findall(text)) > _MAX_CONTROL_SHARE * len(text):
        raise FileSkipped("is not a text file")
    undecodable = len(_UNDECODABLE.findall(text))
    if len(_NON_ASCII.findall(text)) - undecodable < undecodable:
        return from_windows_1252(data), ["encoding: is not UTF-8 and was read as Windows-1252"]
    bytes_were = "1 byte was not UTF-8 and was" if undecodable == 1 else f"{undecodable} bytes were not UTF-8 and were"
    return text.translate(_UNDECODABLE_AS_WINDOWS_1252), [f"encoding: {bytes_were} read as Windows-1252"]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
