"""The routes of who may do what with a note."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from realtime.api.auth_deps import CONFIRM, Name, private
from realtime.api.cookies import add_link
from realtime.api.deps import Id, Who, only
from realtime.api.etags import Allowed
from realtime.api.responses import JSON_BODY, NOT_FOUND, READ, STALE, WRITE
from realtime.api.router import SlashRouter
from realtime.api.services import services_of
from realtime.auth.permissions import Role
from realtime.errors import NoAccounts
from realtime.notes.models import STORABLE, Model, NoteId, example
from realtime.notes.preconditions import etag
from realtime.notes.sharing import AccessRequest, Sharing, SharingState

router = SlashRouter(tags=["sharing"])

MOST_MEMBERS = 100
Level = Literal["viewer", "editor"]


class Member(Model):
    """Somebody with whom a note is shared."""

    name: Name
    role: Level


class LinkOut(BaseModel):
    """The link to a note: whoever has its token has the role."""

    role: Level
    token: Annotated[str, Field(description="for `POST /auth/links`, or `Authorization: Bearer …`")]


_SHARED: dict[str, Any] = {"members": [{"name": "ben", "role": "editor"}], "link": "viewer", "public": False}
_LINK: dict[str, Any] = {"role": "viewer", "token": "ln_3q2-7w…"}


class AccessIn(Model):
    """Who shall be able to do what with a note; what is left out is taken back."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SHARED]})

    members: Annotated[list[Member], Field(default_factory=list, max_length=MOST_MEMBERS)]
    link: Annotated[Level | None, Field(description="a secret address; `null` takes it back for good")] = None
    public: Annotated[bool, Field(description="whether everyone may read it")] = False
    owner: Annotated[Name | None, Field(description="gives the note away")] = None

    @field_validator("members")
    @classmethod
    def _once(cls, members: list[Member]) -> list[Member]:
        names = [member.name for member in members]
        if len(set(names)) < len(names):
            raise ValueError("names somebody twice")
        return members

    def wanted(self) -> AccessRequest:
        """What is asked for."""
        members = {member.name: Role[member.role.upper()] for member in self.members}
        return AccessRequest(members, None if self.link is None else Role[self.link.upper()], self.public, self.owner)


class AccessOut(BaseModel):
    """Who may do what with a note. `members` and `link` are for the owner only, else `null`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"owner": "ann", "role": "owner", **_SHARED, "link": _LINK}]}
    )

    owner: Annotated[str | None, Field(description="`null`: made without accounts, and the admins'")]
    role: Annotated[
        Literal["viewer", "editor", "owner"] | None,
        Field(description="what one is to it oneself; `null`: it was given away by this"),
    ]
    members: list[Member] | None
    link: LinkOut | None
    public: bool


def _answer(shared: SharingState) -> Response:
    access, token = shared.access, shared.token
    members = [Member(name=name, role=_level(role)) for name, role in sorted(access.members.items())]
    body = AccessOut(
        owner=access.owner,
        role=None if shared.role is None else _role(shared.role),
        members=members if shared.whole else None,
        link=LinkOut(role=_level(access.link.role), token=token) if access.link is not None and token else None,
        public=access.public,
    )
    answer = private(body)
    answer.headers["ETag"] = etag(shared.version)
    return answer


def _role(role: Role) -> Literal["viewer", "editor", "owner"]:
    return "owner" if role is Role.OWNER else _level(role)


def _level(role: Role) -> Level:
    return "editor" if role is Role.EDITOR else "viewer"


async def _sharing(request: Request) -> Sharing:
    sharing = services_of(request).sharing
    if sharing is None:
        raise NoAccounts
    return sharing


SharingPart = Annotated[Sharing, Depends(_sharing)]


@router.get(
    "/notes/{id}/access",
    dependencies=[only()],
    summary="Who may do what?",
    response_model=AccessOut,
    responses={**READ, **NOT_FOUND},
)
async def access(sharing: SharingPart, who: Who, id: Id) -> Response:
    """Whose note it is, what one is to it, and, for its owner, with whom it is shared."""
    return _answer(await sharing.read(who, id))


@router.put(
    "/notes/{id}/access",
    dependencies=[only()],
    summary="Share a note",
    response_model=AccessOut,
    responses={**JSON_BODY, **WRITE, **CONFIRM, **NOT_FOUND, **STALE},
)
async def share(sharing: SharingPart, who: Who, id: Id, body: AccessIn, versions: Allowed) -> Response:
    """Says who may do what from now on: a version of the note. Who lost it is told at once, on every way in.

    Another `owner` needs a password that was confirmed in this session in the last 10 minutes: `POST /auth/confirm`.
    """
    return _answer(await sharing.change(who, id, body.wanted(), versions))


class LinkIn(Model):
    """The token of a link."""

    model_config = example(token="ln_3q2-7w…")

    token: Annotated[str, Field(min_length=1, max_length=100), *STORABLE]


class Opened(BaseModel):
    """The note that a link opens."""

    model_config = example("id")

    id: NoteId


@router.post(
    "/auth/links",
    dependencies=[only()],
    summary="Open a link",
    response_model=Opened,
    responses={**JSON_BODY, **WRITE, **NOT_FOUND},
)
async def open_link(request: Request, sharing: SharingPart, body: LinkIn) -> Response:
    """Gives the browser the link as a cookie, so that what it opens is there, signed in or not."""
    answer = private(Opened(id=await sharing.opened_by(body.token)))
    add_link(answer, request, body.token)
    return answer
