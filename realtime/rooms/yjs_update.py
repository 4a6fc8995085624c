"""Parses and splits updates of a shared text in the Yjs update encoding, version 1.

Updates are untrusted, so each is validated before Yrs applies it: Yrs allocates memory for the number of items that an
update claims to have. Only items of plain text are accepted. Updates with missing dependencies are split and held
back here, because Yrs would reorder them.
"""

from __future__ import annotations

from collections import ChainMap, deque
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from heapq import heappop, heappush
from typing import NamedTuple, TypeVar

from realtime.errors import MalformedUpdate
from realtime.rooms import lib0
from realtime.rooms.lib0 import Reader

ROOT = "content"

_GC, _DELETED, _STRING, _FORMAT, _SKIP = 0, 1, 4, 6, 10
_UNSUPPORTED_KINDS = {
    2: "JSON",
    3: "binary data",
    5: "embedded objects",
    7: "nested types",
    8: "values",
    9: "documents",
}
_ORIGIN, _RIGHT_ORIGIN, _KEYED = 0x80, 0x40, 0x20
_MIN_PIECE_BYTES = 2
T = TypeVar("T")

_MAX_CLIENT = 2**53 - 1
_MAX_CLOCK = 2**31 - 1
"""Yrs uses 32-bit clocks, and adds to them."""


class UpdateSummary(NamedTuple):
    """The clocks that an update contains for each client, and the clocks that it depends on."""

    starts: dict[int, int]
    """The first clock of each client; after a gap, the first clock after it."""
    ends: dict[int, int]
    needs: dict[int, int]
    cuts: list[tuple[int, int]]
    """The boundaries at which text is inserted or deleted, as the client and clock of the following character."""
    low_surrogates: dict[int, set[int]]
    """The clocks of the second halves of surrogate pairs."""

    def add_dependency(self, client: int, clock: int) -> None:
        """Record a dependency on a client's clocks up to this one."""
        if self.needs.get(client, 0) < clock:
            self.needs[client] = clock


def scan_update(update: bytes) -> UpdateSummary:
    """Validate an update and return its summary. Raises :class:`MalformedUpdate`."""
    reader = Reader(update)
    summary = UpdateSummary({}, {}, {}, [], {})
    for _ in range(reader.count()):
        structs = reader.count()
        client = reader.number(_MAX_CLIENT)
        clock = reader.number(_MAX_CLOCK)
        if client in summary.ends:
            raise MalformedUpdate("lists a client twice")
        if structs == 0:
            raise MalformedUpdate("lists a client without pieces")
        summary.starts[client] = clock
        for _ in range(structs):
            summary.cuts.append((client, clock))
            clock = _scan_piece(reader, summary, client, clock)
            if clock > _MAX_CLOCK:
                raise MalformedUpdate("has a clock that is too high")
        summary.cuts.append((client, clock))
        summary.ends[client] = clock
    for _ in range(reader.count()):
        client = reader.number(_MAX_CLIENT)
        for _ in range(reader.count()):
            deleted = reader.number(_MAX_CLOCK)
            end = deleted + reader.number(_MAX_CLOCK - deleted)
            summary.add_dependency(client, end)
            summary.cuts.extend(((client, deleted), (client, end)))
    reader.finish()
    return summary


def _scan_piece(reader: Reader, summary: UpdateSummary, client: int, clock: int) -> int:
    """Read a piece of an update that begins at this clock, and return the clock after it."""
    info = reader.byte()
    kind = info & 0x1F
    if kind in (_GC, _SKIP):
        length = reader.number(_MAX_CLOCK)
        if kind == _SKIP:
            summary.starts[client] = clock + length
    else:
        if info & (_ORIGIN | _RIGHT_ORIGIN):
            _scan_origins(reader, summary, info, client, clock)
        else:
            _scan_parent(reader, info)
        if kind == _STRING:
            length = _scan_text(reader, summary, client, clock)
        elif kind == _DELETED:
            length = reader.number(_MAX_CLOCK)
        elif kind == _FORMAT:
            reader.string()
            reader.string()
            length = 1
        else:
            raise MalformedUpdate(f"has {_UNSUPPORTED_KINDS.get(kind, 'unknown content')}; only plain text is shared")
    if length == 0:
        raise MalformedUpdate("has a piece of length 0")
    return clock + length


def _scan_origins(reader: Reader, summary: UpdateSummary, info: int, client: int, clock: int) -> None:
    """Read the origins of a piece: the characters before and after it when it was inserted."""
    previous = None
    for flag in (_ORIGIN, _RIGHT_ORIGIN):
        if info & flag:
            origin = other, at = reader.number(_MAX_CLIENT), reader.number(_MAX_CLOCK - 1)
            if other == client and at >= clock:
                raise MalformedUpdate("has a piece that depends on itself")
            if origin == previous:
                raise MalformedUpdate("has a piece with the same left and right origin")
            previous = origin
            summary.add_dependency(other, at + 1)
            summary.cuts.append((other, at + (flag == _ORIGIN)))


def _scan_parent(reader: Reader, info: int) -> None:
    """Read the parent of a piece without origins. Only the shared text is accepted."""
    if reader.number(1) == 0:
        raise MalformedUpdate("writes to a nested type; only plain text is shared")
    if reader.string() != ROOT:
        raise MalformedUpdate(f"writes to a type other than the text {ROOT!r}")
    if info & _KEYED:
        raise MalformedUpdate("sets a map key; only plain text is shared")


def _scan_text(reader: Reader, summary: UpdateSummary, client: int, clock: int) -> int:
    """Read the text of a piece, and return its length in clocks: UTF-16 code units, as in JavaScript."""
    text = reader.string()
    if "\0" in text:
        raise MalformedUpdate("contains NUL, which notes cannot contain")
    if text.isascii() or max(text) <= "\uffff":
        return len(text)
    low_surrogates = summary.low_surrogates.setdefault(client, set())
    length = 0
    for character in text:
        length += 1
        if character > "\uffff":
            low_surrogates.add(clock + length)
            length += 1
    return length


def decode_state_vector(state: bytes) -> dict[int, int]:
    """Return the clocks in a state vector by client. Raises :class:`MalformedUpdate`."""
    reader = Reader(state)
    clocks = {reader.number(_MAX_CLIENT): reader.number(_MAX_CLOCK) for _ in range(reader.number(len(state) // 2))}
    reader.finish()
    return clocks


class Piece(NamedTuple):
    """One piece of an update: a client's range of clocks, its bytes, and its dependencies."""

    client: int
    clock: int
    end: int
    data: bytes
    needs: Mapping[int, int]
    cuts: Iterable[tuple[int, int]]
    low_surrogates: Iterable[int]


class Deletion(NamedTuple):
    """A range of clocks of a client that an update deletes."""

    client: int
    clock: int
    end: int


class PendingUpdates:
    """Holds the pieces and deletions whose dependencies are missing."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.deletions: list[Deletion] = []

    def __len__(self) -> int:
        """Return the number of pieces and deletions."""
        return len(self.pieces) + len(self.deletions)

    def add(self, update: bytes, known: Mapping[int, int]) -> None:
        """Add the parts of a validated update that are not known."""
        pieces, deletions = _parse(update)
        self.pieces = _without_overlaps((*self.pieces, *pieces), known)
        self.deletions = _merge_deletions((*self.deletions, *deletions))

    def cuts(self) -> Iterable[tuple[int, int]]:
        """Yield boundaries as in :attr:`UpdateSummary.cuts`."""
        for piece in self.pieces:
            yield from ((piece.client, piece.clock), (piece.client, piece.end), *piece.cuts)
        for client, clock, end in self.deletions:
            yield from ((client, clock), (client, end))

    def low_surrogates(self) -> dict[int, set[int]]:
        """Return clocks as in :attr:`UpdateSummary.low_surrogates`."""
        low_surrogates: dict[int, set[int]] = {}
        for piece in self.pieces:
            if piece.low_surrogates:
                low_surrogates.setdefault(piece.client, set()).update(piece.low_surrogates)
        return low_surrogates

    def pop_ready(self, known: dict[int, int]) -> list[bytes]:
        """Remove and return the parts whose dependencies are known, as updates in order. Advance the known clocks."""
        resolved, self.pieces = _order_by_dependency(self.pieces, known, 0)
        runs: list[list[Piece]] = []
        for piece in resolved:
            if runs and (runs[-1][-1].client, runs[-1][-1].end) == piece[:2]:
                runs[-1].append(piece)
            else:
                runs.append([piece])
        updates = [encode(run, ()) for run in runs]
        deletions, self.deletions = self.deletions, []
        ready = []
        for client, clock, end in deletions:
            next_clock = known.get(client, 0)
            if clock < next_clock:
                ready.append(Deletion(client, clock, min(end, next_clock)))
            if end > next_clock:
                self.deletions.append(Deletion(client, max(clock, next_clock), end))
        if ready:
            updates.append(encode((), ready))
        return updates

    def merged_with(self, update: bytes) -> bytes:
        """Return an update that combines the given update and all pending parts."""
        pieces, deletions = _parse(update)
        return encode(_without_overlaps((*pieces, *self.pieces), {}), (*deletions, *self.deletions))


def _without_overlaps(pieces: Iterable[Piece], known: Mapping[int, int]) -> list[Piece]:
    """Return pieces ordered by clock, without the parts that are known or in an earlier piece.

    An update cannot contain a clock twice, and the stored state has to equal the state in memory.
    """
    ends = dict(known)
    remaining = []
    for piece in sorted(pieces, key=_sort_key):
        end = ends.get(piece.client, 0)
        if piece.end > end:
            remaining.append(piece if piece.clock >= end else _slice_from(piece, end))
            ends[piece.client] = piece.end
    return remaining


def _merge_deletions(deletions: Iterable[Deletion]) -> list[Deletion]:
    """Return deletions ordered by clock, without overlaps, which Yjs would miscount."""
    merged: list[Deletion] = []
    for deletion in sorted(deletions):
        last = merged[-1] if merged else None
        if last and last.client == deletion.client and deletion.clock <= last.end:
            merged[-1] = last._replace(end=max(last.end, deletion.end))
        else:
            merged.append(deletion)
    return merged


def _order_by_dependency(
    pieces: Iterable[Piece], known: MutableMapping[int, int], unknown: int
) -> tuple[list[Piece], list[Piece]]:
    """Return the pieces that can be applied, in order, and the remaining ones. Advance the known clocks.

    Pieces are ordered by clock. ``unknown`` is the clock of clients that are not in ``known``.
    """
    queues: dict[int, deque[Piece]] = {}
    for piece in pieces:
        queues.setdefault(piece.client, deque()).append(piece)
    resolved: list[Piece] = []
    held: dict[
        int, list[tuple[int, int]]
    ] = {}  # by required client: the required clock, and the client that waits for it
    ready = list(queues)
    while ready:
        client = ready.pop()
        queue = queues[client]
        while queue:
            piece = queue[0]
            next_clock = known.get(client, unknown)
            if piece.end > next_clock:
                if piece.clock < next_clock:
                    piece = queue[0] = _slice_from(piece, next_clock)
                needs = ((client, piece.clock), *piece.needs.items())
                missing = next((need for need in needs if known.get(need[0], unknown) < need[1]), None)
                if missing is not None:
                    heappush(held.setdefault(missing[0], []), (missing[1], client))
                    break
                known[client] = piece.end
                resolved.append(piece)
            queue.popleft()
        waiting = held.get(client, [])
        while waiting and waiting[0][0] <= known.get(client, unknown):
            ready.append(heappop(waiting)[1])
    return resolved, sorted((piece for queue in queues.values() for piece in queue), key=_sort_key)


def trim_vector(clocks: Mapping[int, int], known: Mapping[int, int]) -> bytes:
    """Return a state vector with these clocks, without what a document with the clocks ``known`` does not have."""
    common = {client: min(clock, known[client]) for client, clock in clocks.items() if client in known}
    entries = [lib0.number(client) + lib0.number(clock) for client, clock in sorted(common.items()) if clock]
    return lib0.number(len(entries)) + b"".join(entries)


def decode_and_trim_vector(vector: bytes, state: bytes, clients: Collection[int]) -> tuple[bytes, dict[int, int]]:
    """Return a state vector as :func:`trim_vector` does, and the clocks in it of some clients.

    Args:
        vector: The state vector.
        state: The state vector of the document.
        clients: The clients whose clocks are returned.

    Raises:
        MalformedUpdate: A state vector cannot be read.
    """
    clocks = decode_state_vector(vector)
    trimmed = trim_vector(clocks, decode_state_vector(state))
    return trimmed, {client: clocks[client] for client in clients if client in clocks}


def has_circular_dependencies(update: bytes, known: dict[int, int]) -> bool:
    """Return whether pieces of an update depend on each other, so that none of them can be applied first.

    ``known`` has the clocks before the update. Everything that the update depends on must be known or in the update.
    """
    advanced = ChainMap({}, known)  # without a copy of the clocks of all clients
    return bool(_order_by_dependency(sorted(_parse(update)[0], key=_sort_key), advanced, 0)[1])


def count_clients(update: bytes) -> int:
    """Return the number of clients with pieces in an update. Raises :class:`MalformedUpdate`."""
    return Reader(update).count()


def count_pieces(update: bytes) -> int:
    """Return the number of pieces of an update without scanning it; an upper bound if it has several clients.

    Raises:
        MalformedUpdate: The update cannot be read.
    """
    reader = Reader(update)
    clients = reader.count()
    return 0 if clients == 0 else reader.count() if clients == 1 else len(update) // _MIN_PIECE_BYTES


def recount_pieces(update: bytes) -> int:
    """Return the exact number of pieces of an update. Raises :class:`MalformedUpdate`."""
    return len(_parse(update)[0])


def split_update(
    update: bytes,
    max_cost: int,
    known: Mapping[int, int] | bytes | None = None,
    piece_count: int = 0,
    search_cost: float = 0.0,
) -> tuple[UpdateSummary, list[bytes]]:
    """Split an update into chunks, to be applied in order.

    Args:
        update: The update.
        max_cost: Maximum cost of a chunk of several pieces: 1 for each piece or deletion, plus the search costs.
        known: The next clock of each client in the document, or its state vector.
        piece_count: The number of pieces of the document.
        search_cost: Cost of a piece that needs a search, for each piece of the document and of the update.

    Returns:
        The clocks of the update, which are a summary without cuts and low surrogates, and the chunks.

    Raises:
        MalformedUpdate: The update cannot be read.
    """
    summary = scan_update(update)._replace(cuts=[], low_surrogates={})
    pieces, deletions = _parse(update)
    known = decode_state_vector(known) if isinstance(known, bytes) else known or {}
    costs = (
        {piece[:2]: 1 + search_cost * _needs_search(piece, known) * (piece_count + len(pieces)) for piece in pieces}
        if search_cost
        else {}
    )
    merged = _merge_deletions(deletions)  # overlapping deletions would be applied repeatedly
    small = len(pieces) + len(deletions) <= max_cost and sum(costs.values()) + len(deletions) <= max_cost
    if small and len(merged) == len(deletions):
        return summary, [update]
    pieces.sort(key=_sort_key)
    starts: dict[int, int] = {}
    for piece in pieces:
        starts.setdefault(piece.client, piece.clock)
    # Clocks outside the update count as known. After a gap that can be wrong: such pieces are held back.
    resolved, blocked = _order_by_dependency(pieces, starts, _MAX_CLOCK)
    return summary, [
        *(
            encode(chunk, ())
            for chunk in _chunks([*resolved, *blocked], max_cost, lambda piece: costs.get(piece[:2], 1))
        ),
        *(encode((), chunk) for chunk in _chunks(merged, max_cost, lambda _: 1)),
    ]


def _chunks(items: list[T], max_cost: float, cost: Callable[[T], float]) -> Iterable[list[T]]:
    chunk: list[T] = []
    total = 0.0
    for item in items:
        total += cost(item)
        if chunk and total > max_cost:
            yield chunk
            chunk, total = [], cost(item)
        chunk.append(item)
    if chunk:
        yield chunk


def _needs_search(piece: Piece, known: Mapping[int, int]) -> bool:
    """Return whether Yrs may visit many pieces of the document to place this one (YATA).

    A piece that continues a new piece needs no search, because nothing follows the new piece yet.
    """
    reader = Reader(piece.data)
    info = reader.byte()
    if info & 0x1F == _GC:
        return False
    if not info & _ORIGIN:
        return True
    client, clock = reader.number(_MAX_CLIENT), reader.number(_MAX_CLOCK)
    return client != piece.client or clock != piece.clock - 1 or clock < known.get(client, 0)


def _sort_key(piece: Piece) -> tuple[int, int, int]:
    return piece.client, piece.clock, -piece.end


def _parse(update: bytes) -> tuple[list[Piece], list[Deletion]]:
    """Return the pieces and deletions of a validated update."""
    reader = Reader(update)
    pieces: list[Piece] = []
    for _ in range(reader.count()):
        structs, client, clock = reader.count(), reader.number(_MAX_CLIENT), reader.number(_MAX_CLOCK)
        for _ in range(structs):
            start = reader.position
            piece = _read_piece(reader, client, clock)
            if update[start] & 0x1F != _SKIP:
                pieces.append(piece)
            clock = piece.end
    deletions: list[Deletion] = []
    for _ in range(reader.count()):
        client = reader.number(_MAX_CLIENT)
        for _ in range(reader.count()):
            clock = reader.number(_MAX_CLOCK)
            deletions.append(Deletion(client, clock, clock + reader.number(_MAX_CLOCK)))
    return pieces, deletions


def _read_piece(reader: Reader, client: int, clock: int) -> Piece:
    """Read the next piece of an update."""
    own = UpdateSummary({}, {}, {}, [], {})
    start = reader.position
    end = _scan_piece(reader, own, client, clock)
    return Piece(
        client,
        clock,
        end,
        reader.data[start : reader.position],
        own.needs,
        own.cuts,
        own.low_surrogates.get(client, ()),
    )


def _slice_from(piece: Piece, clock: int) -> Piece:
    """Return the part of a piece from a clock on, cut as Yjs does: its origin is the preceding character."""
    reader = Reader(piece.data)
    info = reader.byte()
    kind, right = info & 0x1F, info & _RIGHT_ORIGIN
    data = bytes((kind,))
    if kind != _GC:
        origin = b""
        for _ in range(bool(info & _ORIGIN) + bool(right)):
            origin = lib0.number(reader.number(_MAX_CLIENT)) + lib0.number(reader.number(_MAX_CLOCK))
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
    return _read_piece(Reader(data), piece.client, clock)


def encode(pieces: Iterable[Piece], deletions: Iterable[Deletion]) -> bytes:
    """Return an update with these pieces, ordered by the clocks of each client."""
    sections: dict[int, list[bytes]] = {}
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    for piece in pieces:
        section = sections.setdefault(piece.client, [])
        end = ends.setdefault(piece.client, piece.clock)
        starts.setdefault(piece.client, piece.clock)
        if piece.clock > end:
            section.append(bytes((_SKIP,)) + lib0.number(piece.clock - end))
        section.append(piece.data)
        ends[piece.client] = piece.end
    out = [lib0.number(len(sections))]
    for client, section in sorted(sections.items(), reverse=True):  # Yjs relies on this order when it merges updates
        out += [lib0.number(len(section)), lib0.number(client), lib0.number(starts[client]), *section]
    ranges: dict[int, list[tuple[int, int]]] = {}
    for client, clock, end in _merge_deletions(deletions):
        ranges.setdefault(client, []).append((clock, end))
    out.append(lib0.number(len(ranges)))
    for client, parts in sorted(ranges.items(), reverse=True):
        out += [lib0.number(client), lib0.number(len(parts))]
        out += [lib0.number(clock) + lib0.number(end - clock) for clock, end in parts]
    return b"".join(out)
