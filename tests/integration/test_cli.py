"""The command line: options and error messages."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from realtime.cli.main import app
from realtime.embedded.lock import lock_folder
from realtime.settings import Settings
from realtime.version import __version__
from tests.support.harness import refusal


def realtime(*arguments: str) -> Result:
    """Run a command that needs no server in this process."""
    return CliRunner().invoke(app, arguments, prog_name="realtime", env={"COLUMNS": "120", "NO_COLOR": "1"})


def test_version_option_prints_the_package_version() -> None:
    assert realtime("--version").stdout == f"{__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--help"], ["serve", "watch", "user", "--version"]),
        (["serve", "--help"], ["--host", "--port", "--workers", "--data", "--mongo-url", "--redis-url", "REALTIME_"]),
        (["serve", "--help"], ["--auth", "--allow-public"]),
        (["watch", "--help"], ["--url", "--since", "--json", "--token", "REALTIME_URL", "REALTIME_TOKEN"]),
        (["user", "--help"], ["add", "list", "disable", "enable", "reset"]),
        (["user", "add", "--help"], ["--admin", "--password-stdin", "--data", "--mongo-url", "--database"]),
    ],
)
def test_help_lists_commands_and_options(arguments: list[str], names: list[str]) -> None:
    ended = realtime(*arguments)
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert [word for word in names if word not in ended.stdout] == []


def test_serve_help_shows_the_defaults_of_the_settings() -> None:
    shown = re.findall(r"\[default: \(?([^\s)]+)\)?\]", realtime("serve", "--help").stdout)
    assert shown == [str(getattr(Settings(), name)) for name in ("host", "port", "workers", "data", "auth")]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["serve", "--port", "http"], "'--port'"),
        (["serve", "--nonsense"], "--nonsense"),
        (["fly"], "'fly'"),
        (["watch", "extra"], "extra"),
    ],
)
def test_usage_error_names_the_invalid_argument(arguments: list[str], expected: str) -> None:
    ended = realtime(*arguments)
    assert ended.exit_code == 2
    assert expected in ended.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "70000"),
        ("workers", "0"),
        ("mongo_url", "mongodb://user:secret@:bad"),
        ("mongo_url", "http://user:secret@host"),
        ("redis_url", "http://user:secret@host"),
        ("redis_url", "redis://:secret@host:port"),
    ],
)
def test_invalid_option_is_named_without_printing_secrets(name: str, value: str, tmp_path: Path) -> None:
    message = refusal("serve", "--data", str(tmp_path), f"--{name.replace('_', '-')}", value)
    assert message.startswith(f"{name}: ")
    assert "secret" not in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_invalid_failpoint_is_refused_with_its_format(workers: str, tmp_path: Path) -> None:
    message = refusal("serve", "--data", str(tmp_path), "--workers", workers, "--port", "0", REALTIME_FAILPOINT="here")
    assert "failpoint" in message
    assert "<point>:<action>" in message


def test_option_overrides_the_environment_and_both_are_checked() -> None:
    assert refusal("serve", REALTIME_WORKERS="many").startswith("workers: ")
    assert refusal("serve", "--port", "70001", REALTIME_PORT="1").startswith("port: ")


LOOPBACK = ("127.0.0.1", "127.0.0.53", "::1", "localhost")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "notes.example", "", *LOOPBACK])
def test_only_public_host_without_accounts_or_allow_public_is_exposed(host: str) -> None:
    settings = Settings.model_construct(host=host)
    assert settings.exposed is (host not in LOOPBACK)
    assert not settings.model_copy(update={"auth": "accounts"}).exposed
    assert not settings.model_copy(update={"allow_public": True}).exposed


def test_public_host_is_refused_with_both_required_options(tmp_path: Path) -> None:
    message = refusal("serve", "--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path))
    assert "REALTIME_AUTH=accounts" in message
    assert "--allow-public" in message
    assert list(tmp_path.iterdir()) == []


def test_unknown_host_is_refused_with_its_name() -> None:
    message = refusal("serve", "--open", "--host", "nowhere.invalid")
    assert message.startswith("cannot listen on nowhere.invalid port 8000: ")


def test_port_in_use_is_refused_with_its_number(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        message = refusal("serve", "--port", str(port), "--data", str(tmp_path))
    assert message == f"cannot listen on 127.0.0.1 port {port}: Address already in use"
    assert list(tmp_path.iterdir()) == []


def test_data_folder_in_use_is_refused_with_the_process_id(tmp_path: Path) -> None:
    lock = lock_folder(tmp_path, os.getpid())
    try:
        message = refusal("serve", "--port", "0", "--data", str(tmp_path))
    finally:
        os.close(lock)
    assert message.startswith(f"the data folder {tmp_path} is in use by process {os.getpid()}. ")
    assert "--data" in message


def test_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.touch()
    assert str(file) in refusal("serve", "--port", "0", "--data", str(file))
