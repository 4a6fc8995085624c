"""The shared text of a note: a Yjs document with one text, ``content``. Bytes in, bytes out, no waiting.

An update is Yjs's encoding, version 1 (lib0 variable-length integers; the same that Yrs reads). Updates come from
strangers, so each is walked first: the library reserves memory for as many items as an update claims to have, and is
never shown one that claims more than it holds. Only what a plain text is made of is let in.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from typing import NamedTuple

import pycrdt

from realtime.errors import DocumentBroken, MalformedUpdate
from realtime.lib0 import Reader

ROOT = "content"
EMPTY = b"\0\0"
"""The update without any change."""
NOTHING = b"\0"
"""The state of a document without any change."""

_GC, _DELETED, _STRING, _FORMAT, _SKIP = 0, 1, 4, 6, 10
_OTHERS = {2: "JSON", 3: "binary data", 5: "embedded objects", 7: "nested types", 8: "values", 9: "documents"}
_ORIGIN, _RIGHT_ORIGIN, _KEYED = 0x80, 0x40, 0x20
_LARGEST_CLIENT = 2**53 - 1
_LARGEST_CLOCK = 2**31 - 1
"""Yrs counts in 32 bits, and adds up."""


class _Walk(NamedTuple):
    """What an update holds: of each client the clocks from where to where, and which clocks it builds upon."""

    starts: dict[int, int]
    ends: dict[int, int]
    needs: dict[int, int]


def _walk(update: bytes) -> _Walk:
    """Reads an update from end to end. Raises :class:`MalformedUpdate`."""
    reader = Reader(update)
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    needs: dict[int, int] = {}

    def need(client: int, clock: int) -> None:
        if needs.get(client, 0) < clock:
            needs[client] = clock

    for _ in range(reader.count()):
        structs = reader.count()
        client = reader.number(_LARGEST_CLIENT)
        clock = reader.number(_LARGEST_CLOCK)
        if client in ends:
            raise MalformedUpdate("names a client twice")
        if structs == 0:
            raise MalformedUpdate("names a client without anything of it")
        starts[client] = clock
        for _ in range(structs):
            clock += _struct(reader, need)
            if clock > _LARGEST_CLOCK:
                raise MalformedUpdate("counts too far")
        ends[client] = clock
    for _ in range(reader.count()):
        client = reader.number(_LARGEST_CLIENT)
        for _ in range(reader.count()):
            deleted = reader.number(_LARGEST_CLOCK)
            need(client, deleted + reader.number(_LARGEST_CLOCK - deleted))
    reader.finish()
    return _Walk(starts, ends, needs)


def _struct(reader: Reader, need: Callable[[int, int], None]) -> int:
    """Reads one piece of an update, and returns how many clocks it takes."""
    info = reader.byte()
    kind = info & 0x1F
    if kind in (_GC, _SKIP):
        length = reader.number(_LARGEST_CLOCK)
        if length == 0:
            raise MalformedUpdate("holds a piece of no length")
        return length
    for flag in (_ORIGIN, _RIGHT_ORIGIN):
        if info & flag:
            need(reader.number(_LARGEST_CLIENT), reader.number(_LARGEST_CLOCK - 1) + 1)
    if not info & (_ORIGIN | _RIGHT_ORIGIN):
        if reader.number(1) == 0:
            raise MalformedUpdate("writes into a nested type; only the text is shared here")
        if reader.string() != ROOT:
            raise MalformedUpdate(f"writes elsewhere than into the text {ROOT!r}")
        if info & _KEYED:
            raise MalformedUpdate("sets a key; only the text is shared here")
    if kind == _STRING:
        text = reader.string()
        # Clocks count UTF-16 code units, as JavaScript does.
        length = len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2
    elif kind == _DELETED:
        length = reader.number(_LARGEST_CLOCK)
    elif kind == _FORMAT:
        reader.string()
        reader.string()
        return 1
    else:
        raise MalformedUpdate(f"holds {_OTHERS.get(kind, 'something unknown')}; only the text is shared here")
    if length == 0:
        raise MalformedUpdate("holds a piece of no length")
    return length


def _clocks(state: bytes) -> dict[int, int]:
    """A state as how far each client has come. Raises :class:`MalformedUpdate`."""
    reader = Reader(state)
    clocks = {
        reader.number(_LARGEST_CLIENT): reader.number(_LARGEST_CLOCK) for _ in range(reader.number(len(state) // 2))
    }
    reader.finish()
    return clocks


class Document:
    """One shared text.

    What builds upon changes that are not here yet is kept until they come. After :class:`DocumentBroken` was raised,
    a document must not be used any more.
    """

    def __init__(self, updates: Iterable[bytes] = (), client: int | None = None) -> None:
        """A document made of updates; ``client`` is who writes with :meth:`edit`."""
        # It is loaded in one thread and used in another.
        self._doc: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc(client_id=client, allow_multithreading=True)
        self._text = self._doc.get(ROOT, type=pycrdt.Text)
        self._known: dict[int, int] = {}
        self._pending: list[bytes] = []
        for update in updates:
            self.apply(update)

    def apply(self, update: bytes) -> None:
        """Takes an update. Raises :class:`MalformedUpdate` with nothing changed, or :class:`DocumentBroken`."""
        walk = _walk(update)
        try:
            self._doc.apply_update(update)
        except ValueError as error:
            raise MalformedUpdate(f"cannot be decoded: {error}") from None
        except BaseException as error:
            # Rust's panics do not derive from Exception, and leave the document in any state.
            if type(error).__name__ != "PanicException":
                raise
            raise DocumentBroken(str(error)) from None
        if not self._pending and self._follows(walk):
            self._known |= {client: max(end, self._known.get(client, 0)) for client, end in walk.ends.items()}
            return
        self._known = _clocks(self._doc.get_state())
        self._pending = [one for one in (*self._pending, update) if not self._has(_walk(one))]

    def _follows(self, walk: _Walk) -> bool:
        """Whether all that an update builds upon is there, or in itself."""
        known, ends = self._known, walk.ends
        return all(known.get(client, 0) >= start for client, start in walk.starts.items()) and all(
            known.get(client, 0) >= clock or ends.get(client, 0) >= clock for client, clock in walk.needs.items()
        )

    def _has(self, walk: _Walk) -> bool:
        known = self._known
        reach = (*walk.ends.items(), *walk.needs.items())
        return all(known.get(client, 0) >= clock for client, clock in reach)

    @property
    def waits(self) -> bool:
        """Whether something builds upon changes that are not here."""
        return bool(self._pending)

    @property
    def state(self) -> bytes:
        """What is here, as Yjs's state vector."""
        return self._doc.get_state()

    def since(self, state: bytes = NOTHING) -> bytes:
        """What is here and was not in a state, what waits included. Raises :class:`MalformedUpdate`."""
        _clocks(state)
        try:
            update = self._doc.get_update(state)
        except ValueError as error:
            raise MalformedUpdate(f"the state cannot be decoded: {error}") from None
        return pycrdt.merge_updates(update, *self._pending) if self._pending else update

    @property
    def length(self) -> int:
        """Bytes of the text in UTF-8."""
        return len(self._text)

    def __str__(self) -> str:
        """The text."""
        return str(self._text)

    def edit(self, changes: Iterable[tuple[int, int, str]]) -> bytes:
        """Replaces characters ``start`` to ``end`` of the text, places ascending and apart.

        Returns the update that does the same elsewhere.
        """
        before = str(self._text)
        # The library counts bytes of UTF-8.
        places: list[tuple[int, int, str]] = []
        at = seen = 0
        for start, end, text in changes:
            at += len(before[seen:start].encode())
            size = len(before[start:end].encode())
            places.append((at, size, text))
            at, seen = at + size, end
        state = self._doc.get_state()
        with self._doc.transaction():
            for at, size, text in reversed(places):
                if size:
                    del self._text[at : at + size]
                if text:
                    self._text.insert(at, text)
        self._known = _clocks(self._doc.get_state())
        return self._doc.get_update(state)


def check(update: bytes) -> None:
    """Raises :class:`MalformedUpdate` for what is no update of a plain text."""
    _walk(update)


def genesis(text: str) -> bytes:
    """The update that makes a text out of nothing. Its client is random: two of one text do not merge into one."""
    return Document(client=new_client()).edit([(0, 0, text)]) if text else EMPTY


def new_client() -> int:
    """An id to write under, as Yjs draws it: what is written twice under one id at one clock is lost."""
    return secrets.randbits(32)


def compacted(updates: Iterable[bytes]) -> bytes:
    """Several updates as one, without the characters that were deleted."""
    # Document by document, and not by the library's merging of updates, which takes quadratic time.
    return Document(updates).since()
