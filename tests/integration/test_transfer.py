"""Export and import, over REST and from the command line: exports can be imported, invalid files cannot."""

from __future__ import annotations

import io
import json
import re
import secrets
import socket
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from pymongo import MongoClient
from pymongo.database import Database
from starlette.testclient import TestClient
from typer.testing import CliRunner, Result

from realtime import create_app
from realtime.cli.main import app
from realtime.embedded.pair import EmbeddedServers
from realtime.settings import Settings
from realtime.transfer import bundle
from tests.support.files import UNUSUAL_TEXTS, zipped
from tests.support.harness import UNIT, Json, ServerProcess, eventually, note_in, rest_client
from tests.support.http import Serve

NDJSON = {"Accept": "application/x-ndjson"}
NOTES = [
    note_in("Groceries", "for the weekend", content="# To buy\nmilk\n", tags=["home"]),
    note_in("---", "null", content="---\ntitle: no front matter of ours\n---\r\n\r\nends without a line feed"),
    note_in("yes", "2026-01-01", content="\ufeff\u2028 🦜 \x01", tags=["no", "1.5", "- x", "#", "{a}"]),
    note_in("'quoted\" \\ : #", "tab\tand\nline", content="x" * 100_000),
]


@pytest.fixture
def other(embedded: EmbeddedServers) -> Iterator[TestClient]:
    """Run another server with an empty database."""
    settings = Settings(mongo_url=embedded.mongo_url, redis_url=embedded.redis_url, database="test-other")
    with TestClient(create_app(settings)) as client:
        yield client
    with MongoClient[Json](embedded.mongo_url) as mongo:
        mongo.drop_database("test-other")


def _import(client: TestClient, *files: tuple[str, bytes], query: str = "", **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(f"/import{query}", files=[("files", file) for file in files], headers=named)


def _files(export: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(export)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def _without_id(file: bytes) -> bytes:
    return re.sub(rb"\nid: [0-9]+\n", b"\n", file, count=1)


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
        "---\nrealtime: 1\nid: 1\ntitle: Groceries\ndescription: for the weekend\ntags:\n- home\n"
        f"created: '{client.get('/notes/1/').json()['created_date']}'\n"
        f"updated: '{client.get('/notes/1/').json()['updated_date']}'\n---\n# To buy\nmilk\n"
    )


def test_repeated_import_returns_the_same_ids_after_deletions(client: TestClient) -> None:
    files = [(f"{name}.md", f"# Note {name}".encode()) for name in ("one", "two", "six")]
    first = _import(client, *files, Idempotency_Key="key").json()
    client.delete("/notes/1/")
    client.delete("/notes/2/")
    client.delete("/trash/2/")
    assert _import(client, *files, Idempotency_Key="key").json() == first
    assert [note["id"] for note in _state(client)] == [3]


@pytest.mark.parametrize("query", ["?keepids=true", "?keep_ids=true&keep_ids=false"])
def test_unknown_or_repeated_import_option_is_refused(client: TestClient, query: str) -> None:
    answer = _import(client, ("a.md", b"# Note"), query=query)
    assert (answer.status_code, answer.json()["detail"][0]["loc"][0]) == (422, "query")
    assert _state(client) == []


def test_export_without_notes_is_an_empty_archive(client: TestClient) -> None:
    assert _files(client.get("/export").content) == {}


def test_export_of_imported_notes_is_the_same(client: TestClient, other: TestClient) -> None:
    for note in NOTES:
        client.post("/notes/", json=note)
    client.delete("/notes/1/")
    client.post("/trash/1/restore")
    first = client.get("/export").content
    answer = _import(other, ("notes.zip", first))
    assert (answer.status_code, answer.json()) == (
        200,
        {"imported": 4, "ids": [1, 2, 3, 4], "skipped": [], "changed": []},
    )
    assert other.get("/export").content == first
    assert [{name: note[name] for name in ("title", "description", "content", "tags")} for note in _state(other)] == [
        {"content": "", "tags": [], **note} for note in NOTES
    ]
    again = _import(other, ("notes.zip", first)).json()
    assert (again["ids"], again["changed"]) == ([5, 6, 7, 8], [])
    files = list(_files(other.get("/export").content).values())
    assert [_without_id(file) for file in files[4:]] == [_without_id(file) for file in files[:4]]


def test_export_after_import_with_kept_ids_is_identical(client: TestClient, other: TestClient) -> None:
    for number, text in enumerate([*UNUSUAL_TEXTS, "x" * 50]):
        client.post("/notes/", json=note_in(text, text, content=f"{text}\n{text}", tags=[text, f"{number}"]))
        if number % 7 == 0:
            client.delete(f"/notes/{number + 1}/")
    foreign = b"---\r\nid: 5\r\ntitle: Plan: two\r\ncreated: 2001-02-03\r\naliases: [a]\r\n---\r\nwords"
    _import(client, ("old.md", foreign), ("wide.md", "\ufeff# Größe\n".encode("utf-16-le")))
    first = client.get("/export").content
    answer = _import(other, ("notes.zip", first), query="?keep_ids=true").json()
    assert (answer["imported"], answer["skipped"], answer["changed"]) == (len(_files(first)), [], [])
    assert other.get("/export").content == first
    without = _import(other, ("notes.zip", first)).json()
    second = list(_files(other.get("/export").content).values())[answer["imported"] :]
    assert without["changed"] == []
    assert [_without_id(file) for file in second] == [_without_id(file) for file in _files(first).values()]


def test_report_of_many_skipped_files_uses_little_memory(client: TestClient) -> None:
    packed = zipped({"a.md": "# Note", **{f"{'folder/' * 20}{number}.png": b"" for number in range(20_000)}})
    tracemalloc.start()
    try:
        found = bundle.check([("a.zip", io.BytesIO(packed))], keep_ids=False, keep_dates=True)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (found.count, len(found.skipped)) == (1, 20_000)
    assert held < 20_000 * 600
    assert peak < 20_000 * 2000
    answer = _import(client, ("a.zip", packed)).json()
    assert (answer["imported"], len(answer["skipped"])) == (1, 20_000)
    assert answer["skipped"][-1]["file"].endswith("/19999.png")


def test_long_file_names_are_shortened_in_the_report(client: TestClient) -> None:
    name = f"{'folder/' * 100}a.md"
    answer = _import(client, ("a.zip", zipped({"good.md": "# Good", name: "\x89PNG\0".encode("latin-1")}))).json()
    (remark,) = answer["skipped"]
    assert len(remark["file"]) == 200
    assert remark["file"].endswith("folder/a.md")


def test_imported_note_has_a_revision_and_an_event(client: TestClient) -> None:
    with client.websocket_connect("/ws") as socket:
        assert socket.receive_json()["type"] == "ready"
        _import(client, ("one.md", b"# A title\ntext"))
        event = socket.receive_json()
    assert (event["type"], event["id"], event["note"]["title"]) == ("note.created", 1, "A title")
    (revision,) = client.get("/notes/1/history/").json()
    assert (revision["version"], revision["action"]) == (1, "import")
    assert client.get("/notes/1/history/1/").json()["content"] == "# A title\ntext"


def test_import_keeps_ids_only_on_request(client: TestClient) -> None:
    client.post("/notes/", json=note_in())
    export = zipped({"a.md": "---\nid: 7\n---\n# Seven", "b.md": "---\nid: 5\n---\n# Five!"})
    assert _import(client, ("a.zip", export)).json()["ids"] == [2, 3]
    assert _import(client, ("a.zip", export), query="?keep_ids=true").json()["ids"] == [7, 5]
    assert client.get("/notes/5/").json()["title"] == "Five!"
    assert client.post("/notes/", json=note_in()).json()["id"] == 8


def test_create_after_an_import_with_a_large_id_succeeds(client: TestClient) -> None:
    large = 2**52 - 1
    for id in (2**31, large):
        file = ("a.md", f"---\nid: {id}\n---\n# Note".encode())
        assert _import(client, file, query="?keep_ids=true").json()["ids"] == [id]
    made = client.post("/notes/", json=note_in()).json()
    assert made["id"] == large + 1
    assert client.get(f"/notes/{made['id']}/").json() == made
    assert [note["id"] for note in _state(client)] == [2**31, large, large + 1]
    assert len(_files(client.get("/export").content)) == 3


def test_import_with_used_ids_returns_409_and_writes_nothing(client: TestClient) -> None:
    for _ in range(3):
        client.post("/notes/", json=note_in())
    client.delete("/notes/2/")
    client.delete("/notes/3/")
    client.delete("/trash/3/")
    before = _state(client)
    files = {f"n{id}.md": f"---\nid: {id}\n---\n# Note {id}" for id in (9, 1, 2, 3)}
    answer = _import(client, ("a.zip", zipped(files)), query="?keep_ids=true")
    assert (answer.status_code, answer.json()["ids"]) == (409, [1, 2, 3])
    assert _state(client) == before


@pytest.mark.parametrize(
    ("front_matter", "reason"),
    [
        ("", "id: missing or invalid; a new id was assigned"),
        ("id: 4", "id: another file has the same id 4; a new id was assigned"),
        ("id: 0", "id: missing or invalid; a new id was assigned"),
        ("id: my-slug", "id: missing or invalid; a new id was assigned"),
        (f"id: {2**52}", f"id: is larger than {2**52 - 1}; a new id was assigned"),
        (f"id: {2**53}", f"id: is larger than {2**52 - 1}; a new id was assigned"),
    ],
)
def test_imported_file_without_a_valid_id_gets_the_next_id(client: TestClient, front_matter: str, reason: str) -> None:
    files = {
        "a.md": "---\nid: 4\n---\n# First",
        "b.md": f"---\n{front_matter}\n---\n# Second",
        "c.md": "---\nid: 9\n---\n# Third",
    }
    file = ("a.zip", zipped(files))
    answer = _import(client, file, query="?keep_ids=true", Idempotency_Key="key")
    assert answer.json() == {
        "imported": 3,
        "ids": [4, 10, 9],
        "skipped": [],
        "changed": [{"file": "b.md", "reason": reason}],
    }
    assert _import(client, file, query="?keep_ids=true", Idempotency_Key="key").json() == answer.json()
    assert [note["title"] for note in _state(client)] == ["First", "Third", "Second"]


INVALID_FILES: dict[str, list[tuple[str, bytes]]] = {
    "not Markdown": [("a.txt", b"text")],
    "not text": [("a.md", b"\x89PNG\r\n\x1a\n\0\0")],
    "too large": [("a.md", b"x" * (2**22 + 2**18 + 1))],
    "text too large": [("a.md", b"x" * (2**20 + 1))],
    "broken zip": [("a.zip", b"PK\x03\x04" + b"\0" * 100)],
    "not a zip": [("a.zip", b"no zip at all")],
    "empty zip": [("a.zip", b"PK\x05\x06" + b"\0" * 18)],
    "outside path": [("a.zip", zipped({"../x.md": "# Hello"}))],
    "many files": [(f"{number}.txt", b"text") for number in range(20)],
}


@pytest.mark.parametrize("files", INVALID_FILES.values(), ids=INVALID_FILES)
def test_import_of_invalid_files_is_refused_and_changes_nothing(
    client: TestClient, files: list[tuple[str, bytes]]
) -> None:
    answer = _import(client, *files)
    assert answer.status_code == 422, answer.text
    detail = answer.json()["detail"]
    name = "../x.md" if b"../x.md" in files[0][1] else files[0][0]
    assert detail.startswith(f"files: none of them can be imported. {name}: ")
    assert detail.endswith("; and 15 more") is (len(files) == 20)
    assert _state(client) == []


@pytest.mark.parametrize("files", INVALID_FILES.values(), ids=INVALID_FILES)
def test_invalid_files_are_skipped_and_others_are_imported(client: TestClient, files: list[tuple[str, bytes]]) -> None:
    answer = _import(client, ("first.md", b"# First"), *files, ("last.zip", zipped({"last.md": "# Last"}))).json()
    assert (answer["imported"], answer["ids"], answer["changed"]) == (2, [1, 2], [])
    assert len(answer["skipped"]) == len(files)
    assert all(remark["file"] and remark["reason"] for remark in answer["skipped"])
    assert [note["title"] for note in _state(client)] == ["First", "Last"]


def test_file_without_a_name_is_refused(client: TestClient) -> None:
    assert _import(client, ("", b"text")).status_code == 422
    assert _state(client) == []


@pytest.mark.parametrize("body", [b"", b"{}", b"--x--"])
def test_body_that_is_not_a_form_is_refused(client: TestClient, body: bytes) -> None:
    for kind in ("application/json", "multipart/form-data", "multipart/form-data; boundary=x"):
        answer = client.post("/import", content=body, headers={"Content-Type": kind})
        assert answer.status_code in (400, 422), (kind, body)
        assert answer.json()["detail"]


def test_import_has_a_separate_body_limit(settings: Settings) -> None:
    small = settings.model_copy(update={"max_body": 1024, "max_import": 4096})
    with TestClient(create_app(small)) as client:
        assert _import(client, ("a.md", b"# Note\n" + b"x" * 2000)).status_code == 200
        for path in ("/import", "/import/"):
            refused = client.post(path, files={"files": ("a.md", b"x" * 5000)})
            assert (refused.status_code, refused.json()["detail"]) == (413, "The body must be at most 4096 bytes")


def test_import_report_lists_every_skipped_or_changed_file(client: TestClient) -> None:
    named = ("a.md", "image.png", "folder/", "__MACOSX/._a.md", "folder/B.MARKDOWN", "files/backup.zip")
    files = {
        **dict.fromkeys(named, b"# Title"),
        ".trash/old.md": b"# Thrown away",
        "Meeting 10:30.md": b"no heading",
        "old.md": "# Größe".encode("cp1252"),
        "wide.md": "\ufeff# Größe".encode("utf-16-le"),
        "long.md": f"---\ntitle: {'long ' * 20}\n---\ntext".encode(),
        **{f"{number}.png": b"\x89PNG" for number in range(150)},
    }
    answer = _import(client, ("a.zip", zipped(files))).json()
    assert answer["imported"] == 6
    assert {remark["file"]: remark["reason"] for remark in answer["skipped"]} == {
        "image.png": "is not a Markdown file (.md)",
        "__MACOSX/._a.md": "is macOS metadata, not a note",
        "files/backup.zip": "is not a Markdown file (.md)",
        ".trash/old.md": "is in the hidden folder .trash",
        **{f"{number}.png": "is not a Markdown file (.md)" for number in range(150)},
    }
    assert answer["changed"] == [
        {"file": "old.md", "reason": "encoding: is not UTF-8 and was read as Windows-1252"},
        {"file": "wide.md", "reason": "encoding: was read as UTF-16 LE"},
        {"file": "long.md", "reason": "title: was cut to 50 characters"},
    ]
    assert [note["title"] for note in _state(client)][2:5] == ["Meeting 10:30", "Größe", "Größe"]


@pytest.mark.parametrize("name", ["._a.md", ".a.md", ".trash/a.md", "__MACOSX/a.md", "a.png"])
def test_file_is_skipped_alone_or_in_an_archive(client: TestClient, name: str) -> None:
    for file in ((name, b"# Note"), ("a.zip", zipped({name: "# Note"}))):
        skipped = _import(client, file, ("good.md", b"# Good")).json()["skipped"]
        assert [remark["file"] for remark in skipped] == [name]


def test_text_that_begins_like_an_archive_is_imported(client: TestClient) -> None:
    assert _import(client, ("a.md", b"PK is short for a name")).json()["imported"] == 1


def test_import_preserves_dates(client: TestClient) -> None:
    text = "---\ntitle: Old note\ncreated: 2021-08-21\nupdated: 2022-01-02 03:04:05.678 +0100\n---\nwords"
    _import(client, ("a.md", text.encode()), ("b.md", b"---\nupdated: 2020-01-01\n---\n# Second"))
    first, second = _state(client)
    assert (first["created_date"], first["updated_date"]) == ("2021-08-21T00:00:00.000Z", "2022-01-02T02:04:05.678Z")
    assert second["created_date"] == second["updated_date"] == "2020-01-01T00:00:00.000Z"
    client.patch("/notes/1/", json={"title": "New title"})
    changed = client.get("/notes/1/").json()
    assert changed["created_date"] == first["created_date"]
    assert changed["updated_date"] > "2026"
    assert [note["id"] for note in client.get("/notes/?sort=created").json()] == [2, 1]


def test_import_above_its_limits_writes_nothing(client: TestClient) -> None:
    large = zipped({f"{number}.md": b" " * 2**22 for number in range(130)}, zipfile.ZIP_DEFLATED)
    many = zipped({f"{number}.png": b"" for number in range(50_001)})
    for archives, limit in (
        ([large], "more than 536870912 bytes after unpacking"),
        ([many, many], "more than 100000 files in one import"),
    ):
        answer = _import(client, ("good.md", b"# Good"), *(("a.zip", archive) for archive in archives))
        assert (answer.status_code, answer.json()["detail"]) == (422, f"files: {limit}. Split the import")
        assert _state(client) == []


def test_import_reports_its_progress_as_ndjson(client: TestClient) -> None:
    files = {f"n{number:02}.md": f"# Note {number}" for number in range(40)}
    answer = _import(client, ("a.zip", zipped(files)), **NDJSON)
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines[:-1] == [{"imported": done, "of": 40} for done in (16, 32, 40)]
    assert lines[-1] == {"imported": 40, "ids": list(range(1, 41)), "skipped": [], "changed": []}
    assert [note["title"] for note in _state(client)] == [f"Note {number}" for number in range(40)]


def test_refused_import_with_progress_returns_an_error_status(client: TestClient) -> None:
    client.post("/notes/", json=note_in())
    taken = ("a.md", b"---\nid: 1\n---\n# Note")
    assert _import(client, taken, query="?keep_ids=true", **NDJSON).status_code == 409
    assert _import(client, ("a.txt", b"text"), **NDJSON).status_code == 422


@pytest.mark.parametrize("query", ["", "?keep_ids=true"])
def test_repeated_import_creates_only_missing_notes(client: TestClient, database: Database[Json], query: str) -> None:
    file = ("a.zip", zipped({f"n{id}.md": f"---\nid: {id}\n---\n# Note {id}" for id in range(11, 16)}))
    first = _import(client, file, query=query, Idempotency_Key="key").json()
    database.notes.delete_many({"_id": {"$in": first["ids"][3:]}})  # as if the server had been killed halfway
    second = _import(client, file, query=query, Idempotency_Key="key").json()
    assert second["imported"] == 5
    assert second["ids"][:3] == first["ids"][:3]
    assert [note["title"] for note in _state(client)] == [f"Note {id}" for id in range(11, 16)]
    other = _import(client, ("b.md", b"---\nid: 11\n---\n# Other"), query=query, Idempotency_Key="key")
    assert (other.status_code, other.json()["detail"]) == (422, "This Idempotency-Key was used for another request")


async def test_export_memory_does_not_grow_with_the_number_of_notes(
    server: ServerProcess, database: Database[Json]
) -> None:
    httpx.post(f"{server.url}/notes/", json=note_in(content="words " * 10_000)).raise_for_status()
    note = database.notes.find_one() or {}
    peaks = []
    for first, last, times in ((2, 300, 8), (300, 2000, 2)):  # each thread keeps some of the memory it used
        database.notes.insert_many([{**note, "_id": id} for id in range(first, last)])
        peaks.append(max(_peak(server) for _ in range(times)))
    assert peaks[1] - peaks[0] < 48 * 2**20  # of 102 MB


def _peak(server: ServerProcess) -> int:
    process = psutil.Process(server.pid)
    peak: int = process.memory_info().rss
    with httpx.stream("GET", f"{server.url}/export", timeout=60) as answer:
        for _ in answer.iter_bytes(256 * 1024):
            peak = max(peak, process.memory_info().rss)
    return peak


def _run(server: ServerProcess, *arguments: str | Path) -> Result:
    """Run a command with a server."""
    return CliRunner().invoke(app, [*map(str, arguments), "--url", server.url])


def test_import_and_export_commands_round_trip(server: ServerProcess, tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    (vault / "folder").mkdir(parents=True)
    (vault / ".hidden").mkdir()
    (vault / "one.md").write_text("# One note\ntext")
    (vault / "folder" / "two.md").write_text("---\naliases: [x]\n---\n# Two notes")
    (vault / ".hidden" / "three.md").write_text("# Hidden")
    (vault / "image.png").write_bytes(b"\x89PNG")
    made = _run(server, "import", vault)
    assert (made.exit_code, made.stdout) == (0, "2 notes imported\n"), made.output
    assert made.stderr.splitlines() == [
        "skipped  .hidden/: is a hidden folder; its files were not read",
        "skipped  image.png: is not a Markdown file (.md)",
        "2 files skipped",
    ]

    packed, folder = tmp_path / "out" / "all.zip", tmp_path / "files"
    for target in (packed, folder):
        saved = _run(server, "export", target)
        assert (saved.exit_code, saved.stdout) == (0, f"2 notes exported to {target}\n"), saved.output
    assert _files(packed.read_bytes()) == {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    assert [path.name for path in sorted(folder.iterdir())] == ["000001-two-notes.md", "000002-one-note.md"]

    again = _run(server, "import", packed, vault / "one.md")
    assert (again.exit_code, again.stdout) == (0, "3 notes imported\n"), again.output


def test_export_command_overwrites_files_only_on_request(server: ServerProcess, tmp_path: Path) -> None:
    kept = tmp_path / "kept.zip"
    kept.write_bytes(b"precious")
    refused = _run(server, "export", kept)
    assert (refused.exit_code, kept.read_bytes()) == (1, b"precious")
    assert "--overwrite" in refused.stderr
    assert _run(server, "export", kept, "--overwrite").exit_code == 0
    assert _files(kept.read_bytes()) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["kept.zip"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "missing.zip"], "no such file"),
        (["import", "."], "no Markdown file"),
        (["import", "notes.txt"], "neither a Markdown file"),
        (["import", "bad.md"], "bad.md: is not a text file"),
        (["import", "bad.md", "--url", "http://127.0.0.1:1"], "refused"),
        (["export", "bad.md"], "neither a folder nor a .zip file"),
        (["export", "x.zip", "--url", "http://127.0.0.1:1"], "refused"),
    ],
)
def test_import_and_export_commands_report_errors(
    shared_servers: list[ServerProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments[1] != ".":
        (tmp_path / "notes.txt").write_text("text")
        (tmp_path / "bad.md").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    refused = CliRunner().invoke(app, arguments, env={"REALTIME_URL": shared_servers[0].url})
    assert refused.exit_code == 1
    assert message in refused.stderr.replace("\n", " ")
    assert "Traceback" not in refused.output


async def test_export_to_a_stalled_client_is_aborted(serve: Serve) -> None:
    server = serve(client_stall_seconds=1.0 * UNIT)
    async with rest_client(server.url) as rest:
        for _ in range(12):
            content = secrets.token_urlsafe(700_000)  # nothing to compress
            assert (await rest.post("/notes/", json=note_in(content=content))).status_code == 201
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", server.port))
        stuck.sendall(b"GET /export HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        port = stuck.getsockname()[1]

        def ports() -> set[int]:
            """Return the ports of the connected clients."""
            connections = psutil.Process(server.pid).net_connections("tcp4")
            return {one.raddr.port for one in connections if one.laddr.port == server.port and one.raddr}

        await eventually(lambda: port in ports())
        await eventually(lambda: port not in ports(), within=15)
