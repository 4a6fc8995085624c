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


READER = Principal(ANN.keys, "ann", "t1", writes=False)
GUEST = Principal(frozenset({EVERYONE, "link:1"}))
LINKED = Access("bob", link=Link(Role.EDITOR, "n", "link:1"), public=True)
ALL, EDIT, READ = set(Permission), {Permission.READ, Permission.WRITE}, {Permission.READ}


@pytest.mark.parametrize(
    ("principal", "access", "role", "allowed"),
    [
        (ANN, Access("bob", {"ann": Role.VIEWER}), Role.VIEWER, READ),
        (ANN, Access("bob", {"ann": Role.EDITOR}), Role.EDITOR, EDIT),
        (ANN, Access("ann"), Role.OWNER, ALL),
        (ANN, Access("bob", {"ann": Role.EDITOR}, public=True), Role.EDITOR, EDIT),
        (ANN, Access(), None, set()),
        (ADMIN, Access("ann"), None, set()),
        (ADMIN, Access(), Role.OWNER, ALL),
        (READER, Access("ann"), Role.OWNER, READ),
        (UNRESTRICTED, Access("ann"), Role.OWNER, ALL),
        (GUEST, LINKED, Role.EDITOR, EDIT),
        (ANONYMOUS, LINKED, Role.VIEWER, READ),
        (ANONYMOUS, Access("ann"), None, set()),
    ],
)
def test_access_gives_the_highest_role_and_its_permissions(
    principal: Principal, access: Access, role: Role | None, allowed: set[Permission]
) -> None:
    assert role_of(principal, access) is role
    assert {permission for permission in Permission if can(principal, access, permission)} == allowed


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
