"""The notes of a server in the browser tests: created, read and changed over REST."""

from __future__ import annotations

from typing import Any

import httpx

from tests.support.harness import Json, ServerProcess, eventually, rest_client


async def create_notes(server: ServerProcess, *notes: Json) -> list[Json]:
    """Create notes over REST."""
    async with rest_client(server.url) as rest:
        return [(await rest.post("/notes/", json=note)).json() for note in notes]


async def read_note(server: ServerProcess, id: int = 1) -> Json:
    """Return a note from the server."""
    async with rest_client(server.url) as rest:
        note: Json = (await rest.get(f"/notes/{id}/")).json()
        return note


async def change_note(server: ServerProcess, id: int = 1, **fields: Any) -> None:
    """Change fields of a note over REST."""
    async with rest_client(server.url) as rest:
        assert (await rest.patch(f"/notes/{id}/", json=fields)).is_success


async def delete_note(server: ServerProcess, id: int) -> None:
    """Move a note to the trash over REST."""
    async with rest_client(server.url) as rest:
        assert (await rest.delete(f"/notes/{id}/")).is_success


async def wait_for_note(server: ServerProcess, id: int, within: float = 5.0, **fields: Any) -> None:
    """Wait until a note has these fields."""

    async def has_fields() -> None:
        note = await read_note(server, id)
        assert {name: note[name] for name in fields} == fields

    await eventually(has_fields, within)


async def wait_for_content(server: ServerProcess, id: int, text: str, within: float = 5.0) -> None:
    """Wait until a note has a text. Typed text is stored within a second."""
    await wait_for_note(server, id, within, content=text)


async def wait_for_own_note(rest: httpx.AsyncClient, id: int, **fields: str) -> None:
    """Wait until a note of the user has these fields."""

    async def has_fields() -> None:
        assert (await rest.get(f"/notes/{id}/")).json().items() >= fields.items()

    await eventually(has_fields, within=30)


async def create_shared_note(rest: httpx.AsyncClient, note: Json, **access: object) -> Json:
    """Create a note, and share it."""
    made = (await rest.post("/notes/", json=note)).json()
    answer = await rest.put(f"/notes/{made['id']}/access", json=access)
    assert answer.is_success, answer.text
    return {**made, **answer.json()}
