"""Encodes committed changes as log entries, and decodes the events of the log."""

from __future__ import annotations

import json
import re
from functools import partial

from realtime.auth.permissions import UNSHARED_ACCESS, Access
from realtime.core.frames import Frame
from realtime.eventlog.cursor import Cursor
from realtime.eventlog.event import Audience, Event
from realtime.notes.models import NoteChange


def _audience(access: Access) -> bytes:
    if access is UNSHARED_ACCESS:
        return b""
    return b"\n" + json.dumps([access.since, list(access.roles), list(access.former.items())]).encode()


def _audience_of(line: bytes) -> Audience:
    since, readers, former = json.loads(line)
    return Audience(since, frozenset(readers), dict(former))


def encode_change(change: NoteChange) -> tuple[bytes, bytes]:
    """Encode the event of a committed change.

    A line with the audience follows the event, unless the note has no owner and was never shared.

    Returns:
        The parts of the event before and after the cursor. The log inserts the cursor when it assigns the offset.
    """
    note = change.note
    number = b'","id":%d,"version":%d' % (note.id, note.version)
    if change.deleted:
        return b'{"type":"note.deleted","cursor":"', number + b"}" + _audience(change.access)
    kind = b"created" if note.version == 1 else b"updated"
    body = note.__pydantic_serializer__.to_json(note)
    return b'{"type":"note.%s","cursor":"' % kind, number + b',"note":' + body + b"}" + _audience(change.access)


def event_at(change: NoteChange, position: Cursor) -> Event:
    """Return the event of a change that is not in the log. Its cursor is that of the last event in the log."""
    return decode_event(str(position).encode().join(encode_change(change)))


_HEAD = re.compile(rb'\{"type":"note\.([a-z]+)","cursor":"([^":]+):([0-9]+)","id":([0-9]+),"version":([0-9]+)')
_GONE = '{{"type":"note.deleted","cursor":"{}","id":{},"version":{}}}'
_CONTENT = b',"content":"'  # a quote inside a JSON string is escaped, so this can only be the key


def decode_event(payload: bytes) -> Event:
    """Decode an event from the log.

    Raises:
        ValueError: The payload does not have the format of :func:`encode_change`.
    """
    body, _, audience = payload.partition(b"\n")  # a line break inside a JSON string is escaped
    body.decode()
    head = _HEAD.match(body)
    if head is None:
        raise ValueError(f"not an event: {body[:80]!r}")
    kind, epoch, offset, note, number = head.groups()
    cursor, id, version = Cursor(epoch.decode(), int(offset)), int(note), int(number)
    key, cursor_text = ("note", id), str(cursor)
    full = Frame(body, key=key, version=version, cursor=cursor_text)
    cut = body.find(_CONTENT)
    slim = full if cut < 0 else Frame(body[:cut] + b"}}", key=key, version=version, cursor=cursor_text)
    event = partial(Event, id, cursor, full, slim, deleted=kind == b"deleted")
    if not audience:
        return event()
    receivers = _audience_of(audience)
    # Not the version of the event, because clients that lost access must not learn about later changes.
    last = max(receivers.former.values(), default=0)
    gone = Frame(_GONE.format(cursor, id, last).encode(), key=key, version=last, cursor=cursor_text)
    return event(audience=receivers, gone=gone)
