"""The wire messages of the feed, as a closed union: what is not declared here is not sent and not accepted."""

from __future__ import annotations

import json
import re
from functools import lru_cache, partial
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from realtime.auth.permissions import UNSHARED, Access
from realtime.core.frames import Frame
from realtime.eventlog.cursor import Cursor
from realtime.feed.hub import Audience, Event
from realtime.notes.models import Change, Note, NoteHead, NoteId, Version

CursorText = Annotated[str, Field(description="position in the feed, opaque: resume with `since=`")]


class Message(BaseModel):
    """Base of all messages; an undeclared field is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_serialization_defaults_required=True)


class Ready(Message):
    """Subscribed: everything after the cursor will come."""

    type: Literal["ready"] = "ready"
    cursor: CursorText


class NoteCreated(Message):
    """A new note, whole."""

    type: Literal["note.created"] = "note.created"
    cursor: CursorText
    id: NoteId
    version: Version
    note: Annotated[Note | NoteHead, Field(description="without `content` under `content=false`")]


class NoteUpdated(Message):
    """A changed note, whole. A restored one is changed too."""

    type: Literal["note.updated"] = "note.updated"
    cursor: CursorText
    id: NoteId
    version: Version
    note: Annotated[Note | NoteHead, Field(description="without `content` under `content=false`")]


class NoteDeleted(Message):
    """A note that is gone, or that this client may no longer see."""

    type: Literal["note.deleted"] = "note.deleted"
    cursor: CursorText
    id: NoteId
    version: Version


class PresenceShown(Message):
    """The people who look at a note: the state that each of them set, under an id. Replaces what came before."""

    type: Literal["presence"] = "presence"
    id: NoteId
    people: dict[str, dict[str, JsonValue]]


class PresenceChanged(Message):
    """A person who looks at a note came, changed their state, or left (``state`` is ``null``)."""

    type: Literal["presence.changed"] = "presence.changed"
    id: NoteId
    person: Annotated[str, Field(description="the person's id at this note")]
    state: dict[str, JsonValue] | None


class Reset(Message):
    """History does not reach back: fetch ``GET /notes/`` again and go on from the cursor."""

    type: Literal["reset"] = "reset"
    cursor: CursorText


class Heartbeat(Message):
    """Nothing was missed up to the cursor."""

    type: Literal["heartbeat"] = "heartbeat"
    cursor: CursorText


class Error(Message):
    """What was wrong with a frame, before the close."""

    type: Literal["error"] = "error"
    detail: str


class PresenceSet(Message):
    """This client looks at a note; ``null`` says that it no longer does."""

    type: Literal["presence"]
    id: NoteId
    state: dict[str, JsonValue] | None


class Auth(Message):
    """Signs the connection in, as the first frame: where there are accounts, and no cookie and no header did.

    Without a token it stays a stranger's, who gets what is public.
    """

    type: Literal["auth"]
    token: Annotated[str, Field(max_length=4096)] | None = None


class Pong(Message):
    """Answer to a heartbeat; may be left out."""

    type: Literal["pong"]


ServerMessage = Annotated[
    Ready | NoteCreated | NoteUpdated | NoteDeleted | PresenceShown | PresenceChanged | Reset | Heartbeat | Error,
    Field(discriminator="type"),
]
ClientMessage = Annotated[PresenceSet | Auth | Pong, Field(discriminator="type")]

client_message: TypeAdapter[PresenceSet | Auth | Pong] = TypeAdapter(ClientMessage)
server_message: TypeAdapter[ServerMessage] = TypeAdapter(ServerMessage)


RESET = "reset"  # the key of a reset frame


def encode(message: BaseModel) -> bytes:
    """A message as the JSON that the sockets send."""
    return message.__pydantic_serializer__.to_json(message)


@lru_cache(maxsize=1)
def ready(position: Cursor) -> Frame:
    """The frame that says: everything after the position will come. It is the same for all who come meanwhile."""
    return Frame(encode(Ready(cursor=str(position))), cursor=str(position))


def reset(position: Cursor) -> Frame:
    """The frame that says: start over, and go on from the position."""
    return Frame(encode(Reset(cursor=str(position))), key=RESET, cursor=str(position))


def heartbeat(position: Cursor) -> Frame:
    """The frame that says: nothing was missed up to the position."""
    return Frame(encode(Heartbeat(cursor=str(position))), cursor=str(position))


def _audience(access: Access) -> bytes:
    if access is UNSHARED:
        return b""
    return b"\n" + json.dumps([access.since, list(access.roles), list(access.former.items())]).encode()


def _audience_of(line: bytes) -> Audience:
    since, readers, former = json.loads(line)
    return Audience(since, frozenset(readers), dict(former))


def encode_change(change: Change) -> tuple[bytes, bytes]:
    """The event of a committed change, in two parts: the log puts the cursor between them when it numbers the event.

    Behind it, on a line of its own, who may have it, unless it is for whoever may have what nobody owns.
    """
    note = change.note
    number = b'","id":%d,"version":%d' % (note.id, note.version)
    if change.deleted:
        return b'{"type":"note.deleted","cursor":"', number + b"}" + _audience(change.access)
    kind = b"created" if note.version == 1 else b"updated"
    body = note.__pydantic_serializer__.to_json(note)
    return b'{"type":"note.%s","cursor":"' % kind, number + b',"note":' + body + b"}" + _audience(change.access)


def event_at(change: Change, position: Cursor) -> Event:
    """The event of a change that the log does not have yet: its cursor is that of the last event before it."""
    return decode_event(str(position).encode().join(encode_change(change)))


_HEAD = re.compile(rb'\{"type":"note\.([a-z]+)","cursor":"([^":]+):([0-9]+)","id":([0-9]+),"version":([0-9]+)')
_GONE = '{{"type":"note.deleted","cursor":"{}","id":{},"version":{}}}'
_CONTENT = b',"content":"'  # a quote inside a JSON string is escaped, so this can only be the key


def decode_event(payload: bytes) -> Event:
    """An event from the log, ready to be handed to clients.

    Raises ``ValueError`` for bytes that :func:`encode_change` did not make.
    """
    body, _, audience = payload.partition(b"\n")  # a line break inside a JSON string is escaped
    body.decode()
    head = _HEAD.match(body)
    if head is None:
        raise ValueError(f"not an event: {body[:80]!r}")
    kind, epoch, offset, note, number = head.groups()
    cursor, id, version = Cursor(epoch.decode(), int(offset)), int(note), int(number)
    key, at = ("note", id), str(cursor)
    full = Frame(body, key=key, version=version, cursor=at)
    cut = body.find(_CONTENT)
    slim = full if cut < 0 else Frame(body[:cut] + b"}}", key=key, version=version, cursor=at)
    event = partial(Event, id, cursor, full, slim, deleted=kind == b"deleted")
    if not audience:
        return event()
    told = _audience_of(audience)
    last = max(told.former.values(), default=0)  # not that of the event: who lost the note hears nothing of it
    gone = Frame(_GONE.format(cursor, id, last).encode(), key=key, version=last, cursor=at)
    return event(audience=told, gone=gone)
