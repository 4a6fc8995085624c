"""The shared text of a note: a Yjs document with one text, ``content``. Bytes in, bytes out, no waiting.

Updates are Yjs's, and Yrs reads them; see :mod:`realtime.rooms.yjs_update` for which are let in, and when.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping

import pycrdt

from realtime.errors import DocumentBroken, MalformedUpdate
from realtime.rooms import lib0
from realtime.rooms.yjs_update import ROOT, PendingUpdates, UpdateSummary, clocks_of, scan_update

EMPTY = b"\0\0"
"""The update without any change."""
SINGLE_CUTS = 4
"""Cuts of an update of a single piece: its ends and its origins."""
NOTHING = b"\0"
"""The state of a document without any change."""


class TextDocument:
    """One shared text.

    What builds upon changes that are not here yet is kept until they come. After :class:`DocumentBroken` was raised,
    a document must not be used any more.
    """

    def __init__(self, updates: Iterable[bytes] = (), client: int | None = None) -> None:
        """A document made of updates; ``client`` is who writes with :meth:`edit`."""
        # It is loaded in one thread and used in another.
        self._doc: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc(client_id=client, allow_multithreading=True)
        self._text = self._doc.get(ROOT, type=pycrdt.Text)
        self.revision = 0
        """Changes whenever the document does."""
        self.pieces = 0
        """An estimate of the number of pieces that the text is made of, rather too high."""
        self._known: dict[int, int] = {}
        self._waiting = PendingUpdates()
        self._pairs: dict[int, set[int]] = {}
        for update in updates:
            self.apply(update)

    def offer(self, update: bytes) -> bool:
        """Takes an update as :meth:`apply` does, and tells whether anything in it was news."""
        events: list[pycrdt.TransactionEvent] = []
        pieces, deletions = self._waiting.pieces, self._waiting.deletions
        # Only for the moment: what Yrs calls back, Python never collects.
        subscription = self._doc.observe(events.append)
        try:
            self.apply(update)
        finally:
            self._doc.unobserve(subscription)
        return bool(events) or self._waiting.pieces != pieces or self._waiting.deletions != deletions

    def apply(self, update: bytes) -> None:
        """Takes an update. Raises :class:`MalformedUpdate` with nothing changed, or :class:`DocumentBroken`."""
        walk = scan_update(update)
        if self._splits(walk):
            raise MalformedUpdate("splits a character in two")
        if self._follows(walk):
            self._take(update, walk)
        else:
            try:
                pycrdt.get_state(update)  # reads all of it
            except ValueError as error:
                raise MalformedUpdate(f"cannot be decoded: {error}") from None
            self.revision += 1
            self._waiting.add(update, self._known)
        if self._waiting:
            for one in self._waiting.taken(dict(self._known)):
                self._take(one, scan_update(one))

    def _take(self, update: bytes, walk: UpdateSummary) -> None:
        try:
            self._doc.apply_update(update)
            self.revision += 1
        except ValueError as error:  # while it was decoded, before anything was applied
            raise MalformedUpdate(f"cannot be decoded: {error}") from None
        except BaseException as error:
            self.revision += 1
            # Rust's panics do not derive from Exception, and leave the document in any state.
            if type(error).__name__ != "PanicException":
                raise
            raise DocumentBroken(str(error)) from None
        known = self._known
        # Each cut can make two pieces of one, and what is appended continues a piece. A single piece adds two at most.
        if len(walk.cuts) <= SINGLE_CUTS:
            self.pieces += 2
        else:
            cuts = set(walk.cuts)
            self.pieces += len(cuts) - sum((client, known.get(client, 0)) in cuts for client in walk.ends)
        for client, pairs in walk.pairs.items():
            before = known.get(client, 0)  # what is known stays as it is
            self._pairs.setdefault(client, set()).update(clock for clock in pairs if clock > before)
        if len(walk.ends) > 1:
            known = self._known = clocks_of(self._doc.get_state())
            if any(known.get(client, 0) < end for client, end in walk.ends.items()):
                self._waiting.add(update, known)  # its pieces build upon each other in a circle
            return
        for client, end in walk.ends.items():
            if known.get(client, 0) < end:
                known[client] = end

    def _splits(self, walk: UpdateSummary) -> bool:
        """Whether an update goes between the halves of a character, or brings one that something waits to go into.

        Clocks count UTF-16 code units. Yjs makes two of such a character (U+FFFD), and Yrs loses count: what it then
        encodes cannot be read by anybody.
        """
        waiting = self._waiting.pairs() if self._waiting else None
        for known in filter(None, (self._pairs, waiting, walk.pairs)):
            if any(clock in known.get(client, ()) for client, clock in walk.cuts):
                return True
        if not walk.pairs:
            return False
        borders = (*self._known.items(), *self._waiting.cuts())
        return any(clock in walk.pairs.get(client, ()) for client, clock in borders)

    def _follows(self, walk: UpdateSummary) -> bool:
        """Whether all that an update builds upon is there, or in itself."""
        known, ends = self._known, walk.ends
        return all(known.get(client, 0) >= start for client, start in walk.starts.items()) and all(
            known.get(client, 0) >= clock or ends.get(client, 0) >= clock for client, clock in walk.needs.items()
        )

    @property
    def waits(self) -> bool:
        """Whether something builds upon changes that are not here."""
        return bool(self._waiting)

    @property
    def waiting(self) -> int:
        """How many pieces wait for others."""
        return len(self._waiting)

    def follows(self, update: bytes | UpdateSummary) -> bool:
        """Whether all that an update builds upon is here, or in itself. Raises :class:`MalformedUpdate`."""
        return self._follows(update if isinstance(update, UpdateSummary) else scan_update(update))

    @property
    def state(self) -> bytes:
        """What is here, as Yjs's state vector."""
        return self._doc.get_state()

    @property
    def clocks(self) -> dict[int, int]:
        """How far the pieces of each client are here."""
        return dict(self._known)

    @property
    def clients(self) -> int:
        """How many clients have written to the text."""
        return len(self._known)

    def vector(self, clocks: Mapping[int, int]) -> bytes:
        """Return a state vector with these clocks, without those that make no difference to :meth:`since`.

        Raises :class:`MalformedUpdate` for a clock between the halves of a character.
        """
        if any(clock in self._pairs.get(client, ()) for client, clock in clocks.items()):
            raise MalformedUpdate("splits a character in two")
        common = {client: min(clock, self._known[client]) for client, clock in clocks.items() if client in self._known}
        entries = [lib0.number(client) + lib0.number(clock) for client, clock in sorted(common.items()) if clock]
        return lib0.number(len(entries)) + b"".join(entries)

    def since(self, state: bytes = NOTHING) -> bytes:
        """What is here and was not in a state, what waits included. Raises :class:`MalformedUpdate`."""
        return self.changes_after(self.vector(clocks_of(state)))

    def changes_after(self, vector: bytes) -> bytes:
        """Return the changes that are missing at a state vector made by :meth:`vector`."""
        update = self._doc.get_update(vector)
        if not self._waiting:
            return update
        return self._waiting.with_all_of(update)

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
        self.revision += 1
        state = self._doc.get_state()
        with self._doc.transaction():
            for at, size, text in reversed(places):
                if size:
                    del self._text[at : at + size]
                if text:
                    self._text.insert(at, text)
        self._known = clocks_of(self._doc.get_state())
        update = self._doc.get_update(state)
        for client, pairs in scan_update(update).pairs.items():
            self._pairs.setdefault(client, set()).update(pairs)
        return update


def genesis(text: str) -> bytes:
    """The update that makes a text out of nothing. Its client is random: two of one text do not merge into one."""
    return TextDocument(client=new_client()).edit([(0, 0, text)]) if text else EMPTY


def new_client() -> int:
    """An id to write under, as Yjs draws it: what is written twice under one id at one clock is lost."""
    return secrets.randbits(32)


def compacted(updates: Iterable[bytes]) -> bytes:
    """Several updates as one, without the characters that were deleted."""
    # Document by document, and not by the library's merging of updates, which takes quadratic time.
    return TextDocument(updates).since()
