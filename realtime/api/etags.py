"""Entity tags and conditional requests (``If-Match``, ``If-None-Match``)."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Header

from realtime.notes.preconditions import AllBut, Versions

# RFC 9110, section 8.8.3: between the quotes, any character except a quote or a control character.
# A list may have empty elements (section 5.6.1).
ENTITY_TAGS = r'^[ \t]*(\*|(,[ \t]*)*(W/)?"[!#-~ ]*"([ \t]*,([ \t]*(W/)?"[!#-~ ]*")?)*)[ \t]*$'
_TAG = re.compile(r'(W/)?"([^"]*)"')
# Apache appends the encoding to the tags of compressed responses, and does not remove it from requests.
_VERSION = re.compile(r"v([1-9][0-9]{0,15})(?:-gzip|-br)?")


def versions_of(tags: str, *, weak: bool) -> frozenset[int] | None:
    """Return the versions in a list of entity tags, or ``None`` for ``*``, which means all.

    Args:
        tags: The value of the header.
        weak: Whether to include weak tags.
    """
    if tags.strip() == "*":
        return None
    matches = (_VERSION.fullmatch(tag) for prefix, tag in _TAG.findall(tags) if weak or not prefix)
    return frozenset(int(match[1]) for match in matches if match)


def names_tag(tags: str, tag: str) -> bool:
    """Return whether a list of entity tags contains ``tag``, by weak comparison (RFC 9110, section 8.8.3.2)."""
    return tags.strip() == "*" or tag.strip('"') in (opaque for _, opaque in _TAG.findall(tags))


IfNoneMatch = Annotated[
    str | None, Header(pattern=ENTITY_TAGS, description="respond only if the version differs", examples=['"v3"'])
]


IfMatch = Annotated[
    str | None,
    Header(pattern=ENTITY_TAGS, description="write only if the note is at this version", examples=['"v3"']),
]
IfNoneMatchOfWrite = Annotated[
    str | None,
    Header(pattern=ENTITY_TAGS, description="write only if the note is not at this version", examples=['"v3"']),
]


async def precondition(if_match: IfMatch = None, if_none_match: IfNoneMatchOfWrite = None) -> Versions:
    """Return the versions at which the preconditions allow a write (RFC 9110, section 13.1)."""
    allowed = None if if_match is None else versions_of(if_match, weak=False)
    if if_none_match is None:
        return allowed
    excluded = versions_of(if_none_match, weak=True)
    if excluded is None:
        return frozenset()
    return AllBut(excluded) if allowed is None else allowed - excluded


AllowedVersions = Annotated[Versions, Depends(precondition)]
