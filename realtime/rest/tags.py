"""The route of the tags."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response
from pydantic import BaseModel, ConfigDict, Field

from realtime.models import TagCount
from realtime.rest.common import READ, QueriesPart, Who, list_answer
from realtime.routing import SlashRouter

router = SlashRouter(tags=["notes"])


class TagsQuery(BaseModel):
    """The query of the tags."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=10_000, description="most in the answer")] = 1000


@router.get("/tags/", summary="List the tags", response_model=list[TagCount], responses=READ)
async def tags(who: Who, queries: QueriesPart, query: Annotated[TagsQuery, Query()]) -> Response:
    """All tags, and how many notes have each: the most frequent first."""
    return list_answer(await queries.tags(who, query.limit), {})
