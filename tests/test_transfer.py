"""Export and import, over REST and from the command line: what goes out comes in again, and nonsense does not."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from pymongo import MongoClient
from starlette.testclient import TestClient
from typer.testing import CliRunner

from realtime import create_app
from realtime.cli import app
from realtime.embedded import Embedded
from realtime.settings import Settings
from tests.harness import Json, ServerProcess, note_in

NDJSON = {"Accept": "application/x-ndjson"}
NOTES = [
    note_in("Groceries", "for the weekend", content="# To buy\nmilk\n", tags=["home"]),
    note_in("---", "null", content="---\ntitle: no front matter of ours\n---\r\n\r\nends without a line feed"),
    note_in("yes", "2026-01-01", content="\ufeff\u2028 🦜 \x01", tags=["no", "1.5", "- x", "#", "{a}"]),
    note_in("'quoted\" \\ : #", "tab\tand\nline", content="x" * 100_000),
]


@pytest.fixture
def other(embedded: Embedded) -> Iterator[TestClient]:
    """Another, empty server."""
    settings = Settings(mongo_url=embedded.mongo_url, redis_url=embedded.redis_url, database="test-other")
    with TestClient(create_app(settings)) as client:
        yield client
    with MongoClient[Json](embedded.mongo_url) as mongo:
        mongo.drop_database("test-other")


def _zip(**files: str | bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "/") + ".md", data)
    return packed.getvalue()


def _import(client: TestClient, *files: tuple[str, bytes], query: str = "", **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(f"/import{query}", files=[("files", file) for file in files], headers=named)


def _files(export: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(export)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def _without_times(export: bytes) -> list[bytes]:
    texts = _files(export).values()
    return [re.sub(rb"^(id|created|updated): .*\n", b"", text, count=3, flags=re.MULTILINE) for text in texts]


def _state(client: TestClient) -> list[Json]:
    notes: list[Json] = client.get("/notes/?limit=1000").json()
    return notes


def test_export_is_a_zip_of_markdown(client: TestClient) -> None:
    for note in NOTES:
        client.post("/notes/", json=note)
    client.delete("/notes/2/")
    export = client.get("/export")
    assert (export.status_code, export.headers["Content-Type"]) == (200, "application/zip")
    assert re.fullmatch(r'attachment; filename="notes-\d{4}-\d\d-\d\d\.zip"', export.headers["Content-Disposition"])
    assert export.headers["X-Total-Count"] == "3"
    files = _files(export.content)
    assert list(files) == ["000001-groceries.md", "000003-yes.md", "000004-quoted.md"]
    assert files["000001-groceries.md"].decode() == (
        "---\nid: 1\ntitle: Groceries\ndescription: for the weekend\ntags:\n- home\n"
        f"created: '{client.get('/notes/1/').json()['created_date']}'\n"
        f"updated: '{client.get('/notes/1/').json()['updated_date']}'\n---\n# To buy\nmilk\n"
    )


def test_repeat_tells_the_ids_whatever_became_of_the_notes(client: TestClient) -> None:
    files = [(f"{name}.md", f"# Note {name}".encode()) for name in ("one", "two", "six")]
    first = _import(client, *files, Idempotency_Key="key").json()
    client.delete("/notes/1/")
    client.delete("/notes/2/")
    client.delete("/trash/2/")
    assert _import(client, *files, Idempotency_Key="key").json() == first
    assert [note["id"] for note in _state(client)] == [3]


@pytest.mark.parametrize("query", ["?keepids=true", "?keep_ids=true&keep_ids=false"])
def test_misspelt_option_is_refused(client: TestClient, query: str) -> None:
    answer = _import(client, ("a.md", b"# Note"), query=query)
    assert (answer.status_code, answer.json()["detail"][0]["loc"][0]) == (422, "query")
    assert _state(client) == []


def test_export_of_nothing(client: TestClient) -> None:
    assert _files(client.get("/export").content) == {}


def test_export_import_export_is_the_same(client: TestClient, other: TestClient) -> None:
    for note in NOTES:
        client.post("/notes/", json=note)
    client.delete("/notes/1/")
    client.post("/trash/1/restore")
    first = client.get("/export").content
    answer = _import(other, ("notes.zip", first))
    assert (answer.status_code, answer.json()) == (200, {"imported": 4, "ids": [1, 2, 3, 4], "skipped": []})
    second = other.get("/export").content
    assert _without_times(second) == _without_times(first)
    assert [{name: note[name] for name in ("title", "description", "content", "tags")} for note in _state(other)] == [
        {"content": "", "tags": [], **note} for note in NOTES
    ]


def test_imported_notes_have_a_history_and_are_on_the_feed(client: TestClient) -> None:
    with client.websocket_connect("/ws") as socket:
        assert socket.receive_json()["type"] == "ready"
        _import(client, ("one.md", b"# A title\ntext"))
        event = socket.receive_json()
    assert (event["type"], event["id"], event["note"]["title"]) == ("note.created", 1, "A title")
    (revision,) = client.get("/notes/1/history/").json()
    assert (revision["version"], revision["action"]) == (1, "import")
    assert client.get("/notes/1/history/1/").json()["content"] == "# A title\ntext"


def test_ids_are_new_or_kept(client: TestClient) -> None:
    client.post("/notes/", json=note_in())
    export = _zip(a="---\nid: 7\n---\n# Seven", b="---\nid: 5\n---\n# Five!")
    assert _import(client, ("a.zip", export)).json()["ids"] == [2, 3]
    assert _import(client, ("a.zip", export), query="?keep_ids=true").json()["ids"] == [7, 5]
    assert client.get("/notes/5/").json()["title"] == "Five!"
    assert client.post("/notes/", json=note_in()).json()["id"] == 8


def test_large_ids_leave_room_for_more(client: TestClient) -> None:
    large = 2**52 - 1
    for id in (2**31, large):
        file = ("a.md", f"---\nid: {id}\n---\n# Note".encode())
        assert _import(client, file, query="?keep_ids=true").json()["ids"] == [id]
    made = client.post("/notes/", json=note_in()).json()
    assert made["id"] == large + 1
    assert client.get(f"/notes/{made['id']}/").json() == made
    assert [note["id"] for note in _state(client)] == [2**31, large, large + 1]
    assert len(_files(client.get("/export").content)) == 3


def test_taken_ids_are_named_and_nothing_is_written(client: TestClient) -> None:
    for _ in range(3):
        client.post("/notes/", json=note_in())
    client.delete("/notes/2/")
    client.delete("/notes/3/")
    client.delete("/trash/3/")
    before = _state(client)
    files = {f"n{id}": f"---\nid: {id}\n---\n# Note {id}" for id in (9, 1, 2, 3)}
    answer = _import(client, ("a.zip", _zip(**files)), query="?keep_ids=true")
    assert (answer.status_code, answer.json()["ids"]) == (409, [1, 2, 3])
    assert _state(client) == before


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"a": "# No id"}, "a.md: id"),
        ({"a": "---\nid: 4\n---\n# One", "b": "---\nid: 4\n---\n# Two"}, "b.md: id: another file has 4"),
        ({"a": "---\nid: 0\n---\n# Zero"}, "a.md: id"),
        ({"a": f"---\nid: {2**52}\n---\n# Big"}, "a.md: id"),
        ({"a": f"---\nid: {2**53}\n---\n# Big"}, "a.md: id"),
    ],
)
def test_ids_that_cannot_be_kept(client: TestClient, files: dict[str, str], told: str) -> None:
    answer = _import(client, ("a.zip", _zip(**files)), query="?keep_ids=true")
    assert answer.status_code == 422
    assert told in answer.json()["detail"]
    assert _state(client) == []


BAD: dict[str, list[tuple[str, bytes]]] = {
    "no Markdown": [("a.txt", b"text")],
    "no name": [("", b"")],
    "not UTF-8": [("a.md", b"\xff\xfe\x00")],
    "NUL": [("a.md", b"a\0b")],
    "too large": [("a.md", b"x" * (2**20 + 2**16 + 1))],
    "text too large": [("a.md", b"x" * (2**20 + 1))],
    "short title": [("a.md", b"---\nid: 1\ntitle: ab\n---\n")],
    "bad tags": [("a.md", b"---\nid: 1\ntags: [[a]]\n---\n")],
    "broken zip": [("a.zip", b"PK\x03\x04" + b"\0" * 100)],
    "empty zip": [("a.zip", b"PK\x05\x06" + b"\0" * 18)],
    "leads out": [("a.zip", _zip(**{"..__x": "# Hello"}))],
    "one of many": [("a.md", b"# Good"), ("b.zip", _zip(c="# Good", d=b"\xff")), ("e.md", b"# Good")],
}


@pytest.mark.parametrize("files", BAD.values(), ids=BAD)
def test_refused_import_changes_nothing(client: TestClient, files: list[tuple[str, bytes]]) -> None:
    answer = _import(client, *files)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"]
    assert _state(client) == []


def test_refusal_names_the_file_and_the_field(client: TestClient) -> None:
    answer = _import(client, ("a.zip", _zip(folder__bad="---\nid: 1\ntitle: ab\n---\n")))
    assert answer.json()["detail"].startswith("folder/bad.md: title: String should have at least 3 characters")


@pytest.mark.parametrize("body", [b"", b"{}", b"--x--"])
def test_what_is_no_form_is_refused(client: TestClient, body: bytes) -> None:
    for kind in ("application/json", "multipart/form-data", "multipart/form-data; boundary=x"):
        answer = client.post("/import", content=body, headers={"Content-Type": kind})
        assert answer.status_code in (400, 422), (kind, body)
        assert answer.json()["detail"]


def test_import_has_a_limit_of_its_own(settings: Settings) -> None:
    small = settings.model_copy(update={"max_body": 1024, "max_import": 4096})
    with TestClient(create_app(small)) as client:
        assert _import(client, ("a.md", b"# Note\n" + b"x" * 2000)).status_code == 200
        for path in ("/import", "/import/"):
            refused = client.post(path, files={"files": ("a.md", b"x" * 5000)})
            assert (refused.status_code, refused.json()["detail"]) == (413, "The body must be at most 4096 bytes")


def test_what_is_no_markdown_is_skipped_and_named(client: TestClient) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in ("a.md", "image.png", "folder/", "__MACOSX/a.md", "folder/B.MARKDOWN"):
            archive.writestr(name, b"# Title")
    answer = _import(client, ("a.zip", packed.getvalue())).json()
    assert (answer["imported"], answer["skipped"]) == (2, ["image.png"])


def test_progress_is_told(client: TestClient) -> None:
    files = {f"n{number:02}": f"# Note {number}" for number in range(40)}
    answer = _import(client, ("a.zip", _zip(**files)), **NDJSON)
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines[:-1] == [{"imported": done, "of": 40} for done in (16, 32, 40)]
    assert lines[-1] == {"imported": 40, "ids": list(range(1, 41)), "skipped": []}
    assert [note["title"] for note in _state(client)] == [f"Note {number}" for number in range(40)]


def test_refusal_has_its_status_when_progress_is_wanted(client: TestClient) -> None:
    client.post("/notes/", json=note_in())
    taken = ("a.md", b"---\nid: 1\n---\n# Note")
    assert _import(client, taken, query="?keep_ids=true", **NDJSON).status_code == 409
    assert _import(client, ("a.md", b"\xff"), **NDJSON).status_code == 422


@pytest.mark.parametrize("query", ["", "?keep_ids=true"])
def test_repeat_makes_only_what_is_missing(client: TestClient, settings: Settings, query: str) -> None:
    file = ("a.zip", _zip(**{f"n{id}": f"---\nid: {id}\n---\n# Note {id}" for id in range(11, 16)}))
    first = _import(client, file, query=query, Idempotency_Key="key").json()
    with MongoClient[Json](settings.mongo_url) as mongo:  # as if the server had died half way
        mongo[settings.database].notes.delete_many({"_id": {"$in": first["ids"][3:]}})
    second = _import(client, file, query=query, Idempotency_Key="key").json()
    assert second["imported"] == 5
    assert second["ids"][:3] == first["ids"][:3]
    assert [note["title"] for note in _state(client)] == [f"Note {id}" for id in range(11, 16)]
    other = _import(client, ("b.md", b"---\nid: 11\n---\n# Other"), query=query, Idempotency_Key="key")
    assert (other.status_code, other.json()["detail"]) == (422, "This Idempotency-Key was used for another request")


async def test_export_holds_little_whatever_the_number_of_notes(
    serve: Callable[..., ServerProcess], settings: Settings
) -> None:
    server = serve()
    with MongoClient[Json](settings.mongo_url) as mongo:
        notes = mongo[settings.database].notes
        httpx.post(f"{server.url}/notes/", json=note_in(content="words " * 10_000)).raise_for_status()
        note = notes.find_one() or {}
        peaks = []
        for first, last, times in ((2, 300, 8), (300, 2000, 2)):  # each thread keeps some memory once it had it
            notes.insert_many([{**note, "_id": id} for id in range(first, last)])
            peaks.append(max(_peak(server) for _ in range(times)))
    assert peaks[1] - peaks[0] < 48 * 2**20  # of 102 MB


def _peak(server: ServerProcess) -> int:
    process = psutil.Process(server.pid)
    peak: int = process.memory_info().rss
    with httpx.stream("GET", f"{server.url}/export", timeout=60) as answer:
        for _ in answer.iter_bytes(256 * 1024):
            peak = max(peak, process.memory_info().rss)
    return peak


def test_command_line_there_and_back(server: ServerProcess, tmp_path: Path) -> None:
    run = CliRunner()
    at = ["--url", server.url]
    vault = tmp_path / "vault"
    (vault / "folder").mkdir(parents=True)
    (vault / ".hidden").mkdir()
    (vault / "one.md").write_text("# One note\ntext")
    (vault / "folder" / "two.md").write_text("---\naliases: [x]\n---\n# Two notes")
    (vault / ".hidden" / "three.md").write_text("# Hidden")
    (vault / "image.png").write_bytes(b"\x89PNG")
    made = run.invoke(app, ["import", str(vault), *at])
    assert (made.exit_code, made.stdout) == (0, "2 notes imported\n"), made.output

    packed, folder = tmp_path / "out" / "all.zip", tmp_path / "files"
    for target in (packed, folder):
        saved = run.invoke(app, ["export", str(target), *at])
        assert (saved.exit_code, saved.stdout) == (0, f"2 notes in {target}\n"), saved.output
    assert _files(packed.read_bytes()) == {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    assert [path.name for path in sorted(folder.iterdir())] == ["000001-two-notes.md", "000002-one-note.md"]

    again = run.invoke(app, ["import", str(packed), str(vault / "one.md"), *at])
    assert (again.exit_code, again.stdout) == (0, "3 notes imported\n"), again.output


def test_command_line_keeps_what_is_there(server: ServerProcess, tmp_path: Path) -> None:
    run = CliRunner()
    at = ["--url", server.url]
    kept = tmp_path / "kept.zip"
    kept.write_bytes(b"precious")
    refused = run.invoke(app, ["export", str(kept), *at])
    assert (refused.exit_code, kept.read_bytes()) == (1, b"precious")
    assert "--overwrite" in refused.stderr
    assert run.invoke(app, ["export", str(kept), "--overwrite", *at]).exit_code == 0
    assert _files(kept.read_bytes()) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["kept.zip"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["import", "missing.zip"], "no such file"),
        (["import", "."], "no Markdown file"),
        (["import", "notes.txt"], "neither a Markdown file"),
        (["import", "bad.md"], "title: String should have at least 3 characters"),
        (["import", "bad.md", "--url", "http://127.0.0.1:1"], "refused"),
        (["export", "bad.md"], "no folder, and no .zip"),
        (["export", "x.zip", "--url", "http://127.0.0.1:1"], "refused"),
    ],
)
def test_command_line_says_what_is_wrong(
    shared_servers: list[ServerProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments[1] != ".":
        (tmp_path / "notes.txt").write_text("text")
        (tmp_path / "bad.md").write_text("---\nid: 1\ntitle: ab\n---\n")
    refused = CliRunner().invoke(app, arguments, env={"REALTIME_URL": shared_servers[0].url})
    assert refused.exit_code == 1
    assert told in refused.stderr.replace("\n", " ")
    assert "Traceback" not in refused.output
