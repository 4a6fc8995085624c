"""lib0's encoding, of which the messages and updates of Yjs are made: variable-length integers, strings, arrays."""

from __future__ import annotations

from realtime.errors import MalformedUpdate


class Reader:
    """Reads what others encoded. Every method raises :class:`MalformedUpdate` for what cannot be."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.end = len(data)

    def number(self, most: int) -> int:
        """A variable-length integer: seven bits a byte, the lowest first, the eighth bit while more follow."""
        data, at = self.data, self.at
        value = shift = 0
        while at < self.end and shift <= 56:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > most:
                    raise MalformedUpdate(f"holds {value} where at most {most} can be")
                self.at = at
                return value
            shift += 7
        raise MalformedUpdate("ends within a number")

    def count(self) -> int:
        """How many things follow; each takes at least one byte."""
        return self.number(self.end - self.at)

    def byte(self) -> int:
        """One byte."""
        if self.at >= self.end:
            raise MalformedUpdate("ends too early")
        self.at += 1
        return self.data[self.at - 1]

    def array(self) -> bytes:
        """Bytes with their number before them."""
        size = self.number(self.end - self.at)
        start = self.at
        if start + size > self.end:
            raise MalformedUpdate("ends within a string")
        self.at = start + size
        return self.data[start : self.at]

    def string(self) -> str:
        """Text as UTF-8 with the number of its bytes before it."""
        try:
            return self.array().decode()
        except UnicodeDecodeError:
            raise MalformedUpdate("holds a string that is not UTF-8") from None

    def finish(self) -> None:
        """Makes sure that nothing is left."""
        if self.at != self.end:
            raise MalformedUpdate("goes on after its end")


def number(value: int) -> bytes:
    """A variable-length integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def array(data: bytes) -> bytes:
    """Bytes with their number before them."""
    return number(len(data)) + data


def string(text: str) -> bytes:
    """Text as UTF-8 with the number of its bytes before it."""
    return array(text.encode())
