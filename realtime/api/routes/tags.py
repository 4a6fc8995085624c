"""Route for tags."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import Query, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from realtime.api.deps import CurrentPrincipal, QueriesDep
from realtime.api.etags import IfNoneMatch, names_tag
from realtime.api.responses import READ
from realtime.api.router import SlashRouter
from realtime.notes.models import TagCount

router = SlashRouter(tags=["notes"])


class TagsQuery(BaseModel):
    """The query parameters of the tags."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=10_000, description="maximum number of tags")] = 1000


@router.get(
    "/tags/",
    summary="List the tags",
    response_model=list[TagCount],
    responses={**READ, 304: {"description": "The tags match `If-None-Match`"}},
)
async def tags(
    principal: CurrentPrincipal,
    queries: QueriesDep,
    query: Annotated[TagsQuery, Query()],
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Return the tags with their number of notes, most frequent first. `ETag` changes with the result."""
    body = to_json(await queries.tags(principal, query.limit))
    tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag}
    if if_none_match is not None and names_tag(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")
