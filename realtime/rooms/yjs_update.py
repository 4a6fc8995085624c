"""Updates of a shared text in Yjs's encoding, version 1: what they hold, and what of it can be taken when.

Updates come from strangers, so each is walked before the library sees it: the library reserves memory for as many items
as an update claims to have, and is never shown one that claims more than it holds. Only what a plain text is made of is
let in. What builds upon changes that are not here yet is taken apart and kept here: the library, given it, would lose
its order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from heapq import heappop, heappush
from typing import NamedTuple, TypeVar

from realtime.errors import MalformedUpdate
from realtime.rooms import lib0
from realtime.rooms.lib0 import Reader

ROOT = "content"

_GC, _DELETED, _STRING, _FORMAT, _SKIP = 0, 1, 4, 6, 10
_OTHERS = {2: "JSON", 3: "binary data", 5: "embedded objects", 7: "nested types", 8: "values", 9: "documents"}
_ORIGIN, _RIGHT_ORIGIN, _KEYED = 0x80, 0x40, 0x20
_SMALLEST = 2
"""Bytes of a piece at least."""
T = TypeVar("T")

_LARGEST_CLIENT = 2**53 - 1
_LARGEST_CLOCK = 2**31 - 1
"""Yrs counts in 32 bits, and adds up."""


class UpdateSummary(NamedTuple):
    """What an update holds: of each client the clocks from where to where, and which clocks it builds upon."""

    starts: dict[int, int]
    """Where what it has of a client begins; after a gap in it, where it goes on."""
    ends: dict[int, int]
    needs: dict[int, int]
    cuts: list[tuple[int, int]]
    """Between which characters it puts, deletes or begins something: the client and clock of the one after."""
    pairs: dict[int, set[int]]
    """The clocks of the second halves of characters that take two."""

    def need(self, client: int, clock: int) -> None:
        """Notes that it builds upon a client's clocks up to this one."""
        if self.needs.get(client, 0) < clock:
            self.needs[client] = clock


def scan_update(update: bytes) -> UpdateSummary:
    """Reads an update from end to end. Raises :class:`MalformedUpdate`."""
    reader = Reader(update)
    walk = UpdateSummary({}, {}, {}, [], {})
    for _ in range(reader.count()):
        structs = reader.count()
        client = reader.number(_LARGEST_CLIENT)
        clock = reader.number(_LARGEST_CLOCK)
        if client in walk.ends:
            raise MalformedUpdate("names a client twice")
        if structs == 0:
            raise MalformedUpdate("names a client without anything of it")
        walk.starts[client] = clock
        for _ in range(structs):
            walk.cuts.append((client, clock))
            clock = _struct(reader, walk, client, clock)
            if clock > _LARGEST_CLOCK:
                raise MalformedUpdate("counts too far")
        walk.cuts.append((client, clock))
        walk.ends[client] = clock
    for _ in range(reader.count()):
        client = reader.number(_LARGEST_CLIENT)
        for _ in range(reader.count()):
            deleted = reader.number(_LARGEST_CLOCK)
            end = deleted + reader.number(_LARGEST_CLOCK - deleted)
            walk.need(client, end)
            walk.cuts.extend(((client, deleted), (client, end)))
    reader.finish()
    return walk


def _struct(reader: Reader, walk: UpdateSummary, client: int, clock: int) -> int:
    """Reads one piece of an update, which begins at this clock, and returns the clock after it."""
    info = reader.byte()
    kind = info & 0x1F
    if kind in (_GC, _SKIP):
        length = reader.number(_LARGEST_CLOCK)
        if length == 0:
            raise MalformedUpdate("holds a piece of no length")
        if kind == _SKIP:
            walk.starts[client] = clock + length
        return clock + length
    place = None
    for flag in (_ORIGIN, _RIGHT_ORIGIN):
        if info & flag:
            other, at = reader.number(_LARGEST_CLIENT), reader.number(_LARGEST_CLOCK - 1)
            if other == client and at >= clock:
                raise MalformedUpdate("builds upon itself")
            if place == (place := (other, at)):
                raise MalformedUpdate("goes on both sides of one character")
            walk.need(other, at + 1)
            walk.cuts.append((other, at + (flag == _ORIGIN)))
    if not info & (_ORIGIN | _RIGHT_ORIGIN):
        if reader.number(1) == 0:
            raise MalformedUpdate("writes into a nested type; only the text is shared here")
        if reader.string() != ROOT:
            raise MalformedUpdate(f"writes elsewhere than into the text {ROOT!r}")
        if info & _KEYED:
            raise MalformedUpdate("sets a key; only the text is shared here")
    if kind == _STRING:
        text = reader.string()
        if "\0" in text:
            raise MalformedUpdate("holds NUL, which no note may")
        # Clocks count UTF-16 code units, as JavaScript does.
        length = len(text)
        if not text.isascii() and max(text) > "\uffff":
            pairs = walk.pairs.setdefault(client, set())
            length = 0
            for character in text:
                length += 1
                if character > "\uffff":
                    pairs.add(clock + length)
                    length += 1
    elif kind == _DELETED:
        length = reader.number(_LARGEST_CLOCK)
    elif kind == _FORMAT:
        reader.string()
        reader.string()
        return clock + 1
    else:
        raise MalformedUpdate(f"holds {_OTHERS.get(kind, 'something unknown')}; only the text is shared here")
    if length == 0:
        raise MalformedUpdate("holds a piece of no length")
    return clock + length


def clocks_of(state: bytes) -> dict[int, int]:
    """A state as how far each client has come. Raises :class:`MalformedUpdate`."""
    reader = Reader(state)
    clocks = {
        reader.number(_LARGEST_CLIENT): reader.number(_LARGEST_CLOCK) for _ in range(reader.number(len(state) // 2))
    }
    reader.finish()
    return clocks


class Piece(NamedTuple):
    """One piece of an update: a client's clocks from where to where, its bytes, and what it builds upon."""

    client: int
    clock: int
    end: int
    data: bytes
    needs: Mapping[int, int]
    cuts: Iterable[tuple[int, int]]
    pairs: Iterable[int]


class Deletion(NamedTuple):
    """What an update deletes of a client."""

    client: int
    clock: int
    end: int


class PendingUpdates:
    """What builds upon changes that are not here."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.deletions: list[Deletion] = []

    def __len__(self) -> int:
        """How many pieces and deletions there are."""
        return len(self.pieces) + len(self.deletions)

    def add(self, update: bytes, known: Mapping[int, int]) -> None:
        """Takes an update that was walked apart, and keeps what of it is not known."""
        pieces, deletions = _apart(update)
        self.pieces = _once((*self.pieces, *pieces), known)
        self.deletions = _joined((*self.deletions, *deletions))

    def cuts(self) -> Iterable[tuple[int, int]]:
        """As those of a walk."""
        for piece in self.pieces:
            yield from ((piece.client, piece.clock), (piece.client, piece.end), *piece.cuts)
        for client, clock, end in self.deletions:
            yield from ((client, clock), (client, end))

    def pairs(self) -> dict[int, set[int]]:
        """As those of a walk."""
        pairs: dict[int, set[int]] = {}
        for piece in self.pieces:
            if piece.pairs:
                pairs.setdefault(piece.client, set()).update(piece.pairs)
        return pairs

    def taken(self, known: dict[int, int]) -> list[bytes]:
        """Takes out what can be taken now, and moves the clocks on: updates, to be applied one after the other."""
        taken, self.pieces = _ordered(self.pieces, known, 0)
        runs: list[list[Piece]] = []
        for piece in taken:
            if runs and (runs[-1][-1].client, runs[-1][-1].end) == piece[:2]:
                runs[-1].append(piece)
            else:
                runs.append([piece])
        updates = [encoded(run, ()) for run in runs]
        deletions, self.deletions = self.deletions, []
        now = []
        for client, clock, end in deletions:
            at = known.get(client, 0)
            if clock < at:
                now.append(Deletion(client, clock, min(end, at)))
            if end > at:
                self.deletions.append(Deletion(client, max(clock, at), end))
        if now:
            updates.append(encoded((), now))
        return updates

    def with_all_of(self, update: bytes) -> bytes:
        """An update and what waits in one."""
        pieces, deletions = _apart(update)
        return encoded(_once((*pieces, *self.pieces), {}), (*deletions, *self.deletions))


def _once(pieces: Iterable[Piece], known: Mapping[int, int]) -> list[Piece]:
    """Pieces by their clocks, without what is known and what another one before has.

    One update cannot hold a clock twice, and what is stored has to be what is here.
    """
    ends = dict(known)
    once = []
    for piece in sorted(pieces, key=_place):
        at = ends.get(piece.client, 0)
        if piece.end > at:
            once.append(piece if piece.clock >= at else _rest(piece, at))
            ends[piece.client] = piece.end
    return once


def _joined(deletions: Iterable[Deletion]) -> list[Deletion]:
    """Deletions by their clocks, without overlaps: Yjs loses count if there are any."""
    joined: list[Deletion] = []
    for deletion in sorted(deletions):
        last = joined[-1] if joined else None
        if last and last.client == deletion.client and deletion.clock <= last.end:
            joined[-1] = last._replace(end=max(last.end, deletion.end))
        else:
            joined.append(deletion)
    return joined


def _ordered(pieces: Iterable[Piece], known: dict[int, int], unknown: int) -> tuple[list[Piece], list[Piece]]:
    """Those pieces that can be taken, in an order in which they can, and the others; moves the known clocks on.

    Pieces come by their clocks. Clients that are not ``known`` count as having come to the clock ``unknown``.
    """
    queues: dict[int, deque[Piece]] = {}
    for piece in pieces:
        queues.setdefault(piece.client, deque()).append(piece)
    taken: list[Piece] = []
    held: dict[int, list[tuple[int, int]]] = {}  # by the client they need: up to which clock, and who
    ready = list(queues)
    while ready:
        client = ready.pop()
        queue = queues[client]
        while queue:
            piece = queue[0]
            at = known.get(client, unknown)
            if piece.end > at:
                if piece.clock < at:
                    piece = queue[0] = _rest(piece, at)
                needs = ((client, piece.clock), *piece.needs.items())
                lack = next((need for need in needs if known.get(need[0], unknown) < need[1]), None)
                if lack is not None:
                    heappush(held.setdefault(lack[0], []), (lack[1], client))
                    break
                known[client] = piece.end
                taken.append(piece)
            queue.popleft()
        waiting = held.get(client, [])
        while waiting and waiting[0][0] <= known.get(client, unknown):
            ready.append(heappop(waiting)[1])
    return taken, sorted((piece for queue in queues.values() for piece in queue), key=_place)


def count_pieces(update: bytes) -> int:
    """Return the number of pieces of an update; at least as many if they are of several clients. It is not scanned.

    Raises :class:`MalformedUpdate`.
    """
    reader = Reader(update)
    clients = reader.count()
    return 0 if clients == 0 else reader.count() if clients == 1 else len(update) // _SMALLEST


def recount_pieces(update: bytes) -> int:
    """Return the number of pieces of an update. Raises :class:`MalformedUpdate`."""
    return len(_apart(update)[0])


def parts(
    update: bytes, most: int, known: Mapping[int, int] | None = None, held: int = 0, search: float = 0.0
) -> tuple[UpdateSummary, list[bytes]]:
    """Split an update into parts that are as if they had been sent so, to be applied one after the other.

    Args:
        update: The update.
        most: The cost of a part at most, unless it is of one piece: 1 for each piece or deletion, and
            for a search.
        known: How far the document has the pieces of each client.
        held: The pieces of the document.
        search: The cost, for each piece of the document and the update, of a piece whose place is searched for.

    Returns:
        What the update holds, and the parts.

    Raises:
        MalformedUpdate: The update cannot be read.
    """
    walk = scan_update(update)
    pieces, deletions = _apart(update)
    known = known or {}
    costs = (
        {piece[:2]: 1 + search * _needs_search(piece, known) * (held + len(pieces)) for piece in pieces}
        if search
        else {}
    )
    joined = _joined(deletions)  # overlapping ones would be applied again and again
    few = len(pieces) + len(deletions) <= most and sum(costs.values()) + len(deletions) <= most
    if few and len(joined) == len(deletions):
        return walk, [update]
    pieces.sort(key=_place)
    begun: dict[int, int] = {}
    for piece in pieces:
        begun.setdefault(piece.client, piece.clock)
    # What is not in it counts as known; behind a gap in it, that can be wrong, and pieces wait for others.
    taken, left = _ordered(pieces, begun, _LARGEST_CLOCK)
    return walk, [
        *(encoded(some, ()) for some in _chunks([*taken, *left], most, lambda piece: costs.get(piece[:2], 1))),
        *(encoded((), some) for some in _chunks(joined, most, lambda _: 1)),
    ]


def _chunks(things: list[T], most: float, cost: Callable[[T], float]) -> Iterable[list[T]]:
    chunk: list[T] = []
    total = 0.0
    for thing in things:
        total += cost(thing)
        if chunk and total > most:
            yield chunk
            chunk, total = [], cost(thing)
        chunk.append(thing)
    if chunk:
        yield chunk


def _needs_search(piece: Piece, known: Mapping[int, int]) -> bool:
    """Return whether the library may look at many pieces of the document to find the place of this one (YATA).

    It does not for a piece that continues one that is new: nothing else is behind that yet.
    """
    reader = Reader(piece.data)
    info = reader.byte()
    if info & 0x1F == _GC:
        return False
    if not info & _ORIGIN:
        return True
    client, clock = reader.number(_LARGEST_CLIENT), reader.number(_LARGEST_CLOCK)
    return client != piece.client or clock != piece.clock - 1 or clock < known.get(client, 0)


def _place(piece: Piece) -> tuple[int, int, int]:
    return piece.client, piece.clock, -piece.end


def _apart(update: bytes) -> tuple[list[Piece], list[Deletion]]:
    """The pieces of an update that was walked."""
    reader = Reader(update)
    pieces: list[Piece] = []
    for _ in range(reader.count()):
        structs, client, clock = reader.count(), reader.number(_LARGEST_CLIENT), reader.number(_LARGEST_CLOCK)
        for _ in range(structs):
            start = reader.at
            piece = _piece(reader, client, clock)
            if update[start] & 0x1F != _SKIP:
                pieces.append(piece)
            clock = piece.end
    deletions: list[Deletion] = []
    for _ in range(reader.count()):
        client = reader.number(_LARGEST_CLIENT)
        for _ in range(reader.count()):
            clock = reader.number(_LARGEST_CLOCK)
            deletions.append(Deletion(client, clock, clock + reader.number(_LARGEST_CLOCK)))
    return pieces, deletions


def _piece(reader: Reader, client: int, clock: int) -> Piece:
    """The next piece of an update."""
    own = UpdateSummary({}, {}, {}, [], {})
    start = reader.at
    end = _struct(reader, own, client, clock)
    return Piece(client, clock, end, reader.data[start : reader.at], own.needs, own.cuts, own.pairs.get(client, ()))


def _rest(piece: Piece, clock: int) -> Piece:
    """What a piece has from a clock on, cut as Yjs does: it goes on after the character before."""
    reader = Reader(piece.data)
    info = reader.byte()
    kind, right = info & 0x1F, info & _RIGHT_ORIGIN
    data = bytes((kind,))
    if kind != _GC:
        origin = b""
        for _ in range(bool(info & _ORIGIN) + bool(right)):
            origin = lib0.number(reader.number(_LARGEST_CLIENT)) + lib0.number(reader.number(_LARGEST_CLOCK))
        if not origin:
            reader.number(1)
            reader.string()
        before = lib0.number(piece.client) + lib0.number(clock - 1)
        data = bytes((kind | _ORIGIN | right,)) + before + (origin if right else b"")
    if kind == _STRING:
        text = reader.string().encode("utf-16-le")[2 * (clock - piece.clock) :]
        data += lib0.string(text.decode("utf-16-le"))
    else:
        data += lib0.number(piece.end - clock)
    return _piece(Reader(data), piece.client, clock)


def encoded(pieces: Iterable[Piece], deletions: Iterable[Deletion]) -> bytes:
    """An update of these pieces, in the order of each client's clocks."""
    sections: dict[int, list[bytes]] = {}
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    for piece in pieces:
        section = sections.setdefault(piece.client, [])
        at = ends.setdefault(piece.client, piece.clock)
        starts.setdefault(piece.client, piece.clock)
        if piece.clock > at:
            section.append(bytes((_SKIP,)) + lib0.number(piece.clock - at))
        section.append(piece.data)
        ends[piece.client] = piece.end
    out = [lib0.number(len(sections))]
    for client, section in sorted(sections.items(), reverse=True):  # Yjs relies on the order when it merges updates
        out += [lib0.number(len(section)), lib0.number(client), lib0.number(starts[client]), *section]
    ranges: dict[int, list[tuple[int, int]]] = {}
    for client, clock, end in _joined(deletions):
        ranges.setdefault(client, []).append((clock, end))
    out.append(lib0.number(len(ranges)))
    for client, parts in sorted(ranges.items(), reverse=True):
        out += [lib0.number(client), lib0.number(len(parts))]
        out += [lib0.number(clock) + lib0.number(end - clock) for clock, end in parts]
    return b"".join(out)
