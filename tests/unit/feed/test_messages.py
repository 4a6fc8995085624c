"""The messages of the feed: encoded messages match the declared schema and can be decoded."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from realtime.eventlog.codec import decode_event, encode_change
from realtime.eventlog.cursor import UNKNOWN, Cursor
from realtime.feed.messages import client_message, server_message
from realtime.notes.models import Note, NoteChange

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 67000, UTC)
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
notes = st.builds(
    Note,
    id=st.integers(1, 2**53 - 1),
    title=text,
    description=text,
    content=text | st.just(',"content":"') | st.just('\\"},"content":"x'),
    tags=st.lists(text, max_size=3),
    version=st.integers(1, 5),
    created_date=st.just(MOMENT),
    updated_date=st.just(MOMENT),
)


@given(notes, st.booleans(), st.integers(1, 2**53))
def test_encoded_event_is_decoded_in_both_variants(note: Note, deleted: bool, offset: int) -> None:
    cursor = Cursor("abc", offset)
    head, tail = encode_change(NoteChange(note, deleted))
    event = decode_event(head + str(cursor).encode() + tail)
    assert (event.id, event.cursor, event.full.version) == (note.id, cursor, note.version)
    assert event.full.size == len(event.full.text.encode())
    full = json.loads(event.full.text)
    server_message.validate_json(event.full.text)
    server_message.validate_json(event.slim.text)
    if deleted:
        assert full == {"type": "note.deleted", "cursor": str(cursor), "id": note.id, "version": note.version}
        assert event.slim is event.full
    else:
        assert full["type"] == ("note.created" if note.version == 1 else "note.updated")
        assert full["note"] == note.model_dump(mode="json")
        del full["note"]["content"]
        assert json.loads(event.slim.text) == full


@pytest.mark.parametrize(
    "payload", [b"", b"{}", b'{"type":"note.updated"}', b"\xff", b'{"type":"note.x","cursor":"a:b"}']
)
def test_decoding_an_invalid_event_raises_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_event(payload)


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "[]",
        "{",
        '{"type": "nonsense"}',
        '{"type": "presence"}',
        '{"type": "presence", "id": 0, "state": {}}',
        '{"type": "presence", "id": "1", "state": {}}',
        '{"type": "presence", "id": 1, "state": []}',
        '{"type": "presence", "id": 1, "state": {}, "more": 1}',
        '{"type": "pong", "more": 1}',
    ],
)
def test_undeclared_client_frames_are_refused(frame: str) -> None:
    with pytest.raises(ValidationError):
        client_message.validate_json(frame)


@given(st.text(max_size=40))
def test_parsing_any_text_returns_a_cursor_or_unknown(text: str) -> None:
    cursor = Cursor.parse(text)
    assert cursor == UNKNOWN or str(cursor) == text or int(text.rpartition(":")[2]) == cursor.offset


def test_cursor_is_unchanged_after_formatting_and_parsing() -> None:
    assert Cursor.parse(str(Cursor("ab12", 7))) == Cursor("ab12", 7)
