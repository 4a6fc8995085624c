"""The route of the tags."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import Query, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from realtime.api.deps import QueriesPart, Who
from realtime.api.etags import IfNoneMatch, names_tag
from realtime.api.responses import READ
from realtime.api.router import SlashRouter
from realtime.notes.models import TagCount

router = SlashRouter(tags=["notes"])


class TagsQuery(BaseModel):
    """The query of the tags."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=10_000, description="most in the answer")] = 1000


@router.get(
    "/tags/",
    summary="List the tags",
    response_model=list[TagCount],
    responses={**READ, 304: {"description": "The tags are those that `If-None-Match` names"}},
)
async def tags(
    who: Who, queries: QueriesPart, query: Annotated[TagsQuery, Query()], if_none_match: IfNoneMatch = None
) -> Response:
    """All tags, and how many notes have each: the most frequent first. `ETag` stays as long as they do."""
    body = to_json(await queries.tags(who, query.limit))
    tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag}
    if if_none_match is not None and names_tag(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")
