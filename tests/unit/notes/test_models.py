"""The models of notes in requests and responses."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from realtime.api.routes.notes import Merged
from realtime.notes.models import MAX_CONTENT_BYTES, Note, NoteIn, NoteListed, NotePatch, NotePut, Trashed
from realtime.notes.preconditions import etag
from tests.support.harness import note_in


@pytest.mark.parametrize("field", ["title", "description"])
@pytest.mark.parametrize("letter", ["x", "é", "🦜"])
@pytest.mark.parametrize(("length", "fits"), [(0, False), (2, False), (3, True), (50, True), (51, False)])
def test_title_and_description_have_3_to_50_characters(field: str, letter: str, length: int, fits: bool) -> None:
    body = note_in(**{field: letter * length})
    if fits:
        assert NoteIn.model_validate(body).model_dump()[field] == letter * length
    else:
        with pytest.raises(ValidationError, match=field):
            NoteIn.model_validate(body)


@pytest.mark.parametrize(
    "fields",
    [
        {"content": "é" * (MAX_CONTENT_BYTES // 2)},
        {"content": "\x01\t\n\x7f\u2028\ufeff\uffff"},
        {"tags": [str(number) for number in range(32)]},
        {"tags": ["x", "🦜" * 50, "x"]},
        {"title": "   "},
    ],
    ids=["content-size", "unusual-characters", "tag-count", "tag-length", "spaces"],
)
def test_note_model_accepts_fields_within_the_limits(fields: dict[str, Any]) -> None:
    assert NoteIn.model_validate(note_in(**fields)).model_dump().items() >= fields.items()


@pytest.mark.parametrize("model", [NoteIn, NotePut, NotePatch])
@pytest.mark.parametrize(
    "fields",
    [
        {"content": "é" * (MAX_CONTENT_BYTES // 2) + "x"},
        {"content": 1},
        {"content": "a\0b"},
        {"content": "\ud800"},
        {"tags": ["x"] * 33},
        {"tags": [""]},
        {"tags": ["x" * 51]},
        {"tags": ["\udfff"]},
        {"tags": "abc"},
        {"tags": {"a": 1}},
        {"tags": [None]},
        {"title": None},
        {"title": 12345},
        {"title": b"bytes"},
        {"title": "ab\0c"},
        {"description": "\udc00\ud800x"},
        {"author": "ann"},
        {"Version": 1},
        {"\ud800": 1},
    ],
    ids=str,
)
def test_note_model_rejects_invalid_fields(model: type[NoteIn], fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(note_in() | fields)


@pytest.mark.parametrize("model", [NoteIn, NotePut, NotePatch])
@pytest.mark.parametrize("value", [1, "1", None, [], {"any": "thing"}], ids=str)
def test_note_model_with_read_only_fields_ignores_them(model: type[NoteIn], value: Any) -> None:
    answered = {*Note.model_fields, *NoteListed.model_fields, *Trashed.model_fields, *Merged.model_fields}
    read_only = answered - {"title", "description", "content", "tags"}
    assert {"id", "version", "created_date", "updated_date"} < read_only
    note = model.model_validate(note_in() | dict.fromkeys(read_only, value))
    assert note.changes == note_in()


def test_null_in_a_patch_resets_the_field_to_its_default() -> None:
    patch = NotePatch.model_validate({"content": None, "tags": None})
    assert patch.model_dump(exclude_unset=True) == {"content": "", "tags": []}
    assert NotePatch.model_validate({}).model_dump(exclude_unset=True) == {}


@pytest.mark.parametrize("model", [NoteIn, NotePut, NotePatch])
def test_note_schema_states_the_length_limits(model: type[NoteIn]) -> None:
    schema = model.model_json_schema()
    assert schema["additionalProperties"] is False
    for line in ("title", "description"):
        assert schema["properties"][line] == schema["properties"][line] | {
            "minLength": 3,
            "maxLength": 50,
            "pattern": r"^[^\u0000]*$",
        }


def test_note_json_ends_with_content_and_has_millisecond_dates() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 6_999, tzinfo=UTC)
    note = Note(
        id=2**53 - 1,
        title="ti\u2028tle",
        description="description",
        content="🦜",
        tags=["a"],
        version=3,
        created_date=moment,
        updated_date=moment,
    )
    shown = json.loads(note.model_dump_json())
    assert list(shown)[-1] == "content"
    assert shown == note.model_dump() | {
        "created_date": "2026-01-02T03:04:05.006Z",
        "updated_date": "2026-01-02T03:04:05.006Z",
    }
    assert etag(note.version) == '"v3"'
