"""The expected access rights: the tables of the sharing tests, independent of the program.

A letter is a role for a note: Owner, Editor, Viewer, ``o`` and ``e`` for a read-only token of an owner and of an
editor, and ``-`` for none.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

PEOPLE = ("ann", "ann_reads", "ed", "ed_reads", "vi", "max", "linked", "stranger", "root")
"""Ann is the owner; Ed and Vi are members; Max has only an account; ``linked`` has only links; root is the admin."""

MEMBERS = [{"name": "ed", "role": "editor"}, {"name": "vi", "role": "viewer"}]
SHARED: dict[str, Json | None] = {
    "private": {},
    "members": {"members": MEMBERS},
    "link": {"link": "viewer"},
    "editlink": {"link": "editor"},
    "public": {"public": True},
    "everything": {"members": MEMBERS, "link": "viewer", "public": True},
    "revoked": {"members": MEMBERS, "link": "editor", "public": True},
    "trashed": {"members": MEMBERS, "link": "editor", "public": True},
    "unowned": None,
}
"""How each note is shared. ``revoked`` is unshared afterwards, and ``trashed`` is deleted."""

#               ann ann_reads ed ed_reads vi max linked stranger root
ROLES = """
private         O   o         -  -        -  -   -      -        -
members         O   o         E  e        V  -   -      -        -
link            O   o         -  -        -  -   V      -        -
editlink        O   o         -  -        -  -   E      -        -
public          O   o         V  V        V  V   V      V        V
everything      O   o         E  e        V  V   V      V        V
revoked         O   o         -  -        -  -   -      -        -
trashed         O   o         -  -        -  -   -      -        -
unowned         -   -         -  -        -  -   -      -        O
"""

READ, WRITE, OWN = "OoEeV", "OE", "O"
ALLOWED = {"read": READ, "write": WRITE, "own": OWN}
"""The letters that are allowed. Others get 403 if they can see the note, and 404 if they cannot."""

Role = dict[tuple[str, str], str]


def roles() -> Role:
    """Return the letter of each note and person."""
    table: Role = {}
    for line in ROLES.strip().splitlines():
        note, *letters = line.split()
        table |= {(note, person): letter for person, letter in zip(PEOPLE, letters, strict=True)}
    return table


def status(letter: str, needs: str, person: str, *, done: int) -> int:
    """Return the expected status of a request. ``done`` is the status with the right. Strangers must sign in first."""
    if person == "stranger" and needs != "read":
        return 401
    if letter == "-":
        return 404
    return done if letter in ALLOWED[needs] else 403
