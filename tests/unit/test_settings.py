"""Settings: sources, validation, and secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from realtime.settings import RENAMED, Settings


def test_defaults_serve_on_loopback_with_embedded_servers() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.workers, settings.data) == ("127.0.0.1", 8000, 1, Path("data"))
    assert settings.mongo_url is None
    assert settings.redis_url is None
    assert settings.failpoint == ""


def test_environment_sets_fields_that_no_argument_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALTIME_PORT", "9000")
    monkeypatch.setenv("REALTIME_WORKERS", "3")
    monkeypatch.setenv("REALTIME_MONGO_URL", "")
    monkeypatch.setenv("PORT", "1")
    settings = Settings(workers=2)
    assert (settings.port, settings.workers, settings.mongo_url) == (9000, 2, None)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_old_name_of_a_setting_works_and_warns(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    monkeypatch.setenv(f"REALTIME_{old.upper()}", "1" if old == "open" else "2000")
    with pytest.warns(FutureWarning, match=f"REALTIME_{old.upper()} was renamed to REALTIME_{new.upper()}"):
        assert getattr(Settings(), new) == (True if old == "open" else 2000)
    monkeypatch.setenv(f"REALTIME_{new.upper()}", "0" if old == "open" else "3000")
    with pytest.warns(FutureWarning):
        assert getattr(Settings(), new) == (False if old == "open" else 3000)


def test_secrets_folder_sets_fields_that_nothing_else_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "realtime_mongo_url").write_text("mongodb://from.file/\n")
    (tmp_path / "realtime_redis_url").write_text("redis://from.file/\n")
    (tmp_path / "other").write_text("of another program")
    monkeypatch.setenv("REALTIME_SECRETS", str(tmp_path))
    monkeypatch.setenv("REALTIME_REDIS_URL", "redis://from.environment/")
    settings = Settings()
    assert (settings.mongo_url, settings.redis_url) == ("mongodb://from.file/", "redis://from.environment/")
    assert Settings(mongo_url="mongodb://argument/").mongo_url == "mongodb://argument/"
    monkeypatch.delenv("REALTIME_SECRETS")
    assert Settings().mongo_url is None
    assert Settings(secrets=tmp_path).mongo_url == "mongodb://from.file/"


@pytest.mark.filterwarnings("ignore:directory")  # pydantic-settings warns, and the setting is rejected
def test_missing_secrets_folder_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="nowhere is not a folder"):
        Settings(secrets=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", -1),
        ("port", 65536),
        ("port", "http"),
        ("workers", 0),
        ("database", "no/slash"),
        ("database", ""),
        ("database", "x" * 39),
        ("auth", "none"),
        ("sign_up", "friends"),
        ("secret", "short"),
        ("password_memory", 1),
        ("log_level", "loud"),
        ("log_format", "xml"),
        ("max_body", 0),
        ("write_timeout", 0),
        ("read_timeout", -1),
        ("publish_wait", -0.1),
        ("heartbeat", 0),
        ("log_entries", 1),
        ("client_queue_bytes", 1),
        ("client_stall_seconds", 0),
        ("drain_seconds", -1),
        ("drain_seconds", "inf"),
        ("heartbeat", "inf"),
        ("security_contact", "security@notes.example"),
        ("security_contact", "mailto:a@b.example\nContact: https://evil.example"),
        ("user_notes", -1),
        ("user_bytes", -1),
        ("max_connections_per_network", -1),
        ("unknown", 1),
    ],
)
def test_invalid_setting_is_rejected_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(**{name: value})
    assert [error["loc"] for error in refused.value.errors()] == [(name,)]


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]  # the assignment under test


def test_repr_does_not_contain_passwords_or_secrets() -> None:
    settings = Settings(mongo_url="mongodb://user:secret@host", redis_url="redis://:secret@host", secret="secret" * 6)
    assert "secret" not in f"{settings!r} {settings}"


def test_every_setting_has_a_description() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    "origin",
    [
        "https://notes.example",
        "http://localhost:3000",
        "http://[::1]:3000",
        "https://xn--nt-fka.example:8443",
        "app://x",
    ],
)
def test_origin_as_browsers_send_it_is_accepted(origin: str) -> None:
    assert Settings(origins=f"{origin} http://a.example").origins.split()[0] == origin


@pytest.mark.parametrize("limited", ["connects_per_second", "connections_per_network"])
@pytest.mark.parametrize(
    ("auth", "value", "limit"), [("open", None, 0), ("accounts", None, 200), ("accounts", 0, 0), ("open", 9, 9)]
)
def test_connection_limit_depends_on_the_auth_mode(limited: str, auth: str, value: int | None, limit: int) -> None:
    arguments: dict[str, Any] = {} if value is None else {f"max_{limited}": value}
    assert getattr(Settings(auth=auth, **arguments), f"{limited}_limit") == limit


@pytest.mark.parametrize(
    "origin",
    [
        "*", "null", "notes.example", "https://", "https://notes.example/", "https://notes.example/path", "https://*.example",
        "https://notes.example:443", "http://notes.example:80", "HTTPS://notes.example", "https://Notes.example",
        "https://user@notes.example", "https://notes.example?x", "https://nötes.example", "https://a.example,http://b.example",
    ],
)  # fmt: skip
def test_invalid_origin_is_rejected(origin: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(origins=f"http://a.example {origin}")
    assert f"{origin} is not a valid origin" in str(refused.value)
