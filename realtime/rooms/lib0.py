"""The lib0 encoding used by Yjs messages and updates: variable-length integers, strings and arrays."""

from __future__ import annotations

from realtime.errors import MalformedUpdate


class Reader:
    """Decodes untrusted data. Every method raises :class:`MalformedUpdate` for invalid data."""

    __slots__ = ("data", "end", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.end = len(data)

    def number(self, limit: int) -> int:
        """Read a variable-length integer: 7 bits per byte, lowest first; the eighth bit is set if more bytes follow."""
        data, position = self.data, self.position
        value = shift = 0
        while position < self.end and shift <= 56:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > limit:
                    raise MalformedUpdate(f"has the number {value}, more than the limit of {limit}")
                self.position = position
                return value
            shift += 7
        raise MalformedUpdate("ends within a number")

    def count(self) -> int:
        """Read the number of items that follow; each takes at least one byte."""
        return self.number(self.end - self.position)

    def byte(self) -> int:
        """Read one byte."""
        if self.position >= self.end:
            raise MalformedUpdate("ends too early")
        self.position += 1
        return self.data[self.position - 1]

    def array(self) -> bytes:
        """Read a byte string that is prefixed by its length."""
        size = self.number(self.end - self.position)
        start = self.position
        if start + size > self.end:
            raise MalformedUpdate("ends within a string")
        self.position = start + size
        return self.data[start : self.position]

    def string(self) -> str:
        """Read UTF-8 text that is prefixed by its length in bytes."""
        try:
            return self.array().decode()
        except UnicodeDecodeError:
            raise MalformedUpdate("has a string that is not UTF-8") from None

    def finish(self) -> None:
        """Raise :class:`MalformedUpdate` if there is more data."""
        if self.position != self.end:
            raise MalformedUpdate("has data after its end")


def number(value: int) -> bytes:
    """Encode a variable-length integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def array(data: bytes) -> bytes:
    """Encode a byte string, prefixed by its length."""
    return number(len(data)) + data


def string(text: str) -> bytes:
    """Encode text as UTF-8, prefixed by its length in bytes."""
    return array(text.encode())
