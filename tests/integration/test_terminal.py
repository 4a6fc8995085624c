"""The command line in unusual environments: a message and an exit code, never a traceback."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import IO

import pytest
from typer.testing import CliRunner

from realtime.cli.main import app
from realtime.cli.terminal import printable
from tests.support.files import zipped
from tests.support.harness import UNIT, ServerProcess, eventually, note_in, rest_client

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LATIN_1 = {"PYTHONIOENCODING": "latin-1"}
Argument = str | bytes | Path
BROKEN_PROXIES = [
    {"all_proxy": "socks5://127.0.0.1:1"},
    {"all_proxy": "unknown://127.0.0.1:1", "http_proxy": "http://host:port", "https_proxy": "http://host:port"},
    {"http_proxy": ":::bad", "https_proxy": ":::bad", "no_proxy": "[,*.["},
    {"http_proxy": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1", "no_proxy": ""},
]


def _run(
    arguments: Sequence[Argument],
    environment: dict[str, str] | None = None,
    *,
    shell: str = "",
    **options: object,
) -> subprocess.CompletedProcess[bytes]:
    """Run ``realtime`` in a separate process. ``shell`` contains redirections in shell syntax."""
    command = [sys.executable, "-m", "realtime", *arguments]
    if shell:
        command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command]
    environment = {"PATH": os.environ["PATH"], "NO_COLOR": "1", "COLUMNS": "200", **(environment or {})}
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    ended: subprocess.CompletedProcess[bytes] = subprocess.run(  # type: ignore[call-overload]
        command, env=environment, check=False, timeout=60 * UNIT, **options
    )
    assert b"Traceback" not in (ended.stderr or b"") + (ended.stdout or b"")
    return ended


def _target(folder: Path, command: str) -> list[Argument]:
    """Create a file to import, and return the arguments of a command."""
    (folder / "a.md").write_text("# Note")
    targets: dict[str, list[Argument]] = {"export": [folder / "a.zip"], "import": [folder / "a.md"], "watch": []}
    return [command, *targets[command]]


@contextmanager
def _watching(server: ServerProcess, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """Run ``realtime watch`` until it is connected, and yield the process and its standard output."""
    command = [sys.executable, "-m", "realtime", "watch", "--url", server.url]
    environment = {**os.environ, **environment}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"ready ")
            yield process, process.stdout
        finally:
            process.kill()


@pytest.fixture
def unusual_files(tmp_path: Path) -> Path:
    """Create a folder of files with unusual names, dates and types."""
    folder = tmp_path / "unusual"
    folder.mkdir()
    for name, text in ((b"caf\xe9.md", b"no heading"), ("Größe.md".encode(), b"no heading"), (b"old.md", b"# Old old")):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(text)
    for title, moment in (("old.md", -86400), ("new.md", 2**33), ("newest.md", 2**34 - 1)):
        (folder / title).write_text(f"# Note {title}")
        os.utime(folder / title, (moment, moment))
    Path(os.fsdecode(os.fsencode(folder) + b"/pic\xff.png")).write_bytes(b"\x89PNG")
    (folder / "link.md").symlink_to("/etc/hostname")
    (folder / "line\nfeed.txt").write_text("text")
    os.mkfifo(folder / "pipe.md")
    (folder / "link").symlink_to(folder)
    return folder


@pytest.mark.parametrize("environment", [{}, ASCII, LATIN_1, {"PYTHONIOENCODING": "ascii"}], ids=str)
def test_unusual_files_are_imported_or_skipped_with_a_reason(
    server: ServerProcess, unusual_files: Path, environment: dict[str, str]
) -> None:
    ended = _run(["import", unusual_files, "--url", server.url], environment)
    assert (ended.returncode, ended.stdout) == (0, b"5 notes imported\n"), ended.stderr
    report = ended.stderr.decode(errors="replace")
    for line in (
        "skipped  link.md: is a symbolic link",
        "skipped  link: is a symbolic link",
        "skipped  pipe.md: is not a regular file",
        ".txt: is not a Markdown file (.md)",
        ".png: is not a Markdown file (.md)",
        ".md: its name is not in UTF-8 and was read as Windows-1252",
        "5 files skipped, 1 file changed",
    ):
        assert line in report
    assert len(report.splitlines()) == 7


def test_unusual_files_named_as_arguments_are_imported_or_skipped(
    server: ServerProcess, unusual_files: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.zip").write_bytes(zipped({"packed.md": "# Packed"}))
    (tmp_path / "broken.zip").write_bytes(b"no archive")
    arguments: list[Argument] = [
        unusual_files / "missing.md",
        unusual_files / "pipe.md",
        unusual_files / "link.md",
        os.fsencode(unusual_files) + b"/pic\xff.png",
        unusual_files / "new.md",
    ]
    ended = _run(["import", *arguments, tmp_path / "notes.zip", tmp_path / "broken.zip", "--url", server.url])
    assert ended.stdout == b"3 notes imported\n", ended.stderr
    report = ended.stderr.decode()
    assert f"skipped  {unusual_files / 'missing.md'}: no such file or folder" in report
    assert "pic\u00ff.png: is neither a Markdown file (.md) nor a zip archive" in report
    assert "skipped  broken.zip: the archive cannot be read: File is not a zip file" in report
    assert "4 files skipped" in report


def test_unreadable_files_and_folders_are_skipped(server: ServerProcess) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for file in ("fine.md", "locked.md", "closed/inner.md"):
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text("# Note")
        arguments = ["import", name, f"{name}/locked.md", "--url", server.url]
        assert CliRunner().invoke(app, arguments).stdout == "4 notes imported\n"  # and imports all modules
        (folder / "locked.md").chmod(0)
        (folder / "closed").chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # root reads everything
        try:
            ended = CliRunner().invoke(app, arguments)
        finally:
            os.seteuid(user)
            (folder / "closed").chmod(0o700)
    assert ended.stdout == "1 note imported\n", ended.output
    assert ended.stderr.splitlines() == [
        "skipped  closed: the folder cannot be read: Permission denied",
        "skipped  locked.md: cannot be read: Permission denied",
        "skipped  locked.md: cannot be read: Permission denied",
        "3 files skipped",
    ]


@pytest.mark.parametrize("environment", BROKEN_PROXIES, ids=str)
def test_export_and_import_on_localhost_ignore_proxy_settings(
    server: ServerProcess, tmp_path: Path, environment: dict[str, str]
) -> None:
    upper = {name.upper(): value for name, value in environment.items()}
    assert _run(["export", tmp_path / "a.zip", "--url", server.url], upper).returncode == 0
    (tmp_path / "a.md").write_text("# Note")
    assert _run(["import", tmp_path / "a.md", "--url", server.url], environment).stdout == b"1 note imported\n"


@pytest.mark.parametrize("environment", BROKEN_PROXIES, ids=str)
async def test_watch_on_localhost_ignores_proxy_settings(server: ServerProcess, environment: dict[str, str]) -> None:
    with _watching(server, **environment):
        pass


@pytest.mark.parametrize("environment", BROKEN_PROXIES[:3], ids=str)
@pytest.mark.parametrize("command", ["export", "import", "watch"])
def test_invalid_proxy_setting_is_reported(tmp_path: Path, command: str, environment: dict[str, str]) -> None:
    if command == "watch" and "https_proxy" not in environment:
        environment = {"https_proxy": environment["all_proxy"]}
    ended = _run([*_target(tmp_path, command), "--url", "https://notes.invalid"], environment)
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert ended.stderr.startswith(b"realtime: the proxy settings of the environment cannot be used: ")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://[::1",
        "http://host:port",
        "ftp://host",
        "http://a..b",
        f"http://{'a' * 300}.invalid",
        "http://\udcff",
    ],
)
@pytest.mark.parametrize("command", ["export", "import", "watch"])
def test_invalid_address_is_reported(tmp_path: Path, command: str, url: str) -> None:
    ended = _run([*_target(tmp_path, command), "--url", url])
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert ended.stderr.startswith(b"realtime: ")


def test_token_with_invalid_characters_is_refused(tmp_path: Path) -> None:
    for token in ("a\nb", "\u00e9"):
        ended = _run(["export", tmp_path / "a.zip"], {"REALTIME_TOKEN": token})
        assert (ended.returncode, ended.stdout) == (2, b"")


class _OtherServer(BaseHTTPRequestHandler):
    """A server that is not realtime, and sends the same response to every request."""

    answer = b""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.mark.parametrize(
    "answer",
    [
        *(b"<html>", b"", b"[]", b"1", b"null", b"{}", b"\xff", b'{"imported": 1, "ids": [1], "skipped": ["a.png"]}'),
        b'{"imported": null, "ids": [], "skipped": [], "changed": []}',
    ],
)
@pytest.mark.parametrize("command", ["export", "import"])
def test_response_of_another_server_is_reported(tmp_path: Path, command: str, answer: bytes) -> None:
    handler = type("Handler", (_OtherServer,), {"answer": answer})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        ended = CliRunner().invoke(app, [*map(str, _target(tmp_path, command)), "--url", url])
        thread.join()
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.startswith("realtime: ")


@pytest.mark.parametrize("environment", [ASCII, LATIN_1, {"PYTHONIOENCODING": "ascii"}], ids=str)
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["serve", "--help"],
        ["user", "add", "--help"],
        ["user", "add", "\u00e9"],
        ["watch", "--url", "\u65e5://"],
    ],
    ids=str,
)
def test_output_works_on_a_terminal_without_unicode(environment: dict[str, str], arguments: list[str]) -> None:
    ended = _run(arguments, environment)
    assert ended.returncode == (0 if "--help" in arguments else 1)
    assert ended.stdout + ended.stderr


async def test_watch_replaces_characters_that_the_terminal_cannot_print(server: ServerProcess) -> None:
    with _watching(server, PYTHONUNBUFFERED="1", PYTHONIOENCODING="latin-1") as (_, output):
        async with rest_client(server.url) as rest:
            await rest.post("/notes/", json=note_in("Größe \u65e5\u672c", "for all"))
        assert output.readline() == "created  #1 v1  Größe ?? ? for all\n".encode("latin-1")


@pytest.mark.parametrize("shell", [">&-", "2>&-", ">&- 2>&-", ">&- 2>&- <&-"])
def test_commands_work_with_closed_streams(server: ServerProcess, tmp_path: Path, shell: str) -> None:
    (tmp_path / "a.md").write_text("# Note")
    (tmp_path / "b.txt").write_text("text")
    assert _run(["import", tmp_path, "--url", server.url], shell=shell).returncode == 0
    assert _run(["export", tmp_path / "a.zip", "--url", server.url], shell=shell).returncode == 0
    assert _run(["no-command"], shell=shell).returncode == 2


def test_closed_input_is_reported_as_missing_password(tmp_path: Path) -> None:
    ended = _run(["user", "add", "ann", "--password-stdin", "--data", tmp_path / "data"], shell="<&-")
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert ended.stderr.startswith(b"realtime: password: ")


def test_output_that_cannot_be_written_is_reported(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Note")
    size = 2**20
    with (tmp_path / "out").open("ab") as output:
        output.truncate(size)
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))  # other files can be written
        ended = _run(["import", tmp_path / "a.md", "--url", server.url], stdout=output, preexec_fn=limit)
    assert (ended.returncode, ended.stderr) == (1, b"realtime: [Errno 27] File too large\n")


async def test_watch_ends_when_its_output_is_closed(server: ServerProcess) -> None:
    with _watching(server) as (process, output):
        output.close()
        async with rest_client(server.url) as rest:

            async def ended() -> bool:
                await rest.post("/notes/", json=note_in())
                return process.poll() is not None

            await eventually(ended, 20)
        assert process.returncode == 1
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["import", "."],
        ["export", "a.zip"],
        ["export", "folder"],
        ["user", "list"],
        ["serve", "--port", "0"],
        ["watch", "--url", ""],
    ],
    ids=" ".join,
)
def test_deleted_working_directory_causes_no_traceback(
    server: ServerProcess, tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "gone").mkdir()
    command = f'cd "$1" && rmdir "$1" && shift && exec env -u HOME {sys.executable} -m realtime "$@"'
    environment = {"PATH": os.environ["PATH"], "REALTIME_URL": server.url, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(
        ["sh", "-c", command, "sh", tmp_path / "gone", *arguments],
        env=environment,
        check=False,
        capture_output=True,
        timeout=60 * UNIT,
    )
    assert b"Traceback" not in ended.stderr
    assert ended.returncode == (0 if arguments == ["--help"] else 1), ended.stderr


@pytest.mark.parametrize("password", [b"p\xe4ssword of many letters", b"\xff" * 20, b""])
@pytest.mark.parametrize("environment", [{}, ASCII], ids=str)
def test_invalid_or_missing_password_is_refused(tmp_path: Path, password: bytes, environment: dict[str, str]) -> None:
    command: list[Argument] = ["user", "add", "ann", "--password-stdin", "--data", tmp_path]
    ended = _run(command, environment, stdin=None, input=password + b"\n") if password else _run(command, environment)
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"realtime: ")


def test_printable_replaces_control_characters() -> None:
    assert printable("a\x1b[31m\r\n\u202eb \udcff") == "a\ufffd[31m\ufffd\ufffd\ufffdb \ufffd"


def test_prepare_accepts_replaced_and_missing_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "stderr", None)
    from realtime.cli.terminal import prepare

    prepare()
    with sys.stdin, sys.stderr:
        assert sys.stdin.read() == ""
        print("nowhere", file=sys.stderr)  # noqa: T201
