"""Failed sign-ins are reported to the user with that name, and to no other user."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pymongo.database import Database
from starlette.testclient import TestClient

from realtime.auth.failed_sign_ins import MAX_PENDING_USERS, FailedSignInRecorder
from realtime.errors import OutcomeUnknown
from tests.support.accounts import PASSWORD, Browse, Browser, bearer, parts_of, run
from tests.support.harness import Json

WRONG = "wrong wrong wrong wrong"


def reported(browser: Browser) -> Json | None:
    """Return the failed sign-ins that the server reports to a browser."""
    failed: Json | None = browser.get("/auth/me").json()["failed_sign_ins"]
    return failed


def test_failures_are_reported_between_the_next_two_sign_ins(browse: Browse, ann: Browser) -> None:
    assert reported(ann) is None
    started = datetime.now(UTC).replace(microsecond=0)
    for _ in range(3):
        browse().try_sign_in(ann.name, WRONG)
    assert reported(ann) is None
    answer = ann.try_sign_in(ann.name).json()
    assert answer["failed_sign_ins"]["count"] == 3
    assert started <= datetime.fromisoformat(answer["failed_sign_ins"]["last_date"]) <= datetime.now(UTC)
    assert reported(ann) == answer["failed_sign_ins"]
    phone = browse().sign_in(ann.name)
    assert (reported(phone), reported(ann)) == (None, None)


def test_acknowledged_failures_are_not_reported_again(browse: Browse, ann: Browser) -> None:
    browse().try_sign_in(ann.name, WRONG)
    ann.sign_in(ann.name)
    assert reported(ann) is not None
    token = ann.token()["token"]
    assert browse().delete("/auth/failed-sign-ins", headers=bearer(token)).status_code == 403
    assert browse().delete("/auth/failed-sign-ins").status_code == 401
    assert ann.delete("/auth/failed-sign-ins").status_code == 204
    assert ann.delete("/auth/failed-sign-ins").status_code == 204
    assert reported(ann) is None


def test_token_requests_count_failures_but_do_not_reset_them(browse: Browse, ann: Browser) -> None:
    form = {"username": ann.name, "password": WRONG}
    assert browse().post("/auth/token", data=form).status_code == 401
    assert browse().post("/auth/token", data={**form, "password": PASSWORD}).status_code == 200
    assert ann.try_sign_in(ann.name).json()["failed_sign_ins"]["count"] == 1


def test_failures_are_not_reported_to_other_callers(browse: Browse, ann: Browser) -> None:
    browse().try_sign_in(ann.name, WRONG)
    refused = [browse().try_sign_in(name, WRONG) for name in (ann.name, "nobody-here")]
    assert refused[0].json() == refused[1].json() == {"detail": "The name or the password is wrong"}
    ann.sign_in(ann.name)
    for other in (browse(), browse().sign_up()):
        assert reported(other) is None
    token = ann.token()["token"]
    assert browse().get("/auth/me", headers=bearer(token)).json()["failed_sign_ins"] is None


def test_failures_of_an_unknown_name_are_not_stored(
    database: Database[Json], host: TestClient, browse: Browse, root: Browser
) -> None:
    browse().try_sign_in("nobody-at-all", WRONG)
    run(host, parts_of(host).accounts.failures.flush)
    assert database.people.count_documents({"_id": "nobody-at-all"}) == 0


class FakeUserStore:
    """A store of users that can be unavailable."""

    def __init__(self) -> None:
        self.unavailable = True
        self.counts: dict[str, int] = {}

    async def add_failed_sign_ins(self, failed: Json) -> None:
        if self.unavailable:
            raise OutcomeUnknown
        for name, one in failed.items():
            self.counts[name] = self.counts.get(name, 0) + one.count


async def test_pending_failures_are_kept_and_bounded_during_an_outage() -> None:
    people = FakeUserStore()
    counter = FailedSignInRecorder(people)  # type: ignore[arg-type]  # the only method that it calls
    for number in range(MAX_PENDING_USERS + 5):
        counter.add(f"user{number}")
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            await counter.flush()
        counter.add("user0")
    await counter.aclose()
    people.unavailable = False
    await counter.aclose()
    assert people.counts["user0"] == 3
    assert len(people.counts) == MAX_PENDING_USERS
