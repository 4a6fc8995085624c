"""``realtime user``: managing accounts from the terminal, with and without a running server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from realtime.cli.main import app
from realtime.embedded.pair import EmbeddedServers
from realtime.settings import Settings
from tests.support.accounts import PASSWORD, Browser, accounts_server, bearer, parts_of, run
from tests.support.harness import note_in
from tests.support.workers import environment_of

User = Callable[..., Result]


def user(*arguments: str, given: str = "", **environment: str) -> Result:
    """Run ``realtime user`` in this process."""
    quick = {"COLUMNS": "120", "NO_COLOR": "1", "REALTIME_PASSWORD_MEMORY": "8", **environment}
    return CliRunner().invoke(app, ["user", *arguments], given, quick)


@pytest.fixture
def administer(settings: Settings) -> User:
    """Return a function that runs ``realtime user`` on the database of the test."""
    return lambda *arguments, given="": user(*arguments, given=given, **environment_of(settings))


def test_users_are_added_and_listed(administer: User) -> None:
    added = administer("add", "Ann", "--password-stdin", given=f"{PASSWORD}\n")
    assert (added.exit_code, added.stdout) == (0, "ann was added as an administrator\n"), added.stderr
    assert administer("add", "bob", given=f"{PASSWORD}\n{PASSWORD}\n").stdout.endswith("bob was added\n")
    assert administer("add", "cid", "--admin", "--password-stdin", given=PASSWORD).exit_code == 0
    assert administer("disable", "bob").stdout == "bob is disabled\n"
    assert administer("list").stdout == "ann admin\nbob disabled\ncid admin\n"
    assert administer("enable", "bob").stdout == "bob is enabled\n"


@pytest.mark.parametrize(
    ("arguments", "given", "said"),
    [
        (["add", "ann", "--password-stdin"], PASSWORD, "This name is already taken"),
        (["add", "bob", "--password-stdin"], "too short", "at least 15 characters"),
        (["add", "bob", "--password-stdin"], "qwertyuiopasdfgh", "too easy to guess"),
        (["add", "not a name", "--password-stdin"], PASSWORD, "a name has"),
        (["reset", "bob", "--password-stdin"], PASSWORD, "User not found"),
        (["disable", "bob"], "", "User not found"),
    ],
)
def test_refused_command_prints_one_line(administer: User, arguments: list[str], given: str, said: str) -> None:
    administer("add", "ann", "--password-stdin", given=PASSWORD)
    ended = administer(*arguments, given=given)
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.startswith("realtime: ")
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_reset_ends_sessions_and_tokens(settings: Settings, administer: User) -> None:
    with accounts_server(settings) as host:
        ann = Browser(host).sign_up()
        token = ann.token()["token"]
        new = "another horse and another staple"
        assert administer("reset", ann.name, "--password-stdin", given=new).exit_code == 0
        actions = [entry["action"] for entry in Browser(host).sign_in(ann.name, new).get("/audit").json()]
        assert actions[:2] == ["sign-in", "user.reset"]
        assert Browser(host).try_sign_in(ann.name).status_code == 401

        def ended() -> bool:
            return not ann.user and Browser(host).get("/auth/me", headers=bearer(token)).status_code == 401

        assert any(ended() for _ in range(1000))


def test_reset_keeps_api_tokens_on_request(settings: Settings, administer: User) -> None:
    with accounts_server(settings) as host:
        ann = Browser(host).sign_up()
        token = bearer(ann.token()["token"])
        new = "another horse and another staple"
        ended = administer("reset", ann.name, "--keep-tokens", "--password-stdin", given=new)
        said = f"{ann.name} has a new password and was signed out everywhere. Their API tokens stay valid\n"
        assert (ended.exit_code, ended.stdout) == (0, said)
        assert any(ann.user is None for _ in range(1000))
        assert Browser(host).get("/auth/me", headers=token).status_code == 200


def test_roles_are_changed_and_accounts_are_deleted(administer: User) -> None:
    for name in ("ann", "bob"):
        administer("add", name, "--password-stdin", given=PASSWORD)
    assert administer("demote", "ann").stderr.startswith("realtime: ann is the last administrator")
    assert administer("promote", "BOB").stdout == "bob is now an administrator\n"
    assert administer("demote", "ann").stdout == "ann is no longer an administrator\n"
    refused = administer("delete", "bob", "--yes")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "last administrator" in refused.stderr
    assert administer("delete", "ann", given="n\n").exit_code == 1
    assert administer("list").stdout == "ann\nbob admin\n"
    deleted = administer("delete", "ann", "--transfer-to", "bob", given="y\n")
    said = "ann was deleted. The server transfers the notes within seconds, or at its next start\n"
    assert deleted.exit_code == 0, deleted.stderr
    assert deleted.stdout.endswith(said)
    assert administer("list").stdout == "bob admin\n"
    for gone in (
        ["enable", "ann"],
        ["promote", "ann"],
        ["delete", "ann", "--yes"],
        ["reset", "ann", "--password-stdin"],
    ):
        assert "User not found" in administer(*gone, given=PASSWORD).stderr
    assert "This name is already taken" in administer("add", "ann", "--password-stdin", given=PASSWORD).stderr


def test_server_transfers_the_notes_of_a_deleted_account(settings: Settings, administer: User) -> None:
    with accounts_server(settings) as host:
        root, ann = Browser(host).sign_up(), Browser(host).sign_up()
        note = ann.post("/notes/", json=note_in()).json()["id"]
        assert administer("delete", ann.name, "--transfer-to", root.name, "--yes").exit_code == 0
        run(host, parts_of(host).deleted_accounts.settle_all)
        assert root.get(f"/notes/{note}/access").json()["role"] == "owner"


def test_invites_are_listed_and_revoked(settings: Settings, administer: User) -> None:
    with accounts_server(settings, sign_up="invite") as host:
        root = Browser(host).sign_up()
        invite = root.post("/invites").json()
        listed = administer("invites").stdout
        assert listed.startswith(f"{invite['id']} by {root.name} until 20")
        assert administer("revoke-invite", invite["id"]).stdout == "The invite was revoked\n"
        assert administer("invites").stdout == ""
        assert "Invite not found" in administer("revoke-invite", invite["id"]).stderr
        assert root.get("/invites").json() == []


def test_add_uses_the_running_servers_of_a_data_folder(embedded: EmbeddedServers, settings: Settings) -> None:
    place = ["--data", str(embedded.folder), "--database", settings.database]
    added = user("add", "ann", "--password-stdin", *place, given=PASSWORD)
    assert (added.stdout, added.stderr) == ("ann was added as an administrator\n", "")


def test_add_starts_the_stopped_servers_of_a_data_folder(tmp_path: Path) -> None:
    added = user("add", "ann", "--password-stdin", "--data", str(tmp_path), given=PASSWORD)
    assert (added.stdout, added.stderr) == ("ann was added as an administrator\n", "")
