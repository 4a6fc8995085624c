"""Authorization: roles, permissions, and the keys that lost access."""

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
    ("role", "allowed"),
    [
        (Role.VIEWER, {Permission.READ}),
        (Role.EDITOR, {Permission.READ, Permission.WRITE}),
        (Role.OWNER, {Permission.READ, Permission.WRITE, Permission.DELETE, Permission.SHARE}),
    ],
)
def test_role_allows_exactly_its_permissions(role: Role, allowed: set[Permission]) -> None:
    access = Access("ann") if role is Role.OWNER else Access("bob", {"ann": role})
    assert {permission for permission in Permission if can(ANN, access, permission)} == allowed


def test_role_of_returns_the_highest_role() -> None:
    assert role_of(ANN, Access("bob", {"ann": Role.EDITOR}, public=True)) is Role.EDITOR


def test_admin_and_anonymous_caller_have_no_access_to_private_notes() -> None:
    assert role_of(ADMIN, Access("ann")) is None
    assert not any(can(ANONYMOUS, Access("ann"), permission) for permission in Permission)


def test_admin_has_all_permissions_on_notes_without_an_owner() -> None:
    assert all(can(ADMIN, Access(), permission) for permission in Permission)
    assert role_of(ANN, Access()) is None


def test_read_only_token_allows_only_reading() -> None:
    reading = Principal(ANN.keys, "ann", "t1", writes=False)
    assert [permission for permission in Permission if can(reading, Access("ann"), permission)] == [Permission.READ]


def test_unrestricted_principal_has_all_permissions() -> None:
    assert all(can(UNRESTRICTED, Access("ann"), permission) for permission in Permission)


def test_link_grants_its_role_and_public_note_grants_viewer() -> None:
    access = Access("bob", link=Link(Role.EDITOR, "n", "link:1"), public=True)
    assert role_of(Principal(frozenset({EVERYONE, "link:1"})), access) is Role.EDITOR
    assert role_of(ANONYMOUS, access) is Role.VIEWER


def test_former_keys_are_kept_until_access_is_regained() -> None:
    first = Access("ann", {"bob": Role.EDITOR}, Link(Role.VIEWER, "n", "link:1"), public=True)
    second = first.followed_by(Access("ann"), 2)
    assert second.former == {"@bob": 2, "link:1": 2, EVERYONE: 2}
    third = second.followed_by(Access("ann", {"bob": Role.VIEWER}), 3)
    assert (third.since, third.former) == (3, {"link:1": 2, EVERYONE: 2})


def test_former_keys_over_the_limit_drop_the_oldest() -> None:
    crowd = Access("ann", {f"user{number}": Role.VIEWER for number in range(MAX_FORMER_KEYS)})
    later = Access("ann").followed_by(Access("ann", public=True), 2).followed_by(crowd, 3).followed_by(Access("ann"), 4)
    assert len(later.former) == MAX_FORMER_KEYS
    assert EVERYONE not in later.former
