"""Authorization."""

from __future__ import annotations

import pytest

from realtime.auth.permissions import (
    ANONYMOUS,
    EVERYONE,
    MAX_FORMER_KEYS,
    UNOWNED,
    UNRESTRICTED,
    Access,
    Link,
    Permission,
    Principal,
    Role,
    can,
    key_of,
    role_of,
)

ANN = Principal(frozenset({EVERYONE, key_of("ann")}), "ann", "s1")
ADMIN = Principal(frozenset({EVERYONE, key_of("root"), UNOWNED}), "root", "s2", admin=True)


@pytest.mark.parametrize(
    ("role", "acts"),
    [
        (Role.VIEWER, {Permission.READ}),
        (Role.EDITOR, {Permission.READ, Permission.WRITE}),
        (Role.OWNER, {Permission.READ, Permission.WRITE, Permission.DELETE, Permission.SHARE}),
    ],
)
def test_role_allows_its_acts(role: Role, acts: set[Permission]) -> None:
    access = Access("ann") if role is Role.OWNER else Access("bob", {"ann": role})
    assert {act for act in Permission if can(ANN, access, act)} == acts


def test_greatest_role_counts() -> None:
    assert role_of(ANN, Access("bob", {"ann": Role.EDITOR}, public=True)) is Role.EDITOR


def test_nobody_has_a_role_in_the_notes_of_others() -> None:
    assert role_of(ADMIN, Access("ann")) is None
    assert not any(can(ANONYMOUS, Access("ann"), act) for act in Permission)


def test_notes_without_an_owner_are_the_admins() -> None:
    assert all(can(ADMIN, Access(), act) for act in Permission)
    assert role_of(ANN, Access()) is None


def test_token_that_only_reads() -> None:
    reading = Principal(ANN.keys, "ann", "t1", writes=False)
    assert [act for act in Permission if can(reading, Access("ann"), act)] == [Permission.READ]


def test_everything_is_everyones_without_accounts() -> None:
    assert all(can(UNRESTRICTED, Access("ann"), act) for act in Permission)


def test_link_and_public_open_to_whoever_has_the_key() -> None:
    access = Access("bob", link=Link(Role.EDITOR, "n", "link:1"), public=True)
    assert role_of(Principal(frozenset({EVERYONE, "link:1"})), access) is Role.EDITOR
    assert role_of(ANONYMOUS, access) is Role.VIEWER


def test_who_lost_a_note_is_remembered_until_it_is_theirs_again() -> None:
    first = Access("ann", {"bob": Role.EDITOR}, Link(Role.VIEWER, "n", "link:1"), public=True)
    second = first.followed_by(Access("ann"), 2)
    assert second.former == {"@bob": 2, "link:1": 2, EVERYONE: 2}
    third = second.followed_by(Access("ann", {"bob": Role.VIEWER}), 3)
    assert (third.since, third.former) == (3, {"link:1": 2, EVERYONE: 2})


def test_only_the_last_who_lost_a_note_are_remembered() -> None:
    crowd = Access("ann", {f"user{number}": Role.VIEWER for number in range(MAX_FORMER_KEYS)})
    later = Access("ann").followed_by(Access("ann", public=True), 2).followed_by(crowd, 3).followed_by(Access("ann"), 4)
    assert len(later.former) == MAX_FORMER_KEYS
    assert EVERYONE not in later.former
