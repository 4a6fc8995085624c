"""The wire messages of the feed, as a closed union: what is not declared here is not sent and not accepted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from realtime.notes.models import Note, NoteHead, NoteId, Version

CursorText = Annotated[str, Field(description="position in the feed, opaque: resume with `since=`")]


class FeedMessage(BaseModel):
    """Base of all messages; an undeclared field is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_serialization_defaults_required=True)


class Ready(FeedMessage):
    """Subscribed: everything after the cursor will come."""

    type: Literal["ready"] = "ready"
    cursor: CursorText


class NoteCreated(FeedMessage):
    """A new note, whole."""

    type: Literal["note.created"] = "note.created"
    cursor: CursorText
    id: NoteId
    version: Version
    note: Annotated[Note | NoteHead, Field(description="without `content` under `content=false`")]


class NoteUpdated(FeedMessage):
    """A changed note, whole. A restored one is changed too."""

    type: Literal["note.updated"] = "note.updated"
    cursor: CursorText
    id: NoteId
    version: Version
    note: Annotated[Note | NoteHead, Field(description="without `content` under `content=false`")]


class NoteDeleted(FeedMessage):
    """A note that is gone, or that this client may no longer see."""

    type: Literal["note.deleted"] = "note.deleted"
    cursor: CursorText
    id: NoteId
    version: Version


class PresenceShown(FeedMessage):
    """The people who look at a note: the state that each of them set, under an id. Replaces what came before."""

    type: Literal["presence"] = "presence"
    id: NoteId
    people: dict[str, dict[str, JsonValue]]


class PresenceChanged(FeedMessage):
    """A person who looks at a note came, changed their state, or left (``state`` is ``null``)."""

    type: Literal["presence.changed"] = "presence.changed"
    id: NoteId
    person: Annotated[str, Field(description="the person's id at this note")]
    state: dict[str, JsonValue] | None


class Reset(FeedMessage):
    """History does not reach back: fetch ``GET /notes/`` again and go on from the cursor."""

    type: Literal["reset"] = "reset"
    cursor: CursorText


class Heartbeat(FeedMessage):
    """Nothing was missed up to the cursor."""

    type: Literal["heartbeat"] = "heartbeat"
    cursor: CursorText


class Error(FeedMessage):
    """What was wrong with a frame, before the close."""

    type: Literal["error"] = "error"
    detail: str


class PresenceSet(FeedMessage):
    """This client looks at a note; ``null`` says that it no longer does."""

    type: Literal["presence"]
    id: NoteId
    state: dict[str, JsonValue] | None


class Auth(FeedMessage):
    """Signs the connection in, as the first frame: where there are accounts, and no cookie and no header did.

    Without a token it stays a stranger's, who gets what is public.
    """

    type: Literal["auth"]
    token: Annotated[str, Field(max_length=4096)] | None = None


class Pong(FeedMessage):
    """Answer to a heartbeat; may be left out."""

    type: Literal["pong"]


ServerMessage = Annotated[
    Ready | NoteCreated | NoteUpdated | NoteDeleted | PresenceShown | PresenceChanged | Reset | Heartbeat | Error,
    Field(discriminator="type"),
]
ClientMessage = Annotated[PresenceSet | Auth | Pong, Field(discriminator="type")]


client_message: TypeAdapter[PresenceSet | Auth | Pong] = TypeAdapter(ClientMessage)
server_message: TypeAdapter[ServerMessage] = TypeAdapter(ServerMessage)
