"""Who may do what."""

from __future__ import annotations

import pytest

from realtime.access import EVERYONE, OPEN, STRANGER, UNOWNED, Access, Act, Role, Viewer, can, key_of, role_of

ANN = Viewer(frozenset({EVERYONE, key_of("ann")}), "ann", "s1")
ADMIN = Viewer(frozenset({EVERYONE, key_of("root"), UNOWNED}), "root", "s2", admin=True)


@pytest.mark.parametrize(
    ("role", "acts"),
    [
        (Role.VIEWER, {Act.READ}),
        (Role.EDITOR, {Act.READ, Act.WRITE}),
        (Role.OWNER, {Act.READ, Act.WRITE, Act.DELETE, Act.SHARE}),
    ],
)
def test_role_allows_its_acts(role: Role, acts: set[Act]) -> None:
    assert {act for act in Act if can(ANN, Access({key_of("ann"): role}), act)} == acts


def test_greatest_role_counts() -> None:
    assert role_of(ANN, Access({EVERYONE: Role.VIEWER, key_of("ann"): Role.EDITOR})) is Role.EDITOR


def test_nobody_has_a_role_in_the_notes_of_others() -> None:
    assert role_of(ADMIN, Access({key_of("ann"): Role.OWNER})) is None
    assert not any(can(STRANGER, Access({key_of("ann"): Role.OWNER}), act) for act in Act)


def test_notes_without_an_owner_are_the_admins() -> None:
    assert all(can(ADMIN, Access(), act) for act in Act)
    assert role_of(ANN, Access()) is None


def test_token_that_only_reads() -> None:
    reading = Viewer(ANN.keys, "ann", "t1", writes=False)
    assert [act for act in Act if can(reading, Access({key_of("ann"): Role.OWNER}), act)] == [Act.READ]


def test_everything_is_everyones_without_accounts() -> None:
    assert all(can(OPEN, Access({key_of("ann"): Role.OWNER}), act) for act in Act)
