"""The wire messages of the feed. The schema is closed: undeclared messages and fields are neither sent nor accepted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from realtime.notes.models import Note, NoteHead, NoteId, Version

CursorText = Annotated[str, Field(description="opaque position in the feed: pass it as `since=` to resume")]


class FeedMessage(BaseModel):
    """Base class of all messages. Undeclared fields are rejected."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_serialization_defaults_required=True)


class Ready(FeedMessage):
    """The subscription is active: every later event follows."""

    type: Literal["ready"] = "ready"
    cursor: CursorText


class NoteCreated(FeedMessage):
    """A note was created. Contains the whole note."""

    type: Literal["note.created"] = "note.created"
    cursor: CursorText
    id: NoteId
    version: Version
    note: Annotated[Note | NoteHead, Field(description="without `content` under `content=false`")]


class NoteUpdated(FeedMessage):
    """A note was changed or restored. Contains the whole note."""

    type: Literal["note.updated"] = "note.updated"
    cursor: CursorText
    id: NoteId
    version: Version
    note: Annotated[Note | NoteHead, Field(description="without `content` under `content=false`")]


class NoteDeleted(FeedMessage):
    """A note was deleted, or this client no longer has access to it."""

    type: Literal["note.deleted"] = "note.deleted"
    cursor: CursorText
    id: NoteId
    version: Version


class PresenceShown(FeedMessage):
    """The people who are viewing a note, as states by id. Replaces all earlier presence of the note."""

    type: Literal["presence"] = "presence"
    id: NoteId
    people: dict[str, dict[str, JsonValue]]


class PresenceChanged(FeedMessage):
    """A person started viewing a note, changed their state, or left (``state`` is ``null``)."""

    type: Literal["presence.changed"] = "presence.changed"
    id: NoteId
    person: Annotated[str, Field(description="the person's id at this note")]
    state: dict[str, JsonValue] | None


class Reset(FeedMessage):
    """The missed events are no longer available: fetch ``GET /notes/`` again and continue from the cursor."""

    type: Literal["reset"] = "reset"
    cursor: CursorText


class Heartbeat(FeedMessage):
    """This client has received every event up to the cursor."""

    type: Literal["heartbeat"] = "heartbeat"
    cursor: CursorText


class Error(FeedMessage):
    """Describes an error in a frame from the client. The server then closes the connection."""

    type: Literal["error"] = "error"
    detail: str


class PresenceSet(FeedMessage):
    """Sets this client's state on a note that it is viewing. ``null`` removes the state."""

    type: Literal["presence"]
    id: NoteId
    state: dict[str, JsonValue] | None


class Auth(FeedMessage):
    """Signs in. On a server with accounts, this is the first frame of a connection without a session cookie or header.

    Without a token, the client remains anonymous and receives only public notes.
    """

    type: Literal["auth"]
    token: Annotated[str, Field(max_length=4096)] | None = None


class Pong(FeedMessage):
    """Optional reply to a heartbeat."""

    type: Literal["pong"]


ServerMessage = Annotated[
    Ready | NoteCreated | NoteUpdated | NoteDeleted | PresenceShown | PresenceChanged | Reset | Heartbeat | Error,
    Field(discriminator="type"),
]
ClientMessage = Annotated[PresenceSet | Auth | Pong, Field(discriminator="type")]


client_message: TypeAdapter[PresenceSet | Auth | Pong] = TypeAdapter(ClientMessage)
server_message: TypeAdapter[ServerMessage] = TypeAdapter(ServerMessage)
