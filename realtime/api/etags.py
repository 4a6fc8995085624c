"""Entity tags and the conditions of requests (``If-Match``, ``If-None-Match``)."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Header

from realtime.notes.preconditions import AllBut, Versions

# RFC 9110, section 8.8.3; what is between the quotes may be anything but a quote or a control character.
# A list may have empty elements (section 5.6.1).
ENTITY_TAGS = r'^[ \t]*(\*|(,[ \t]*)*(W/)?"[!#-~ ]*"([ \t]*,([ \t]*(W/)?"[!#-~ ]*")?)*)[ \t]*$'
_TAG = re.compile(r'(W/)?"([^"]*)"')
# Apache adds the encoding to the tags of what it compresses, and does not take it off again.
_VERSION = re.compile(r"v([1-9][0-9]{0,15})(?:-gzip|-br)?")


def versions_of(tags: str, *, weak: bool) -> frozenset[int] | None:
    """The versions that a list of entity tags names; ``None`` for ``*``, which names all."""
    if tags.strip() == "*":
        return None
    named = (_VERSION.fullmatch(tag) for prefix, tag in _TAG.findall(tags) if weak or not prefix)
    return frozenset(int(match[1]) for match in named if match)


def names_tag(tags: str, tag: str) -> bool:
    """Return whether a list of entity tags names one, by weak comparison (RFC 9110, section 8.8.3.2)."""
    return tags.strip() == "*" or tag.strip('"') in (opaque for _, opaque in _TAG.findall(tags))


IfNoneMatch = Annotated[
    str | None, Header(pattern=ENTITY_TAGS, description="answer only with another version", examples=['"v3"'])
]


async def _precondition(
    if_match: Annotated[
        str | None, Header(pattern=ENTITY_TAGS, description="write only at this version", examples=['"v3"'])
    ] = None,
    if_none_match: Annotated[
        str | None, Header(pattern=ENTITY_TAGS, description="write only at another version", examples=['"v3"'])
    ] = None,
) -> Versions:
    """Return the versions at which a write is allowed (RFC 9110, section 13.1)."""
    allowed = None if if_match is None else versions_of(if_match, weak=False)
    if if_none_match is None:
        return allowed
    excluded = versions_of(if_none_match, weak=True)
    if excluded is None:
        return frozenset()
    return AllBut(excluded) if allowed is None else allowed - excluded


Allowed = Annotated[Versions, Depends(_precondition)]
