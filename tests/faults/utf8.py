"""Valid and invalid UTF-8 from the cases of the Autobahn|Testsuite."""

from __future__ import annotations

from collections.abc import Iterable

KOSME = "κόσμε".encode()


def _numbered(section: str, texts: Iterable[bytes]) -> dict[str, bytes]:
    return {f"{section}.{number}": text for number, text in enumerate(texts, 1)}


def _long(value: int, size: int) -> bytes:
    """Encode a number in UTF-8 with a given number of bytes, even if that is not allowed."""
    first = {2: 0xC0, 3: 0xE0, 4: 0xF0, 5: 0xF8, 6: 0xFC}[size]
    rest = bytes(0x80 | value >> 6 * at & 0x3F for at in range(size - 2, -1, -1))
    return bytes((first | value >> 6 * (size - 1),)) + rest


_MORE = b"\x80\xbf" * 3
_MAXIMA = [0x7F, 0x7FF, 0xFFFF, 0x1FFFFF, 0x3FFFFFF, 0x7FFFFFFF]
_SHORT = [_long(0, 2)[:1], b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80"]
_CUT = [*_SHORT, b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf"]
_SURROGATES = [0xD800, 0xDB7F, 0xDB80, 0xDBFF, 0xDC00, 0xDF80, 0xDFFF]
_PAIRS = [(high, low) for high in (0xD800, 0xDB7F, 0xDB80, 0xDBFF) for low in (0xDC00, 0xDFFF)]
_GREEK = [KOSME[:size] for size in range(1, len(KOSME) + 1)]


def _good(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _lonely(ends: tuple[int, int]) -> bytes:
    """Return start bytes of characters, each followed by a space instead of continuation bytes."""
    return b"".join(bytes((byte, 0x20)) for byte in range(*ends))


_BOTH = _numbered("6.6", _GREEK)

VALID = {
    **_numbered("6.5", [KOSME, b"\x7f", "\u07ff".encode(), "\uffff".encode(), "\U0010ffff".encode()]),
    **{id: text for id, text in _BOTH.items() if _good(text)},
    **_numbered("6.7", [b"\x01", "\x80".encode(), "\u0800".encode(), "\U00010000".encode()]),
    **_numbered("6.9", [b"\x7f", "\u07ff".encode(), "\uffff".encode(), "\U0010ffff".encode()]),
    **_numbered("6.11", ["\ud7ff".encode(), "\ue000".encode(), "\ufffd".encode(), "\U0010ffff".encode()]),
    **_numbered("6.22", [chr(plane << 16 | last).encode() for plane in range(17) for last in (0xFFFE, 0xFFFF)]),
    **_numbered("6.23", [chr(0xFFF9 + number).encode() for number in range(7)]),
}
"""Valid texts."""

INVALID = {
    "6.3.1": KOSME + b"\xed\xa0\x80edited",
    **{id: text for id, text in _BOTH.items() if not _good(text)},
    **_numbered("6.8", [_long(0x200000, 5), _long(0x4000000, 6)]),
    **_numbered("6.10", [_long(value, size) for size, value in enumerate(_MAXIMA[3:], 4)]),
    "6.11.5": b"\xf4\x90\x80\x80",
    **_numbered("6.12", [b"\xbf", *(_MORE[:size] for size in range(1, 7)), bytes(range(0x80, 0xC0))]),
    **_numbered("6.13", map(_lonely, ((0xC0, 0xE0), (0xE0, 0xF0), (0xF0, 0xF8), (0xF8, 0xFC), (0xFC, 0xFE)))),
    **_numbered("6.14", _CUT),
    "6.15.1": b"".join(_CUT),
    **_numbered("6.16", [b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]),
    **_numbered("6.17", [_long(0x2F, size) for size in range(2, 7)]),
    **_numbered("6.18", [_long(_MAXIMA[size - 2], size) for size in range(2, 7)]),
    **_numbered("6.19", [_long(0, size) for size in range(2, 7)]),
    **_numbered("6.20", [_long(value, 3) for value in _SURROGATES]),
    **_numbered("6.21", [_long(high, 3) + _long(low, 3) for high, low in _PAIRS]),
}  # fmt: skip
"""Invalid byte sequences."""
