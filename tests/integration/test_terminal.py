"""The command line in unusual environments: a message and an exit code, never a traceback."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

from realtime.cli.main import app
from realtime.cli.terminal import printable
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
    """Run ``realtime`` in a process of its own, with redirections in the words of a shell."""
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


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder of files with odd names, odd dates and odd kinds."""
    folder = tmp_path / "odd"
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
def test_odd_files_are_imported_or_skipped(server: ServerProcess, odd: Path, environment: dict[str, str]) -> None:
    ended = _run(["import", odd, "--url", server.url], environment)
    assert (ended.returncode, ended.stdout) == (0, b"5 notes imported\n"), ended.stderr
    told = ended.stderr.decode(errors="replace")
    for line in (
        "skipped  link.md: is a symbolic link",
        "skipped  link: is a symbolic link",
        "skipped  pipe.md: is not a regular file",
        ".txt: is not a Markdown file (.md)",
        ".png: is not a Markdown file (.md)",
        ".md: its name is not in UTF-8 and was read as Windows-1252",
        "5 files skipped, 1 file changed",
    ):
        assert line in told
    assert len(told.splitlines()) == 7


def test_odd_files_that_are_named_one_by_one(server: ServerProcess, odd: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "notes.zip", "w") as archive:
        archive.writestr("packed.md", "# Packed")
    (tmp_path / "broken.zip").write_bytes(b"no archive")
    named: list[Argument] = [
        odd / "missing.md",
        odd / "pipe.md",
        odd / "link.md",
        os.fsencode(odd) + b"/pic\xff.png",
        odd / "new.md",
    ]
    ended = _run(["import", *named, tmp_path / "notes.zip", tmp_path / "broken.zip", "--url", server.url])
    assert ended.stdout == b"3 notes imported\n", ended.stderr
    told = ended.stderr.decode()
    assert f"skipped  {odd / 'missing.md'}: no such file or folder" in told
    assert "pic\u00ff.png: is neither a Markdown file (.md) nor a zip archive" in told
    assert "skipped  broken.zip: the archive cannot be read: File is not a zip file" in told
    assert "4 files skipped" in told


def test_what_cannot_be_read_is_skipped(server: ServerProcess) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for file in ("fine.md", "locked.md", "closed/inner.md"):
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text("# Note")
        arguments = ["import", name, f"{name}/locked.md", "--url", server.url]
        assert CliRunner().invoke(app, arguments).stdout == "4 notes imported\n"  # and all modules are imported
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
def test_this_machine_needs_no_proxy(server: ServerProcess, tmp_path: Path, environment: dict[str, str]) -> None:
    upper = {name.upper(): value for name, value in environment.items()}
    assert _run(["export", tmp_path / "a.zip", "--url", server.url], upper).returncode == 0
    (tmp_path / "a.md").write_text("# Note")
    assert _run(["import", tmp_path / "a.md", "--url", server.url], environment).stdout == b"1 note imported\n"


@pytest.mark.parametrize("environment", BROKEN_PROXIES, ids=str)
async def test_watch_of_this_machine_needs_no_proxy(server: ServerProcess, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "realtime", "watch", "--url", server.url]
    with subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"ready ")
        finally:
            process.kill()


@pytest.mark.parametrize("environment", BROKEN_PROXIES[:3], ids=str)
@pytest.mark.parametrize("command", ["export", "import", "watch"])
def test_broken_proxy_is_named(tmp_path: Path, command: str, environment: dict[str, str]) -> None:
    if command == "watch" and "https_proxy" not in environment:
        environment = {"https_proxy": environment["all_proxy"]}
    (tmp_path / "a.md").write_text("# Note")
    target: Sequence[Argument] = {"export": [tmp_path / "a.zip"], "import": [tmp_path / "a.md"], "watch": []}[command]
    ended = _run([command, *target, "--url", "https://notes.invalid"], environment)
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
def test_bad_address_is_refused(tmp_path: Path, command: str, url: str) -> None:
    (tmp_path / "a.md").write_text("# Note")
    target: Sequence[Argument] = {"export": [tmp_path / "a.zip"], "import": [tmp_path / "a.md"], "watch": []}[command]
    ended = _run([command, *target, "--url", url])
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert ended.stderr.startswith(b"realtime: ")


def test_bad_token_is_refused(tmp_path: Path) -> None:
    for token in ("a\nb", "\u00e9"):
        ended = _run(["export", tmp_path / "a.zip"], {"REALTIME_TOKEN": token})
        assert (ended.returncode, ended.stdout) == (2, b"")


class _Other(BaseHTTPRequestHandler):
    """A server of another kind, which answers everything in the same way."""

    answer = b""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(
    "answer",
    [
        *(b"<html>", b"", b"[]", b"1", b"null", b"{}", b"\xff", b'{"imported": 1, "ids": [1], "skipped": ["a.png"]}'),
        b'{"imported": null, "ids": [], "skipped": [], "changed": []}',
    ],
)
@pytest.mark.parametrize("command", ["export", "import"])
def test_server_of_another_kind_is_named(tmp_path: Path, command: str, answer: bytes) -> None:
    handler = type("Handler", (_Other,), {"answer": answer})
    (tmp_path / "a.md").write_text("# Note")
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        target = {"export": tmp_path / "a.zip", "import": tmp_path / "a.md"}[command]
        ended = CliRunner().invoke(app, [command, str(target), "--url", url])
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
def test_terminal_with_few_characters(environment: dict[str, str], arguments: list[str]) -> None:
    ended = _run(arguments, environment)
    assert ended.returncode == (0 if "--help" in arguments else 1)
    assert ended.stdout + ended.stderr


async def test_notes_on_a_terminal_with_few_characters(server: ServerProcess) -> None:
    command = [sys.executable, "-m", "realtime", "watch", "--url", server.url]
    environment = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "latin-1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"ready ")
            async with rest_client(server.url) as rest:
                await rest.post("/notes/", json=note_in("Größe \u65e5\u672c", "for all"))
            assert process.stdout.readline() == "created  #1 v1  Größe ?? ? for all\n".encode("latin-1")
        finally:
            process.kill()


@pytest.mark.parametrize("shell", [">&-", "2>&-", ">&- 2>&-", ">&- 2>&- <&-"])
def test_streams_may_be_closed(server: ServerProcess, tmp_path: Path, shell: str) -> None:
    (tmp_path / "a.md").write_text("# Note")
    (tmp_path / "b.txt").write_text("text")
    assert _run(["import", tmp_path, "--url", server.url], shell=shell).returncode == 0
    assert _run(["export", tmp_path / "a.zip", "--url", server.url], shell=shell).returncode == 0
    assert _run(["no-command"], shell=shell).returncode == 2


def test_input_may_be_closed(tmp_path: Path) -> None:
    ended = _run(["user", "add", "ann", "--password-stdin", "--data", tmp_path / "data"], shell="<&-")
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert ended.stderr.startswith(b"realtime: password: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_output_may_be_full(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Note")
    ended = _run(["import", tmp_path / "a.md", "--url", server.url], shell="> /dev/full")
    assert (ended.returncode, ended.stderr) == (1, b"realtime: [Errno 28] No space left on device\n")


async def test_reader_may_leave(server: ServerProcess) -> None:
    command = [sys.executable, "-m", "realtime", "watch", "--url", server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline().startswith(b"ready ")
            process.stdout.close()
            async with rest_client(server.url) as rest:

                async def ended() -> bool:
                    await rest.post("/notes/", json=note_in())
                    return process.poll() is not None

                await eventually(ended, 20)
            assert process.returncode == 1
            assert process.stderr.read() == b""
        finally:
            process.kill()


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
def test_folder_and_home_may_be_gone(server: ServerProcess, tmp_path: Path, arguments: list[str]) -> None:
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
def test_odd_password_is_refused(tmp_path: Path, password: bytes, environment: dict[str, str]) -> None:
    command: list[Argument] = ["user", "add", "ann", "--password-stdin", "--data", tmp_path]
    ended = _run(command, environment, stdin=None, input=password + b"\n") if password else _run(command, environment)
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"realtime: ")


def test_text_cannot_control_the_terminal() -> None:
    assert printable("a\x1b[31m\r\n\u202eb \udcff") == "a\ufffd[31m\ufffd\ufffd\ufffdb \ufffd"


def test_stream_that_python_does_not_know_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "stderr", None)
    from realtime.cli.terminal import prepare

    prepare()
    with sys.stdin, sys.stderr:
        assert sys.stdin.read() == ""
        print("nowhere", file=sys.stderr)  # noqa: T201
