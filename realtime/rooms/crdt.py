"""The shared text of a note: a Yjs document with one text, ``content``. It performs no I/O.

Updates use the encoding of Yjs and are applied by Yrs; :mod:`realtime.rooms.yjs_update` validates them.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Self

import pycrdt

from realtime.errors import DocumentBroken, MalformedUpdate
from realtime.rooms.yjs_update import (
    ROOT,
    PendingUpdates,
    UpdateSummary,
    decode_state_vector,
    has_circular_dependencies,
    scan_update,
    trim_vector,
)

EMPTY_UPDATE = b"\0\0"
"""The update without changes."""
SINGLE_PIECE_CUTS = 4
"""Maximum number of cuts in an update with a single piece: two for its ends, and two for its origins."""
EMPTY_STATE_VECTOR = b"\0"
"""The state vector of an empty document."""


class TextDocument:
    """Represents one shared text.

    Updates with missing dependencies are held back until the dependencies arrive. A document must not be used after it
    raised :class:`DocumentBroken`.
    """

    def __init__(self, updates: Iterable[bytes] = (), client: int | None = None) -> None:
        """Create a document from updates; ``client`` is the client id for :meth:`edit`."""
        # The document is loaded in one thread and used in another.
        self._doc: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc(client_id=client, allow_multithreading=True)
        self._text = self._doc.get(ROOT, type=pycrdt.Text)
        self.revision = 0
        """A number that changes whenever the document changes."""
        self.piece_count = 0
        """The estimated number of pieces in the text, which is rarely too low."""
        self._known: dict[int, int] = {}
        self._pending = PendingUpdates()
        self._cached_state = (-1, b"")
        self._cached_text = (-1, "")
        self._low_surrogates: dict[int, set[int]] = {}
        for update in updates:
            self.apply(update)

    @classmethod
    def trusted(cls, update: bytes, client: int | None = None) -> Self:
        """Return a document with an update that the server encoded, without pending updates.

        It is not validated, and ``piece_count`` is not estimated. Raises :class:`DocumentBroken`.
        """
        document = cls(client=client)
        try:
            document._apply_to_yrs(update)
        except MalformedUpdate as error:
            raise DocumentBroken(error.detail) from None
        document._known = decode_state_vector(document._doc.get_state())
        if any(character > "\uffff" for character in set(str(document))):
            document._low_surrogates = scan_update(update).low_surrogates
        return document

    def apply_if_new(self, update: bytes) -> bool:
        """Apply an update as :meth:`apply` does, and return whether it contained anything new."""
        summary = scan_update(update)
        if not self._pending and any(self._known.get(client, 0) < end for client, end in summary.ends.items()):
            self._apply(update, summary)
            return True
        # Observing is slow: it takes 0.2 µs for each client that has written to the text.
        events: list[pycrdt.TransactionEvent] = []
        pieces, deletions = self._pending.pieces, self._pending.deletions
        # Unsubscribe afterwards: Python's garbage collector never frees callbacks held by Yrs.
        subscription = self._doc.observe(events.append)
        try:
            self._apply(update, summary)
        finally:
            self._doc.unobserve(subscription)
        return bool(events) or self._pending.pieces != pieces or self._pending.deletions != deletions

    def apply(self, update: bytes) -> None:
        """Apply an update.

        Raises:
            MalformedUpdate: The update is invalid; the document is unchanged.
            DocumentBroken: The update left the document in an unknown state.
        """
        self._apply(update, scan_update(update))

    def _apply(self, update: bytes, summary: UpdateSummary) -> None:
        if self._splits_surrogate_pair(summary):
            raise MalformedUpdate("splits a surrogate pair")
        if self._has_dependencies(summary):
            self._integrate(update, summary)
        else:
            try:
                pycrdt.get_state(update)  # decodes the entire update
            except ValueError as error:
                raise MalformedUpdate(f"cannot be decoded: {error}") from None
            self.revision += 1
            self._pending.add(update, self._known)
        if self._pending:
            for ready in self._pending.pop_ready(dict(self._known)):
                self._integrate(ready, scan_update(ready))

    def _apply_to_yrs(self, update: bytes) -> None:
        try:
            self._doc.apply_update(update)
            self.revision += 1
        except ValueError as error:  # raised by the decoder, before anything is applied
            raise MalformedUpdate(f"cannot be decoded: {error}") from None
        except BaseException as error:
            self.revision += 1
            # Rust panics do not derive from Exception, and leave the document in an unknown state.
            if type(error).__name__ != "PanicException":
                raise
            raise DocumentBroken(str(error)) from None

    def _integrate(self, update: bytes, summary: UpdateSummary) -> None:
        self._apply_to_yrs(update)
        known = self._known
        # Each cut can split a piece, and appended text continues a piece. A single new piece adds at most two.
        if len(summary.cuts) <= SINGLE_PIECE_CUTS:
            self.piece_count += 2
        else:
            cuts = set(summary.cuts)
            self.piece_count += len(cuts) - sum((client, known.get(client, 0)) in cuts for client in summary.ends)
        for client, pairs in summary.low_surrogates.items():
            before = known.get(client, 0)  # pairs below this clock were added before
            self._low_surrogates.setdefault(client, set()).update(clock for clock in pairs if clock > before)
        if (
            len(summary.ends) > 1
            and not self._has_dependencies(summary, within=False)
            and has_circular_dependencies(update, known)
        ):
            self._known = decode_state_vector(self._doc.get_state())
            self._pending.add(update, self._known)
            return
        for client, end in summary.ends.items():
            if known.get(client, 0) < end:
                known[client] = end

    def _splits_surrogate_pair(self, summary: UpdateSummary) -> bool:
        """Return whether an update splits a surrogate pair, or adds one that a pending update splits.

        Clocks count UTF-16 code units. Yjs replaces the two halves with U+FFFD, and Yrs miscounts: the updates
        that it encodes afterwards cannot be decoded.
        """
        pending = self._pending.low_surrogates() if self._pending else None
        for known in filter(None, (self._low_surrogates, pending, summary.low_surrogates)):
            if any(clock in known.get(client, ()) for client, clock in summary.cuts):
                return True
        if not summary.low_surrogates:
            return False
        boundaries = (*self._known.items(), *self._pending.cuts())
        return any(clock in summary.low_surrogates.get(client, ()) for client, clock in boundaries)

    def _has_dependencies(self, summary: UpdateSummary, *, within: bool = True) -> bool:
        """Return whether everything that an update depends on is in the document or, with ``within``, in the update."""
        known, ends = self._known, summary.ends if within else {}
        return all(known.get(client, 0) >= start for client, start in summary.starts.items()) and all(
            known.get(client, 0) >= clock or ends.get(client, 0) >= clock for client, clock in summary.needs.items()
        )

    @property
    def has_pending(self) -> bool:
        """Whether updates with missing dependencies are held back."""
        return bool(self._pending)

    @property
    def pending_count(self) -> int:
        """The number of pieces and deletions with missing dependencies."""
        return len(self._pending)

    def has_dependencies_of(self, update: bytes | UpdateSummary) -> bool:
        """Return whether the text has everything that an update depends on. Raises :class:`MalformedUpdate`."""
        return self._has_dependencies(update if isinstance(update, UpdateSummary) else scan_update(update))

    @property
    def state(self) -> bytes:
        """The state vector in the encoding of Yjs."""
        if self._cached_state[0] != self.revision:
            self._cached_state = self.revision, self._doc.get_state()
        return self._cached_state[1]

    @property
    def clocks(self) -> Mapping[int, int]:
        """The next clock of each client."""
        return self._known

    @property
    def client_count(self) -> int:
        """The number of clients that have written to the text."""
        return len(self._known)

    def count_new_clients(self, update: bytes) -> int:
        """Return the number of clients in an update that have not written to the text yet."""
        return sum(client not in self._known for client in scan_update(update).ends)

    @property
    def clients_with_surrogates(self) -> tuple[int, ...]:
        """The clients whose clocks :meth:`check_clocks` has to check."""
        return tuple(self._low_surrogates)

    def check_clocks(self, clocks: Mapping[int, int]) -> None:
        """Raise :class:`MalformedUpdate` if a clock is in the middle of a surrogate pair."""
        if any(clock in self._low_surrogates.get(client, ()) for client, clock in clocks.items()):
            raise MalformedUpdate("splits a surrogate pair")

    def trim_vector(self, vector: bytes) -> bytes:
        """Return a state vector without entries that do not affect :meth:`since`. Raises :class:`MalformedUpdate`."""
        clocks = decode_state_vector(vector)
        self.check_clocks(clocks)
        return trim_vector(clocks, self._known)

    def since(self, vector: bytes = EMPTY_STATE_VECTOR) -> bytes:
        """Return the changes after a state vector, including pending ones. Raises :class:`MalformedUpdate`."""
        return self.changes_after(self.trim_vector(vector))

    def integrated_since(self, state: bytes = EMPTY_STATE_VECTOR) -> bytes:
        """Return the changes after the state of another document of the server, without pending changes."""
        return self._doc.get_update(state)

    def changes_after(self, vector: bytes) -> bytes:
        """Return the changes that are missing in a state vector made by :meth:`trim_vector`."""
        update = self._doc.get_update(vector)
        if not self._pending:
            return update
        return self._pending.merged_with(update)

    @property
    def length(self) -> int:
        """The size of the text in UTF-8, in bytes."""
        return len(self._text)

    def __str__(self) -> str:
        """Return the text. It is cached, because reading a text of very many pieces takes long."""
        if not self.has_cached_text:
            self._cached_text = self.revision, str(self._text)
        return self._cached_text[1]

    @property
    def has_cached_text(self) -> bool:
        """Whether the text is cached."""
        return self._cached_text[0] == self.revision

    def cache_text(self, text: str) -> None:
        """Cache the text, which is known to be this one."""
        self._cached_text = self.revision, text

    def clear_cached_text(self) -> None:
        """Free the cached text."""
        self._cached_text = -1, ""

    def edit(self, changes: Iterable[tuple[int, int, str]], before: str | None = None) -> bytes:
        """Replace characters ``start`` to ``end`` of the text, and return the update that does so.

        Args:
            changes: ``(start, end, text)``, in ascending order and without overlaps.
            before: The current text, if it is known.
        """
        before = str(self) if before is None else before
        # pycrdt counts UTF-8 bytes.
        replacements: list[tuple[int, int, str]] = []
        offset = consumed = 0
        for start, end, text in changes:
            offset += len(before[consumed:start].encode())
            size = len(before[start:end].encode())
            replacements.append((offset, size, text))
            offset, consumed = offset + size, end
        self.revision += 1
        vector = self._doc.get_state()
        with self._doc.transaction():
            for offset, size, text in reversed(replacements):
                if size:
                    del self._text[offset : offset + size]
                if text:
                    self._text.insert(offset, text)
        self._known = decode_state_vector(self._doc.get_state())
        update = self._doc.get_update(vector)
        for client, pairs in scan_update(update).low_surrogates.items():
            self._low_surrogates.setdefault(client, set()).update(pairs)
        return update


def genesis(text: str) -> bytes:
    """Return the update that creates a text. Its client id is random, so two of them would duplicate the text."""
    return TextDocument(client=new_client_id()).edit([(0, 0, text)]) if text else EMPTY_UPDATE


def new_client_id() -> int:
    """Return a random client id, as Yjs does: of two changes with the same client id and clock, one is lost."""
    return secrets.randbits(32)


def compact(updates: Iterable[bytes]) -> bytes:
    """Merge updates into one, without the deleted characters."""
    # Applied to a document: pycrdt's merging of updates takes quadratic time.
    return TextDocument(updates).since()
