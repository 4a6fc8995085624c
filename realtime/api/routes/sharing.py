"""Routes for sharing notes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from realtime.api.auth_deps import CONFIRM, Name, private_response
from realtime.api.cookies import add_link
from realtime.api.deps import CurrentPrincipal, Id, allow_query
from realtime.api.etags import AllowedVersions
from realtime.api.responses import JSON_BODY, NOT_FOUND, READ, STALE, WRITE
from realtime.api.router import SlashRouter
from realtime.api.services import services_of
from realtime.auth.permissions import Role
from realtime.errors import AccountsDisabled
from realtime.notes.models import STORABLE, Model, NoteId, example
from realtime.notes.preconditions import etag
from realtime.notes.sharing import AccessRequest, Sharing, SharingState

router = SlashRouter(tags=["sharing"])

MAX_MEMBERS = 100
Level = Literal["viewer", "editor"]


class Member(Model):
    """A user that a note is shared with."""

    name: Name
    role: Level


class LinkOut(BaseModel):
    """The share link of a note. Everyone who has its token has the role."""

    role: Level
    token: Annotated[str, Field(description="to be sent to `POST /auth/links`, or as `Authorization: Bearer …`")]


_SHARED: dict[str, Any] = {"members": [{"name": "ben", "role": "editor"}], "link": "viewer", "public": False}
_LINK: dict[str, Any] = {"role": "viewer", "token": "ln_3q2-7w…"}


class AccessIn(Model):
    """The new access rights of a note. Omitted rights are revoked."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SHARED]})

    members: Annotated[list[Member], Field(default_factory=list, max_length=MAX_MEMBERS)]
    link: Annotated[
        Level | None, Field(description="the role of the share link; `null` permanently revokes the link")
    ] = None
    public: Annotated[bool, Field(description="whether everyone can read the note")] = False
    owner: Annotated[Name | None, Field(description="the new owner, to transfer the note")] = None

    @field_validator("members")
    @classmethod
    def _check_unique(cls, members: list[Member]) -> list[Member]:
        names = [member.name for member in members]
        if len(set(names)) < len(names):
            raise ValueError("contains a name twice")
        return members

    def request(self) -> AccessRequest:
        """Return the requested access rights."""
        members = {member.name: Role[member.role.upper()] for member in self.members}
        return AccessRequest(members, None if self.link is None else Role[self.link.upper()], self.public, self.owner)


class AccessOut(BaseModel):
    """The access rights of a note. `members` and `link` are `null` unless the caller is the owner."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"owner": "ann", "role": "owner", **_SHARED, "link": _LINK}]}
    )

    owner: Annotated[
        str | None,
        Field(description="`null` for a note that was created without accounts and belongs to the administrators"),
    ]
    role: Annotated[
        Literal["viewer", "editor", "owner"] | None,
        Field(description="the caller's role; `null` if the request transferred the note"),
    ]
    members: list[Member] | None
    link: LinkOut | None
    public: bool


def _access_response(state: SharingState) -> Response:
    access, token = state.access, state.token
    members = [Member(name=name, role=_level_name(role)) for name, role in sorted(access.members.items())]
    body = AccessOut(
        owner=access.owner,
        role=None if state.role is None else _role_name(state.role),
        members=members if state.members_visible else None,
        link=LinkOut(role=_level_name(access.link.role), token=token) if access.link is not None and token else None,
        public=access.public,
    )
    response = private_response(body)
    response.headers["ETag"] = etag(state.version)
    return response


def _role_name(role: Role) -> Literal["viewer", "editor", "owner"]:
    return "owner" if role is Role.OWNER else _level_name(role)


def _level_name(role: Role) -> Level:
    return "editor" if role is Role.EDITOR else "viewer"


async def _sharing(request: Request) -> Sharing:
    sharing = services_of(request).sharing
    if sharing is None:
        raise AccountsDisabled
    return sharing


SharingDep = Annotated[Sharing, Depends(_sharing)]


@router.get(
    "/notes/{id}/access",
    dependencies=[allow_query()],
    summary="Read the access rights",
    response_model=AccessOut,
    responses={**READ, **NOT_FOUND},
)
async def access(sharing: SharingDep, principal: CurrentPrincipal, id: Id) -> Response:
    """Return the owner of a note, the caller's role and, to the owner, the members and the share link."""
    return _access_response(await sharing.read(principal, id))


@router.put(
    "/notes/{id}/access",
    dependencies=[allow_query()],
    summary="Share a note",
    response_model=AccessOut,
    responses={**JSON_BODY, **WRITE, **CONFIRM, **NOT_FOUND, **STALE},
)
async def share(
    sharing: SharingDep, principal: CurrentPrincipal, id: Id, body: AccessIn, versions: AllowedVersions
) -> Response:
    """Replace the access rights of a note, as a new version.

    Users who lose access receive `note.deleted` on the feed, and are disconnected from the room of the note.

    A new `owner` requires a password confirmation in this session within the last 10 minutes: `POST /auth/confirm`.
    """
    return _access_response(await sharing.change(principal, id, body.request(), versions))


class LinkIn(Model):
    """The token of a share link."""

    model_config = example(token="ln_3q2-7w…")

    token: Annotated[str, Field(min_length=1, max_length=100), *STORABLE]


class Opened(BaseModel):
    """The note of a share link."""

    model_config = example("id")

    id: NoteId


@router.post(
    "/auth/links",
    dependencies=[allow_query()],
    summary="Open a share link",
    response_model=Opened,
    responses={**JSON_BODY, **WRITE, **NOT_FOUND},
)
async def open_link(request: Request, sharing: SharingDep, body: LinkIn) -> Response:
    """Store a share link in a cookie, so that the browser can access the note, signed in or not."""
    response = private_response(Opened(id=await sharing.opened_by(body.token)))
    add_link(response, request, body.token)
    return response
