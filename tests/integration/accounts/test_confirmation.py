"""Actions that require a confirmed password: which, for how long, and for which session."""

from __future__ import annotations

from httpx2 import Response
from pymongo.database import Database

from realtime.auth.tokens import digest
from tests.support.accounts import PASSWORD, Browse, Browser, bearer, expire_confirmation
from tests.support.harness import Json

WRONG = "wrong horse battery staple"
NEEDED = {
    "detail": "Confirm your password first: send it to POST /auth/confirm, then repeat this request",
    "required": "password_confirmation",
}


def make_token(who: Browser) -> Response:
    return who.post("/auth/tokens", json={"name": "for a program"})


def confirm(who: Browser, password: str = PASSWORD) -> Response:
    return who.post("/auth/confirm", json={"password": password})


def test_token_needs_a_confirmation_in_the_same_session(database: Database[Json], browse: Browse, ann: Browser) -> None:
    phone = browse().sign_in(ann.name)
    expire_confirmation(database, ann)
    refused = make_token(ann)
    assert (refused.status_code, refused.json()) == (403, NEEDED)
    assert ann.get("/auth/tokens").json() == []
    wrong = confirm(ann, WRONG)
    assert (wrong.status_code, wrong.json()) == (403, {"detail": "The password is wrong"})
    assert confirm(phone).status_code == 204
    assert make_token(ann).json() == NEEDED
    assert confirm(ann).status_code == 204
    assert make_token(ann).status_code == 201


def test_session_of_an_earlier_release_needs_a_confirmation(database: Database[Json], ann: Browser) -> None:
    database.sessions.update_one({"_id": digest(ann.secret)}, {"$unset": {"proven_date": ""}})
    assert make_token(ann).json() == NEEDED
    assert confirm(ann).status_code == 204
    assert make_token(ann).status_code == 201


def test_password_change_confirms_the_session(database: Database[Json], ann: Browser) -> None:
    expire_confirmation(database, ann)
    assert ann.post("/auth/password", json={"old": PASSWORD, "new": f"{PASSWORD} two"}).status_code == 204
    assert make_token(ann).status_code == 201


def test_wrong_confirmations_share_the_limit_of_password_changes(browse: Browse, ann: Browser) -> None:
    phone = browse().sign_in(ann.name)
    statuses = [confirm(ann, WRONG).status_code for _ in range(3)]
    statuses += [ann.post("/auth/password", json={"old": WRONG, "new": PASSWORD}).status_code for _ in range(2)]
    assert statuses == [403] * 5
    limited = confirm(ann)
    assert limited.status_code == 429
    assert int(limited.headers["retry-after"]) >= 1
    assert confirm(phone).status_code == 204
    assert browse().try_sign_in(ann.name).status_code == 200


def test_confirmation_requires_a_session(browse: Browse, ann: Browser) -> None:
    token = bearer(ann.token()["token"])
    assert browse().post("/auth/confirm", json={"password": PASSWORD}, headers=token).status_code == 403
    assert confirm(browse()).status_code == 401


def test_confirmations_are_recorded_in_the_audit_log(root: Browser, ann: Browser) -> None:
    confirm(ann, WRONG)
    confirm(ann)
    entries = root.get("/audit", params={"who": ann.name, "action": "password.confirm"}).json()
    assert [entry["ok"] for entry in entries] == [True, False]


def test_transfer_needs_a_confirmation_but_sharing_does_not(
    database: Database[Json], ann: Browser, root: Browser, note: int
) -> None:
    expire_confirmation(database, ann)
    path = f"/notes/{note}/access"
    assert ann.put(path, json={"members": [{"name": "root", "role": "editor"}]}).status_code == 200
    assert ann.put(path, json={"owner": ann.name}).status_code == 200  # no transfer
    refused = ann.put(path, json={"owner": "root"})
    assert (refused.status_code, refused.json()) == (403, NEEDED)
    assert ann.get(path).json()["owner"] == ann.name
    assert confirm(ann).status_code == 204
    assert ann.put(path, json={"owner": "root"}).json()["owner"] == "root"


def test_api_token_cannot_transfer_a_note(browse: Browse, ann: Browser, root: Browser, note: int) -> None:
    token = bearer(ann.token()["token"])
    answer = browse().put(f"/notes/{note}/access", json={"owner": "root"}, headers=token)
    assert (answer.status_code, answer.json()) == (
        403,
        {"detail": "API tokens cannot do this. Sign in with your password"},
    )


def test_confirmation_is_not_requested_without_permission_to_share(
    database: Database[Json], ann: Browser, bob: Browser, note: int
) -> None:
    expire_confirmation(database, bob)
    assert bob.put(f"/notes/{note}/access", json={"owner": "root"}).status_code == 404
    ann.put(f"/notes/{note}/access", json={"members": [{"name": bob.name, "role": "editor"}]})
    answer = bob.put(f"/notes/{note}/access", json={"owner": bob.name})
    assert (answer.status_code, answer.json()) == (403, {"detail": "You may not share this note"})
