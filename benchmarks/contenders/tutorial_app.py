"""The peer that the tutorials lead to: FastAPI, Motor, Redis pub/sub and a loop over the sockets.

Use: ``NAME=tutorial MONGO_URL=… REDIS_URL=… uvicorn --port PORT benchmarks.contenders.tutorial_app:app``
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import redis.asyncio as redis
from fastapi import FastAPI, HTTPException, WebSocket, WebSocketDisconnect
from motor.motor_asyncio import AsyncIOMotorClient
from pydantic import BaseModel, Field

NAME = os.environ.get("NAME", "tutorial")
"""The name of the database and of the channel."""


class NoteIn(BaseModel):
    """A note in a request."""

    title: str = Field(min_length=3, max_length=50)
    description: str = Field(min_length=3, max_length=50)
    content: str = ""


class Note(NoteIn):
    """A note in a response."""

    id: int
    version: int = 0


sockets: set[WebSocket] = set()
bus = redis.Redis.from_url(os.environ["REDIS_URL"])
notes: Any = AsyncIOMotorClient(os.environ["MONGO_URL"])[NAME].notes


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Create 100 notes, and subscribe to Redis."""
    await notes.delete_many({})
    note = {"title": "hello", "description": "world", "content": "", "version": 1}
    await notes.insert_many([{"_id": id, **note} for id in range(1, 101)])
    task = asyncio.create_task(relay())
    yield
    task.cancel()


async def relay() -> None:
    """Send every message to each socket in turn."""
    pubsub = bus.pubsub()
    await pubsub.subscribe(NAME)
    async for message in pubsub.listen():
        if message["type"] == "message":
            text = message["data"].decode()
            for socket in list(sockets):
                try:
                    await socket.send_text(text)
                except (RuntimeError, WebSocketDisconnect):
                    sockets.discard(socket)


app = FastAPI(lifespan=lifespan)


def public(document: dict[str, Any] | None) -> Note:
    """Return the note of a document."""
    if document is None:
        raise HTTPException(404, "Note not found")
    return Note(id=document.pop("_id"), **document)


async def publish(note: Note) -> None:
    """Publish a note."""
    await bus.publish(NAME, note.model_dump_json())


@app.get("/notes/", response_model=list[Note])
async def read_all() -> list[Note]:
    """Return a page of 100 notes."""
    return [public(document) for document in await notes.find().limit(100).to_list(100)]


@app.get("/notes/{id}/", response_model=Note)
async def read(id: int) -> Note:
    """Return a note."""
    return public(await notes.find_one({"_id": id}))


@app.put("/notes/{id}/", response_model=Note)
async def update(id: int, payload: NoteIn) -> Note:
    """Write a note, and publish it."""
    change = {"$set": payload.model_dump(), "$inc": {"version": 1}}
    note = public(await notes.find_one_and_update({"_id": id}, change, return_document=True))
    await publish(note)
    return note


@app.websocket("/ws")
async def ws(socket: WebSocket) -> None:
    """Send all notes to a client."""
    await socket.accept()
    sockets.add(socket)
    try:
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        sockets.discard(socket)
