"""Computes edits of a shared text on a copy of it, before they are stored.

The copies of large texts are kept in the helper process: making a copy of a text with very many pieces takes a long
time, and so does finding a position in it. A copy receives only what has changed since its last edit.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from realtime.errors import DraftLost
from realtime.notes.diff import changes
from realtime.rooms import crdt
from realtime.rooms.crdt import TextDocument

if TYPE_CHECKING:
    from collections.abc import Callable

    from realtime.rooms.scheduler import Scheduler

T = TypeVar("T")

SMALL_EDIT_BYTES = 1024
"""Size below which texts are compared and edited in the event loop."""
MAX_COPIES = 4
"""The number of texts of which the helper process keeps a copy."""
MAX_AGE_SECONDS = 60.0
"""Time since its last use after which a copy is dropped, when the next one is used."""


class DraftBase(NamedTuple):
    """A text at one point in time, as the base of an edit.

    Attributes:
        text: The text.
        document: The document that it was read from.
        revision: The revision of the document then.
        copy: The copy to edit, or ``None`` if there is none.
        update: The changes that the copy does not have; all changes if there is no copy.
    """

    text: str
    document: TextDocument
    revision: int
    copy: _Edit | None
    update: bytes


class _Edit(NamedTuple):
    """An edit that was made on a copy, and the copy with the edit: its id and its state vector."""

    update: bytes
    copy_id: str
    state: bytes


class Drafts:
    """Computes edits of one text. Two edits with the same client id must not both be stored: one would be lost."""

    def __init__(self, note: int, scheduler: Scheduler) -> None:
        self._note = note
        self._scheduler = scheduler
        self._client = crdt.new_client_id()
        self._drafted: _Edit | None = None
        self._stored: _Edit | None = None

    async def check_copy(self) -> None:
        """Forget the copy if the helper process does not have it any more. Raises :class:`Unavailable`."""
        if self._stored is not None and not await self._run(_has_copy, self._stored.copy_id):
            self._stored = None

    def base(self, document: TextDocument) -> DraftBase:
        """Return the current text of a document as the base of an edit."""
        copy = self._stored
        known = crdt.EMPTY_STATE_VECTOR if copy is None else copy.state
        return DraftBase(str(document), document, document.revision, copy, document.integrated_since(known))

    async def edit(self, base: DraftBase, text: str) -> bytes:
        """Return the update that turns a base into another text.

        Raises:
            DraftLost: The copy is lost, or the text was loaded again. The edit can be repeated with a new base.
            Unavailable: Too much work is waiting.
        """
        if base.copy is not self._stored:
            raise DraftLost
        self._stored, self._drafted = None, None
        if base.copy is None and len(base.update) + len(text) < SMALL_EDIT_BYTES:
            return TextDocument([base.update], self._client).edit(changes(base.text, text), base.text)
        if base.copy is None:
            edit = await self._run(_edit_new_copy, base.update, self._client, base.text, text)
        else:
            edit = await self._run(_edit_copy, base.copy.copy_id, base.update, base.text, text)
        if edit is None:
            raise DraftLost
        self._drafted = edit
        return edit.update

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        return await self._scheduler.run_in_process_for_note(self._note, function, *arguments)

    def mark_stored(self) -> None:
        """Record that the last edit was stored, so that the copy can be used for the next one."""
        self._stored = self._drafted

    def rotate_client_id(self) -> None:
        """Use a new client id for the next edit: it is not known whether the last one was stored."""
        self._client, self._stored = crdt.new_client_id(), None


_copies: OrderedDict[str, tuple[float, TextDocument]] = OrderedDict()
"""The copies with the times of their last use, in the helper process. After each edit, a copy has a new id."""


def _edit_copy(copy_id: str, update: bytes, before: str, after: str) -> _Edit | None:
    """Apply an update to a copy, and edit it. Return ``None`` if there is no such copy."""
    _, document = _copies.pop(copy_id, (0.0, None))
    if document is None:
        return None
    document.apply(update)
    return _edit(document, before, after)


def _has_copy(copy_id: str) -> bool:
    if copy_id not in _copies:
        return False
    _keep(copy_id, _copies[copy_id][1])
    return True


def _edit_new_copy(full_update: bytes, client: int, before: str, after: str) -> _Edit | None:
    return _edit(TextDocument.trusted(full_update, client), before, after)


def _edit(document: TextDocument, before: str, after: str) -> _Edit | None:
    if str(document) != before:
        return None
    update = document.edit(changes(before, after), before)
    document.cache_text(after)
    copy_id = secrets.token_hex(8)
    _keep(copy_id, document)
    return _Edit(update, copy_id, document.state)


def _keep(copy_id: str, document: TextDocument) -> None:
    """Keep a copy, and drop those that are too many or too old."""
    now = time.monotonic()
    _copies[copy_id] = now, document
    _copies.move_to_end(copy_id)
    while len(_copies) > MAX_COPIES or next(iter(_copies.values()))[0] < now - MAX_AGE_SECONDS:
        _copies.popitem(last=False)
