"""The same REST calls, with python-socketio and its Redis manager for the sockets.

Use: ``NAME=socketio MONGO_URL=… REDIS_URL=… uvicorn --port PORT benchmarks.contenders.socketio_app:app``
"""

from __future__ import annotations

import os

import socketio

from benchmarks.contenders import tutorial_app

sio = socketio.AsyncServer(
    async_mode="asgi",
    client_manager=socketio.AsyncRedisManager(os.environ["REDIS_URL"], channel=f"{tutorial_app.NAME}-rooms"),
)
app = socketio.ASGIApp(sio, tutorial_app.app)


async def publish(note: tutorial_app.Note) -> None:
    """Publish a note."""
    await sio.emit("note", note.model_dump())


tutorial_app.publish = publish
