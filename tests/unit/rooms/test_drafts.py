"""Edits that are not stored yet, made on a copy of the text in the helper process."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import AsyncIterator

import pytest

from realtime.core.fair_queue import FairPool
from realtime.core.turns import Turns
from realtime.errors import DraftLost
from realtime.rooms.crdt import TextDocument
from realtime.rooms.drafts import MAX_COPIES, SMALL_EDIT_BYTES, Drafts
from realtime.rooms.scheduler import Scheduler
from tests.unit.conftest import changed_text, some_text

LENGTH = 2 * SMALL_EDIT_BYTES


@pytest.fixture
async def scheduler() -> AsyncIterator[Scheduler]:
    """Return a scheduler with a helper process."""
    pool = FairPool("test")
    yield Scheduler(Turns(), pool)
    await pool.aclose()


async def write(drafts: Drafts, document: TextDocument, text: str) -> None:
    """Turn the text of a document into another, and store the edit."""
    await drafts.check_copy()
    base = drafts.base(document)
    document.apply(await drafts.edit(base, text))
    drafts.mark_stored()


def typed(document: TextDocument, client: int, text: str) -> None:
    """Let another client insert a text at the start."""
    other = TextDocument([document.since()], client)
    document.apply(other.edit([(0, 0, text)]))


async def test_edits_of_a_growing_text_turn_it_into_each_new_text(scheduler: Scheduler) -> None:
    pick, document, drafts = random.Random(1), TextDocument(), Drafts(1, scheduler)
    for number in range(30):
        text = changed_text(pick, str(document)) if number % 10 else some_text(pick, number * LENGTH // 10)
        await write(drafts, document, text)
        assert str(TextDocument([document.since()])) == str(document) == text
        if number % 3 == 0:
            typed(document, 100 + number, "typed ä🦜")


async def test_text_typed_after_the_base_is_kept(scheduler: Scheduler) -> None:
    document, drafts = TextDocument(), Drafts(1, scheduler)
    await write(drafts, document, "x" * LENGTH)
    base = drafts.base(document)
    typed(document, 7, "typed ")
    document.apply(await drafts.edit(base, base.text + " written"))
    drafts.mark_stored()
    assert str(document) == f"typed {'x' * LENGTH} written"
    await write(drafts, document, str(document) + " again")
    assert str(document) == f"typed {'x' * LENGTH} written again"


async def test_edit_that_was_not_stored_is_not_in_the_next_one(scheduler: Scheduler) -> None:
    document, drafts = TextDocument(), Drafts(1, scheduler)
    await write(drafts, document, "x" * LENGTH)
    await drafts.edit(drafts.base(document), "not stored " + "x" * LENGTH)
    await write(drafts, document, "x" * LENGTH + " stored")
    assert str(document) == "x" * LENGTH + " stored"


async def test_edit_with_an_unknown_outcome_does_not_collide_with_the_next_one(scheduler: Scheduler) -> None:
    document, drafts = TextDocument(), Drafts(1, scheduler)
    await write(drafts, document, "x" * LENGTH)
    unknown = await drafts.edit(drafts.base(document), "x" * LENGTH + " unknown")
    drafts.rotate_client_id()
    await write(drafts, document, "next " + "x" * LENGTH)
    document.apply(unknown)
    assert str(document) == "next " + "x" * LENGTH + " unknown"


async def test_copy_that_is_lost_after_the_check_requires_a_new_base(scheduler: Scheduler) -> None:
    document, drafts = TextDocument(), Drafts(1, scheduler)
    await write(drafts, document, "x" * LENGTH)
    await drafts.check_copy()
    base = drafts.base(document)
    os.kill(await scheduler.run_in_process_for_note(1, os.getpid), signal.SIGKILL)
    with pytest.raises(DraftLost):
        await drafts.edit(base, "y")
    await write(drafts, document, "z" * LENGTH)
    assert str(document) == "z" * LENGTH


async def test_base_is_not_used_after_the_text_was_loaded_again(scheduler: Scheduler) -> None:
    document, drafts = TextDocument(), Drafts(1, scheduler)
    await write(drafts, document, "x" * LENGTH)
    base = drafts.base(document)
    drafts.rotate_client_id()
    with pytest.raises(DraftLost):
        await drafts.edit(base, "y")


async def test_copy_with_another_text_than_the_document_is_not_edited(scheduler: Scheduler) -> None:
    document, drafts = TextDocument(), Drafts(1, scheduler)
    await write(drafts, document, "x" * LENGTH)
    await drafts.edit(drafts.base(document), "x" * LENGTH + " skipped by the document")
    drafts.mark_stored()
    with pytest.raises(DraftLost):
        await drafts.edit(drafts.base(document), "x" * LENGTH + " next")
    await write(drafts, document, "x" * LENGTH + " next")
    assert str(document) == "x" * LENGTH + " next"


async def test_copy_that_is_lost_is_made_again(scheduler: Scheduler) -> None:
    documents = [TextDocument() for _ in range(MAX_COPIES + 2)]
    drafts = [Drafts(number, scheduler) for number in range(len(documents))]
    for word in ("first", "second", "third"):
        for document, draft in zip(documents, drafts, strict=True):
            await write(draft, document, word + "x" * LENGTH)
            assert str(document) == word + "x" * LENGTH
        os.kill(await scheduler.run_in_process_for_note(1, os.getpid), signal.SIGKILL)
