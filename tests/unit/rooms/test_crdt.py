"""Shared texts: all valid Yjs updates are accepted in any order, and nothing is lost or duplicated."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pycrdt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from realtime.errors import DocumentBroken, MalformedUpdate
from realtime.notes.diff import changes
from realtime.rooms import crdt, lib0
from realtime.rooms.crdt import EMPTY_STATE_VECTOR, EMPTY_UPDATE, TextDocument, compact, genesis
from realtime.rooms.yjs_update import PendingUpdates, decode_state_vector, scan_update, split_update
from tests.support.harness import UNIT
from tests.support.shared_text import PIECES, Author, authored

TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


number = lib0.number


def item(client: int, clock: int, text: str, left: tuple[int, int] | None = None, right: Any = None) -> bytes:
    """Return an update with one piece of text."""
    info = 4 | (0x80 if left else 0) | (0x40 if right else 0)
    place = b"".join(number(part) for one in (left, right) if one for part in one)
    head = bytes((1, 1)) + number(client) + number(clock) + bytes((info,))
    return head + (place or b"\1" + lib0.string("content")) + lib0.string(text) + b"\0"


def deletion(client: int, clock: int, length: int) -> bytes:
    """Return an update that deletes characters."""
    return b"\0\1" + number(client) + b"\1" + number(clock) + number(length)


SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_yjs_updates_in_any_order_make_the_same_text(seed: int) -> None:
    text, updates = authored(seed)
    for update in updates:
        scan_update(update)
    shuffled = random.Random(seed).sample(updates, len(updates))
    document = TextDocument(shuffled)
    assert str(document) == text
    assert not document.has_pending
    assert document.length == len(text.encode())
    assert str(TextDocument([compact(updates)])) == text
    assert str(TextDocument([pycrdt.merge_updates(*shuffled)])) == text


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.data())
def test_waiting_updates_survive_snapshots_until_dependencies_arrive(seed: int, data: st.DataObject) -> None:
    """Also updates with a gap, and over several snapshots."""
    text, updates = authored(seed, authors=2)
    late = data.draw(st.sets(st.integers(0, len(updates) - 1), min_size=1))
    early = [update for place, update in enumerate(updates) if place not in late]
    gap: bool = data.draw(st.booleans())
    first = [pycrdt.merge_updates(*early)] if early and gap else early
    document = TextDocument(first)
    for _ in range(2):
        document = TextDocument([document.since()])
    document = TextDocument([compact([document.since()])])
    for place in late:
        document.apply(updates[place])
    assert str(document) == text
    assert not document.has_pending


def test_update_with_a_gap_waits_for_the_missing_part() -> None:
    author = Author(7)
    for word in ("one", "two", "three"):
        before = author.doc.get_state()
        author.text += word
        author.updates.append(author.doc.get_update(before))
    document = TextDocument([pycrdt.merge_updates(author.updates[0], author.updates[2])])
    assert document.has_pending
    assert str(document) == "one"
    again = TextDocument([document.since()])
    assert again.has_pending
    again.apply(author.updates[1])
    assert str(again) == "onetwothree"
    assert not again.has_pending


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_since_returns_the_updates_missing_in_a_state(seed: int) -> None:
    text, updates = authored(seed)
    document = TextDocument(updates)
    for known in (0, len(updates) // 2, len(updates)):
        other = TextDocument(updates[:known])
        other.apply(document.since(other.state))
        assert str(other) == text
    assert document.since(document.state) == TextDocument(updates).since(document.state)
    assert TextDocument().since() == EMPTY_UPDATE
    assert TextDocument().state == EMPTY_STATE_VECTOR


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_scan_update_rejects_every_truncated_update(seed: int) -> None:
    _, updates = authored(seed, acts=12)
    for update in (*updates, pycrdt.merge_updates(*updates)):
        for end in range(len(update)):
            with pytest.raises(MalformedUpdate):
                scan_update(update[:end])
        with pytest.raises(MalformedUpdate):
            scan_update(update + b"\0")


def is_ambiguous(updates: Sequence[bytes]) -> bool:
    """Return whether Yrs makes another text of its own encoded update, as Yjs does for origins in the wrong order."""
    one: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc()
    other: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc()
    texts = [doc.get("content", type=pycrdt.Text) for doc in (one, other)]
    for update in updates:
        one.apply_update(update)
    other.apply_update(one.get_update())
    return str(texts[0]) != str(texts[1])


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.data())
def test_mutated_update_is_rejected_or_can_be_reloaded(seed: int, data: st.DataObject) -> None:
    """A rejected update changes nothing; an accepted update can be sent to others and loaded again."""
    _, updates = authored(seed % 16, acts=12)
    document = TextDocument(updates)
    junk = bytearray(data.draw(st.sampled_from([*updates, pycrdt.merge_updates(*updates)])))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(junk) - 1))
        junk[place] = data.draw(st.integers(0, 255))
    before = document.since()
    try:
        document.apply(bytes(junk))
    except MalformedUpdate:
        assert document.since() == before
    except DocumentBroken:
        return  # it is loaded again
    whole = document.since()
    scan_update(whole)
    again = TextDocument([whole])
    assert str(again) == str(document) or is_ambiguous([*updates, bytes(junk)])


@pytest.mark.parametrize(
    "updates",
    [
        [item(1, 0, "a"), item(1, 1, "b ", None, (1, 0)), item(1, 1, "\2b ", (1, 0), (0, 9))],
        [item(1, 0, "a"), item(1, 1, "xyz", (9, 0)), item(1, 1, "b ", None, (1, 0))],
        [item(1, 0, "a"), item(1, 1, "bc", None, (1, 0)), item(1, 1, "bc🦜x", (9, 0))],
        [item(1, 2, "xyz", (9, 0)), item(1, 1, "pqrs", (8, 0)), item(1, 0, "a"), item(8, 0, "b")],
        [item(1, 1, "🦜", (9, 0)), item(1, 0, "a"), item(1, 1, "b", None, (1, 0))],
    ],
)
def test_document_with_conflicting_waiting_updates_reloads_unchanged(updates: list[bytes]) -> None:
    """Updates of untrusted clients can use clocks that already exist."""
    document = TextDocument()
    for update in updates:
        with suppress(MalformedUpdate):
            document.apply(update)
        again = TextDocument([document.since()])
        assert (str(again), again.has_pending) == (str(document), document.has_pending)
    for later in (item(9, 0, "z"), item(0, 0, "0123456789")):
        document.apply(later)
        again.apply(later)
        assert str(again) == str(document)


def test_ignored_duplicate_clocks_do_not_block_later_inserts() -> None:
    document = TextDocument([item(1, 0, "abc"), item(1, 0, "🦜c")])
    document.apply(item(2, 0, "-", (1, 0), (1, 1)))
    assert str(document) == "a-bc"


def test_pieces_with_circular_origins_wait() -> None:
    one, other = item(1, 0, "a", (2, 0))[1:-1], item(2, 0, "b", (1, 0))[1:-1]
    document = TextDocument([b"\2" + other + one + b"\0"])
    assert document.has_pending
    assert TextDocument([document.since()]).has_pending
    document.apply(item(1, 0, "x"))
    assert str(document) == "xb"


def test_waiting_overlapping_deletions_are_merged() -> None:
    document = TextDocument([deletion(1, 0, 1), deletion(1, 0, 2)])
    document.apply(item(1, 0, "🦜x"))
    assert str(document) == str(TextDocument([document.since()])) == "x"


@given(st.binary(max_size=200))
def test_random_bytes_are_rejected_or_loaded_as_update(data: bytes) -> None:
    try:
        scan_update(data)
    except MalformedUpdate:
        return
    TextDocument([data])


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (b"", "number"),
        (b"\xff\xff\xff\xff\x07\0", "more than the limit"),
        (b"\1\1\1\0\x04\1\x05other\1a\0", "other than the text"),
        (b"\1\1\1\0\x04\0\1\0\1a\0", "nested"),
        (b"\1\1\1\0\x24\1\x07content\1k\1a\0", "key"),
        (b"\1\1\1\0\x07\1\x07content\2\0", "nested types"),
        (b"\1\1\1\0\x08\1\x07content\1\x77\1a\0", "values"),
        (b"\1\1\1\0\x05\1\x07content\1a\0", "embedded"),
        (b"\1\1\1\0\x09\1\x07content\1a\0", "documents"),
        (b"\1\1\1\0\x04\1\x07content\0\0", "length 0"),
        (b"\1\1\1\0\0\0\0", "length 0"),
        (b"\1\0\1\0\0", "without pieces"),
        (b"\2\1\1\0\0\1\1\1\1\0\1\0", "twice"),
        (b"\1\2\1\0" + (b"\0" + number(2**31 - 1)) * 2 + b"\0", "clock that is too high"),
        (item(1, 0, "x")[:-2] + b"\xff\0", "UTF-8"),
        # Yjs throws at these three, or does not define their position.
        (item(1, 3, "x", (1, 3)), "depends on itself"),
        (item(1, 3, "x", None, (1, 7)), "depends on itself"),
        (item(1, 3, "x", (2, 3), (2, 3)), "same left and right origin"),
    ],
)
def test_scan_update_rejects_everything_but_plain_text(update: bytes, message: str) -> None:
    with pytest.raises(MalformedUpdate, match=message):
        scan_update(update)


@pytest.mark.parametrize(
    ("update", "position"),
    [
        (item(2, 0, "-", (1, 1), (1, 2)), "an origin on its left"),
        (item(2, 0, "-", None, (1, 2)), "an origin on its right"),
        (deletion(1, 0, 2), "the end of a deletion"),
        (deletion(1, 2, 1), "the start of a deletion"),
        (item(1, 2, "yz", (1, 1)), "a piece of its own author"),
    ],
)
def test_update_that_splits_a_surrogate_pair_is_rejected(update: bytes, position: str) -> None:
    """Yrs would miscount, and the updates that it encodes afterwards would be invalid."""
    document = TextDocument([item(1, 0, "x🦜y")])
    with pytest.raises(MalformedUpdate, match="surrogate pair"):
        document.apply(update)
    assert str(TextDocument([document.since()])) == "x🦜y"
    assert not document.has_pending
    reloaded = TextDocument([document.since()])
    with pytest.raises(MalformedUpdate, match="surrogate pair"):
        reloaded.apply(update)
    # In the reverse order, the character is rejected because an update waits for a position within it.
    waiting = TextDocument([update])
    with suppress(MalformedUpdate):
        waiting.apply(item(1, 0, "x🦜y"))
    TextDocument([waiting.since()])


def test_since_rejects_a_state_within_a_surrogate_pair() -> None:
    document = TextDocument([item(1, 0, "x🦜y")])
    with pytest.raises(MalformedUpdate, match="surrogate pair"):
        document.since(b"\1\1\2")


@pytest.mark.parametrize("state", [b"", b"\1", b"\1\1", b"\xff\xff\xff\x7f", b"\0\0", b"\1\1\1\1"])
def test_since_rejects_an_invalid_state_vector(state: bytes) -> None:
    with pytest.raises(MalformedUpdate):
        TextDocument().since(state)


def test_conflicting_update_of_the_same_client_is_rejected() -> None:
    document = TextDocument([item(1, 0, "ab")])
    with pytest.raises(MalformedUpdate):
        document.apply(item(1, 0, "a🦜c"))
    assert str(document) == "ab"


@pytest.mark.parametrize(
    "update",
    [
        b"\1" + number(100_000) + b"\5\0" + b"\0\1" * 100_000 + b"\0",
        b"\0\1\5" + number(100_000) + b"\0\1" * 100_000,
        b"\1\1\5\0\x04\1\x07content" + lib0.string("🦜" * 70_000) + b"\0",
    ],
)
def test_large_update_is_applied_in_linear_time(update: bytes) -> None:
    started = time.thread_time()
    TextDocument([update]).since()
    assert time.thread_time() - started < 5 * UNIT


@given(TEXTS, TEXTS, SEEDS)
@settings(max_examples=100, deadline=None)
def test_edit_makes_the_same_text_in_other_documents(before: str, after: str, seed: int) -> None:
    first = genesis(before)
    document, other = TextDocument([first], client=seed + 1), TextDocument([first])
    update = document.edit(changes(before, after))
    other.apply(update)
    assert str(document) == str(other) == after
    assert other.state == document.state
    assert str(TextDocument([compact([first, update])])) == after


def test_edit_keeps_concurrent_changes_of_another_client() -> None:
    first = genesis("one two three")
    ours, theirs = TextDocument([first], client=5), TextDocument([first], client=6)
    mine = ours.edit(changes("one two three", "one 2 three"))
    yours = theirs.edit([(0, 0, "zero ")])
    assert str(TextDocument([first, yours, mine])) == str(TextDocument([first, mine, yours])) == "zero one 2 three"


def test_genesis_of_an_empty_content_is_the_empty_update() -> None:
    assert genesis("") == EMPTY_UPDATE
    assert str(TextDocument([genesis("")])) == ""
    assert genesis("a") != genesis("a")


def test_compact_drops_deleted_text() -> None:
    document = TextDocument(client=1)
    updates = [document.edit([(0, 0, "x" * 10_000)]), document.edit([(1, 9_999, "")])]
    assert len(compact(updates)) < 200
    assert str(TextDocument([compact(updates)])) == "xx"


class Peers(RuleBasedStateMachine):
    """Documents that exchange updates in any order, possibly twice, and are reloaded from a snapshot."""

    sent = Bundle("sent")
    count = 3

    def __init__(self) -> None:
        super().__init__()
        self.documents = [TextDocument(client=100 + place) for place in range(self.count)]
        self.stored: list[list[bytes]] = [[] for _ in range(self.count)]
        self.all: list[bytes] = []
        self.tokens: list[str] = []

    @rule(target=sent, place=st.integers(0, 2), data=st.data())
    def write(self, place: int, data: st.DataObject) -> bytes:
        document = self.documents[place]
        words = str(document)
        borders = [0, *(at + 1 for at, character in enumerate(words) if character == ";")]
        token = f"🦜{len(self.tokens)};"
        self.tokens.append(token)
        at = data.draw(st.sampled_from(borders))
        update = document.edit([(at, at, token)])
        self.stored[place].append(update)
        self.all.append(update)
        return update

    @rule(update=consumes(sent), place=st.integers(0, 2), times=st.integers(1, 2))
    def deliver(self, update: bytes, place: int, times: int) -> None:
        for _ in range(times):
            self.documents[place].apply(update)
            self.stored[place].append(update)

    @rule(one=st.integers(0, 2), other=st.integers(0, 2))
    def sync(self, one: int, other: int) -> None:
        update = self.documents[one].since(self.documents[other].state)
        self.documents[other].apply(update)
        self.stored[other].append(update)

    @rule(place=st.integers(0, 2))
    def compact(self, place: int) -> None:
        self.stored[place] = [compact(self.stored[place])]

    @rule(place=st.integers(0, 2))
    def reload(self, place: int) -> None:
        before = str(self.documents[place])
        self.documents[place] = TextDocument(self.stored[place], client=crdt.new_client_id())
        assert str(self.documents[place]) == before

    @invariant()
    def no_token_is_duplicated(self) -> None:
        for document in self.documents:
            words = str(document).split(";")
            assert len(set(words)) == len(words)

    def teardown(self) -> None:
        ends = set()
        for place, document in enumerate(self.documents):
            for other in self.documents:
                document.apply(other.since())
            for update in self.all:
                document.apply(update)
            ends.add(str(document))
            assert not document.has_pending, place
        assert len(ends) == 1
        words = ends.pop()
        assert sorted(words.split(";")[:-1]) == sorted(token[:-1] for token in self.tokens)


Peers.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


TestPeers = Peers.TestCase


def test_thousand_waiting_updates_do_not_slow_down_edits() -> None:
    document = TextDocument([genesis("text")])
    lost: Sequence[bytes] = [item(9, 2 * place + 1, "x", (9, 2 * place)) for place in range(1000)]
    for update in lost:
        document.apply(update)
    started = time.thread_time()
    document.edit([(0, 0, "a")])
    document.apply(item(10, 0, "b"))
    assert time.thread_time() - started < 0.2 * UNIT


def test_apply_if_new_returns_false_for_known_updates() -> None:
    one, other = TextDocument(client=1), TextDocument(client=2)
    first, second = one.edit([(0, 0, "hello")]), one.edit([(0, 2, "")])
    assert other.apply_if_new(first)
    assert other.apply_if_new(second)
    assert not other.apply_if_new(first)
    assert not other.apply_if_new(second)
    assert not other.apply_if_new(one.since())
    late = one.edit([(0, 0, "x")])
    later = one.edit([(1, 1, "y")])
    assert other.apply_if_new(later)  # it waits
    assert other.apply_if_new(late)
    assert str(other) == "xyllo"


def test_text_with_nul_is_rejected() -> None:
    source: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc()
    source.get("content", type=pycrdt.Text).insert(0, "a\0b")
    with pytest.raises(MalformedUpdate, match="NUL"):
        TextDocument([source.get_update()])


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 7))
def test_split_update_parts_make_the_same_text(seed: int, limit: int) -> None:
    text, updates = authored(seed)
    for whole in (TextDocument(updates).since(), pycrdt.merge_updates(*updates)):
        walk, pieces = split_update(whole, limit)
        document = TextDocument()
        assert document.has_dependencies_of(walk)
        for part in pieces:
            assert len(split_update(part, limit)[1]) == 1
            document.apply(part)
            assert not document.has_pending
        assert str(document) == text
        assert decode_state_vector(document.state) == decode_state_vector(TextDocument(updates).state)


def test_parts_of_an_update_with_a_gap_wait_for_it() -> None:
    author = Author(7)
    for word in ("one", "two", "three", "four"):
        before = author.doc.get_state()
        author.text.insert(0, word)
        author.updates.append(author.doc.get_update(before))
    one, two, three, four = author.updates
    document = TextDocument()
    for part in split_update(pycrdt.merge_updates(one, three, four), 1)[1]:
        document.apply(part)
    assert str(document) == "one"
    document.apply(two)
    assert str(document) == "fourthreetwoone"


def test_pending_updates_in_reverse_order_are_popped_in_linear_time() -> None:
    many = 5000
    waiting = PendingUpdates()
    end = number(many + 1) + b"\0\4\1" + lib0.string("content") + b"\1a"
    rest = b"".join(b"\1" + number(one) + b"\0\x84" + number(one + 1) + b"\0\1a" for one in range(1, many + 1))
    waiting.add(number(many + 1) + rest + b"\1" + end + b"\0", {})
    started = time.thread_time()
    assert len(waiting.pop_ready({})) == many + 1
    assert time.thread_time() - started < UNIT
    assert not waiting


def test_trusted_document_equals_the_validated_one() -> None:
    pick, document = random.Random(3), TextDocument(client=5)
    for number in range(50):
        position = pick.randrange(len(str(document)) + 1)
        document.edit([(position, position, pick.choice(("ab", "ä", "🦜", "\n")) * number)])
    update = document.integrated_since()
    trusted, validated = TextDocument.trusted(update), TextDocument([update])
    assert str(trusted) == str(validated)
    assert trusted.clocks == validated.clocks
    for clock in range(trusted.clocks[5]):
        assert _refuses(trusted, clock) == _refuses(validated, clock)


def _refuses(document: TextDocument, clock: int) -> bool:
    try:
        document.check_clocks({5: clock})
    except MalformedUpdate:
        return True
    return False


def test_text_is_read_again_after_each_change() -> None:
    document = TextDocument(client=5)
    document.edit([(0, 0, "one")])
    assert str(document) == "one"
    document.edit([(3, 3, " two")], "one")
    assert str(document) == "one two"
    document.cache_text("one two")
    document.clear_cached_text()
    assert str(document) == "one two"
