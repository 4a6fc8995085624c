"""Import and export of notes as files with the menu."""

from __future__ import annotations

import zipfile
from pathlib import Path

from playwright.async_api import FilePayload, Page, expect

from tests.browser.axe import AXE, serious
from tests.browser.notes import create_notes, read_note
from tests.browser.page import Open, editor, title
from tests.support.files import zipped
from tests.support.harness import ServerProcess, note_in

PACKED = "---\ntitle: Packed\ndescription: In a zip\ntags: [one, two]\n---\npears\n"


async def test_imported_files_become_notes(opened: Open, server: ServerProcess) -> None:
    page = await opened()
    await _import_files(
        page,
        {"name": "plain.md", "mimeType": "text/markdown", "buffer": b"# Plain\n\napples\n"},
        {"name": "notes.zip", "mimeType": "application/zip", "buffer": zipped({"folder/packed.md": PACKED})},
    )
    await expect(page.get_by_text("2 notes imported")).to_be_visible()
    await expect(page.locator(".row b")).to_have_text(["Packed", "Plain"])
    await page.get_by_role("link", name="Packed").click()
    await expect(title(page)).to_have_value("Packed")
    await expect(editor(page)).to_have_text("pears")
    note = await read_note(server, 2)
    assert (note["title"], note["description"], note["tags"]) == ("Packed", "In a zip", ["one", "two"])


async def test_invalid_archive_is_refused_with_a_reason(opened: Open, server: ServerProcess) -> None:
    page = await opened()
    await _import_files(page, {"name": "broken.zip", "mimeType": "application/zip", "buffer": b"no zip at all"})
    dialog = page.get_by_role("dialog", name="Nothing was imported")
    await expect(dialog).to_contain_text("broken.zip: the archive cannot be read")
    await dialog.get_by_role("button", name="Close").click()
    await expect(dialog).to_be_hidden()
    await expect(page.get_by_text("No notes yet")).to_be_visible()


async def test_import_lists_all_skipped_and_changed_files(opened: Open, server: ServerProcess) -> None:
    page = await opened()
    packed = zipped(
        {
            "folder/packed.md": PACKED,
            "latin.md": "# Größe\n\nGrüße\n".encode("cp1252"),
            ".trash/old.md": "# Old",
            **{f"{number}.png": b"\x89PNG" for number in range(600)},
        }
    )
    await page.context.add_init_script(path=AXE)
    await page.reload()
    await _import_files(page, {"name": "notes.zip", "mimeType": "application/zip", "buffer": packed})
    dialog = page.get_by_role("dialog", name="2 notes imported")
    skipped, changed = dialog.get_by_label("Files skipped"), dialog.get_by_label("Files changed")
    await expect(dialog.get_by_text("601 files skipped")).to_be_visible()
    await expect(skipped.locator("li").first).to_have_text(".trash/old.md is in the hidden folder .trash")
    await expect(skipped.locator("li")).to_have_count(500)
    await dialog.get_by_role("button", name="Show more of them").click()
    await expect(skipped.locator("li")).to_have_count(601)
    await expect(skipped.locator("li").last).to_have_text("599.png is not a Markdown file (.md)")
    await expect(changed.locator("li")).to_have_text(["latin.md encoding: is not UTF-8 and was read as Windows-1252"])
    await expect(page.locator(".row b")).to_have_text(["Größe", "Packed"])
    assert await serious(page) == []
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await _import_files(page, {"name": "plain.md", "mimeType": "text/markdown", "buffer": b"# Plain\n"})
    await expect(page.get_by_text("1 note imported")).to_be_visible()
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_exported_archive_can_be_imported_again(opened: Open, server: ServerProcess, tmp_path: Path) -> None:
    await create_notes(
        server, note_in("Apples", content="red\n", tags=["fruit"]), note_in("Pears", content="green – grün\n")
    )
    page = await opened()
    await page.get_by_label("More").click()
    async with page.expect_download() as started:
        await page.get_by_role("link", name="Export all notes").click()
    download = await started.value
    assert download.suggested_filename.endswith(".zip")
    path = tmp_path / download.suggested_filename
    await download.save_as(path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        texts = sorted(archive.read(name).decode() for name in archive.namelist())
    assert len(texts) == 2
    for text, words in zip(texts, (("Apples", "fruit", "red\n"), ("Pears", "green – grün\n")), strict=True):
        assert all(word in text for word in words)
    await _import_files(page, {"name": "notes.zip", "mimeType": "application/zip", "buffer": path.read_bytes()})
    await expect(page.locator(".row b")).to_have_count(4)
    assert {(note["title"], note["content"]) for note in [await read_note(server, id) for id in (3, 4)]} == {
        ("Apples", "red\n"),
        ("Pears", "green – grün\n"),
    }


async def _import_files(page: Page, *files: FilePayload) -> None:
    await page.get_by_label("More").click()
    async with page.expect_file_chooser() as chooser:
        await page.get_by_role("button", name="Import…").click()
    await (await chooser.value).set_files(list(files))
