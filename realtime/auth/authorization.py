"""What one may not see is not there, and what one may only see stays as it is."""

from __future__ import annotations

from typing import NamedTuple

from realtime.auth.permissions import Access, Act, Viewer, can, role_of
from realtime.errors import Forbidden, NoteNotFound, NotSignedIn


class NoteHidden(NoteNotFound):
    """There is a note with this id, but not for this user. The answer is the same as if there were none."""


class NoteForbidden(Forbidden):
    """The user can see the note, but may not do this with it."""


class Standing(NamedTuple):
    """What decides over a note: who may do what with it, and whether it is not in the trash, or gone."""

    access: Access
    live: bool


def check(viewer: Viewer, standing: Standing | None, act: Act = Act.READ, *, of_trash: bool = False) -> None:
    """Lets somebody do something with a note, or with one in the trash.

    Raises :class:`NotSignedIn` for whoever can change nothing at all, :class:`NoteNotFound`, :class:`Forbidden`.
    """
    if viewer.anonymous and act is not Act.READ:
        raise NotSignedIn
    if standing is None:
        raise NoteNotFound
    if not sees(viewer, standing):
        raise NoteHidden
    if not can(viewer, standing.access, act):
        if standing.live is of_trash:
            raise NoteNotFound
        raise NoteForbidden(f"You may not {act.word} this note")


def sees(viewer: Viewer, standing: Standing) -> bool:
    """Whether a note is there for somebody; in the trash it is for who may take it out."""
    role = role_of(viewer, standing.access)
    return role is not None and role >= (Act.READ if standing.live else Act.DELETE).needs


def check_author(viewer: Viewer) -> None:
    """Lets somebody make notes. Raises :class:`NotSignedIn`, :class:`Forbidden`."""
    if viewer.keys is None:
        return
    if viewer.name is None:
        raise NotSignedIn
    if not viewer.writes:
        raise Forbidden("This token only reads")


def may_set_ids_and_dates(viewer: Viewer) -> bool:
    """Whether the notes that a viewer imports may keep the ids and dates that they had elsewhere.

    Only admins may where there are accounts: ids tell which others exist, and dates can be made up.
    """
    return viewer.keys is None or viewer.admin
