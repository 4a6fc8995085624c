"""The same on Django Channels, with its Redis channel layer and one group for everybody.

Use: ``NAME=channels MONGO_URL=… REDIS_URL=… uvicorn --port PORT benchmarks.contenders.channels_app:app``
"""

from __future__ import annotations

import json
import os
from typing import Any

import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": [os.environ["REDIS_URL"]], "prefix": os.environ["NAME"]},
        }
    },
)
django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402  # Django must be set up first
from channels.layers import get_channel_layer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.http import HttpRequest, HttpResponse, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402
from motor.motor_asyncio import AsyncIOMotorClient  # noqa: E402
from pymongo import MongoClient  # noqa: E402
from redis import Redis  # noqa: E402

GROUP = "notes"
with Redis.from_url(os.environ["REDIS_URL"]) as former:
    # Clients of a stopped server would stay in their group for a day and receive each message.
    former.delete(f"{os.environ['NAME']}:group:{GROUP}")
with MongoClient[dict[str, Any]](os.environ["MONGO_URL"]) as mongo:
    made = mongo[os.environ["NAME"]].notes
    made.delete_many({})
    note = {"title": "hello", "description": "world", "content": "", "version": 1}
    made.insert_many([{"_id": id, **note} for id in range(1, 101)])
notes: Any = AsyncIOMotorClient(os.environ["MONGO_URL"])[os.environ["NAME"]].notes


def public(document: dict[str, Any]) -> dict[str, Any]:
    """Return the note of a document."""
    return {"id": document.pop("_id"), **document}


async def page(request: HttpRequest) -> HttpResponse:
    """Return a page of 100 notes."""
    return JsonResponse([public(one) for one in await notes.find().limit(100).to_list(100)], safe=False)


async def one(request: HttpRequest, id: int) -> HttpResponse:
    """Read a note, or write it and publish it."""
    if request.method == "GET":
        found = await notes.find_one({"_id": id})
    else:
        body = json.loads(request.body)
        change: dict[str, Any] = {name: body.get(name, "") for name in ("title", "description", "content")}
        if not all(3 <= len(change[name]) <= 50 for name in ("title", "description")):
            return JsonResponse({"detail": "invalid"}, status=422)
        change = {"$set": change, "$inc": {"version": 1}}
        found = await notes.find_one_and_update({"_id": id}, change, return_document=True)
    if found is None:
        return JsonResponse({"detail": "Note not found"}, status=404)
    answer = JsonResponse(public(found))
    if request.method != "GET":
        await get_channel_layer().group_send(GROUP, {"type": "note", "text": answer.content.decode()})
    return answer


class Feed(AsyncWebsocketConsumer):  # type: ignore[misc]  # without types
    """A client that receives all notes."""

    groups = [GROUP]  # noqa: RUF012  # as in the library

    async def note(self, event: dict[str, Any]) -> None:
        """Send a note."""
        await self.send(text_data=event["text"])


urlpatterns = [path("notes/", page), path("notes/<int:id>/", one)]
app = ProtocolTypeRouter(
    {"http": get_asgi_application(), "websocket": URLRouter([path("ws", Feed.as_asgi())])},
)
