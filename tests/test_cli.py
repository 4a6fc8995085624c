"""The command line: what it takes, and how it says no."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from realtime import __version__
from realtime.keeper import lock_folder
from realtime.settings import Settings
from tests.harness import UNIT, ServerProcess


def realtime(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "realtime", *arguments],
        env={**os.environ, "COLUMNS": "120", "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        timeout=30 * UNIT,
        check=False,
    )


def refusal(*arguments: str, **environment: str) -> str:
    """What a command that must fail says: one message for people and nothing else."""
    ended = realtime(*arguments, **environment)
    assert (ended.returncode, ended.stdout) == (1, ""), ended
    message = ended.stderr.removeprefix("realtime: ").removesuffix("\n")
    assert ended.stderr == f"realtime: {message}\n"
    assert "\n" not in message
    assert "Traceback" not in message
    return message


def test_version() -> None:
    assert realtime("--version").stdout == f"{__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "mentioned"),
    [
        (["--help"], ["serve", "watch", "--version"]),
        (["serve", "--help"], ["--host", "--port", "--workers", "--data", "--mongo-url", "--redis-url", "REALTIME_"]),
        (["watch", "--help"], ["--url", "--since", "--json", "REALTIME_URL"]),
    ],
)
def test_help_names_everything(arguments: list[str], mentioned: list[str]) -> None:
    ended = realtime(*arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [word for word in mentioned if word not in ended.stdout] == []


def test_help_tells_the_real_defaults() -> None:
    shown = re.findall(r"\[default: (\S+)\]", realtime("serve", "--help").stdout)
    assert shown == [str(getattr(Settings(), name)) for name in ("host", "port", "workers", "data")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--port", "http"], "'--port'"),
        (["serve", "--nonsense"], "--nonsense"),
        (["fly"], "'fly'"),
        (["watch", "extra"], "extra"),
    ],
)
def test_usage_error_names_the_word(arguments: list[str], said: str) -> None:
    ended = realtime(*arguments)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("port", "70000", "port: "),
        ("workers", "0", "workers: "),
        ("mongo-url", "mongodb://user:secret@:bad", "mongo_url: "),
        ("mongo-url", "http://user:secret@host", "mongo_url: "),
        ("redis-url", "http://user:secret@host", "redis_url: "),
        ("redis-url", "redis://:secret@host:port", "redis_url: "),
    ],
)
@pytest.mark.parametrize("source", ["option", "environment"])
def test_bad_setting_is_refused_by_name_and_without_secrets(
    source: str, name: str, value: str, said: str, tmp_path: Path
) -> None:
    if source == "option":
        message = refusal("serve", "--data", str(tmp_path), f"--{name}", value)
    else:
        message = refusal("serve", "--data", str(tmp_path), **{f"REALTIME_{name.replace('-', '_').upper()}": value})
    assert message.startswith(said)
    assert "secret" not in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_bad_failpoint_is_refused(workers: str, tmp_path: Path) -> None:
    message = refusal("serve", "--data", str(tmp_path), "--workers", workers, "--port", "0", REALTIME_FAILPOINT="here")
    assert "failpoint" in message
    assert "<point>:<action>" in message


def test_option_wins_over_the_environment() -> None:
    assert refusal("serve", "--port", "70001", REALTIME_PORT="1").startswith("port: ")


def test_unknown_host_is_refused() -> None:
    message = refusal("serve", "--host", "nowhere.invalid")
    assert message.startswith("cannot listen on nowhere.invalid port 8000: ")


def test_port_in_use_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = refusal("serve", "--port", str(port), "--data", str(tmp_path))
    assert message == f"cannot listen on 127.0.0.1 port {port}: Address already in use"
    assert list(tmp_path.iterdir()) == []


def test_folder_in_use_is_refused_with_its_holder(tmp_path: Path) -> None:
    lock = lock_folder(tmp_path, os.getpid())
    try:
        message = refusal("serve", "--port", "0", "--data", str(tmp_path))
    finally:
        os.close(lock)
    assert message.startswith(f"the data folder {tmp_path} is in use by process {os.getpid()}. ")
    assert "--data" in message


@pytest.mark.parametrize("place", ["", "mongodb", "mongodb/data", "valkey", "lock/x", "ports.json/x"])
def test_folder_that_cannot_be_used_is_refused(place: str, tmp_path: Path) -> None:
    """A file stands where a folder should be, or the other way round: permissions do not bind a superuser."""
    folder = tmp_path / "data"
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).touch()
    assert str(folder) in refusal("serve", "--port", "0", "--data", str(folder))


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1", "http://", "http://[::1", "http://127.0.0.1:99999", "http://127.0.0.1:http", ""]
)
def test_watch_refuses_what_is_no_address(url: str) -> None:
    assert "is not the address of a server" in refusal("watch", "--url", url)


def test_serve_says_where_everything_is(serve: Callable[..., ServerProcess]) -> None:
    server = serve()
    assert server.process is not None
    assert server.process.stdout is not None
    rest = [server.process.stdout.readline().decode() for _ in range(2)]
    assert rest == [f"Docs  {server.url}/docs\n", f"Feed  {server.ws}\n"]
