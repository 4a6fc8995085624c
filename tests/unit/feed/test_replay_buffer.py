"""The replay buffer: it returns all missed events or none, and its size is bounded."""

from __future__ import annotations

import pytest

from realtime.core.frames import Frame
from realtime.eventlog.cursor import Cursor
from realtime.eventlog.event import Event
from realtime.feed.replay_buffer import ReplayBuffer


def event(offset: int, id: int = 1, epoch: str = "e", size: int = 10) -> Event:
    frame = Frame(b"x" * size)
    return Event(id, Cursor(epoch, offset), frame, frame)


def missed(recent: ReplayBuffer, since: int, top: int, epoch: str = "e") -> list[int] | None:
    found = recent.between(Cursor(epoch, since), Cursor(epoch, top))
    return None if found is None else [one.cursor.offset for one in found]


def test_latest_of_each_note_in_order() -> None:
    recent = ReplayBuffer()
    for offset, id in ((5, 1), (6, 2), (7, 1), (8, 3)):
        recent.add(event(offset, id))
    assert missed(recent, 4, 8) == [6, 7, 8]
    assert missed(recent, 6, 8) == [7, 8]
    assert missed(recent, 8, 8) == []


def test_what_came_before_the_first_is_not_known() -> None:
    recent = ReplayBuffer()
    assert missed(recent, 3, 4) is None
    recent.add(event(5))
    assert missed(recent, 3, 5) is None
    assert missed(recent, 4, 5) == [5]


@pytest.mark.parametrize(("offset", "epoch"), [(9, "e"), (6, "f"), (5, "e")])
def test_hole_forgets_what_came_before(offset: int, epoch: str) -> None:
    recent = ReplayBuffer()
    recent.add(event(5))
    recent.add(event(offset, epoch=epoch))
    assert missed(recent, offset - 2, offset, epoch) is None
    assert missed(recent, offset - 1, offset, epoch) == [offset]
    assert recent.between(Cursor("e", 4), Cursor(epoch, offset)) is None or (offset, epoch) == (5, "e")


def test_position_beyond_what_was_handed_out_is_not_known() -> None:
    """The worker started over at another position, and no event has come since."""
    recent = ReplayBuffer()
    recent.add(event(5))
    assert missed(recent, 5, 7) is None


def test_who_is_at_the_position_missed_nothing() -> None:
    """Also before the first event of all, when nothing is at hand and Redis may be away."""
    assert missed(ReplayBuffer(), 4, 4) == []


def test_only_so_many_events_and_bytes() -> None:
    recent = ReplayBuffer(3, max_bytes=100)
    for offset in range(1, 11):
        recent.add(event(offset, id=offset))
    assert missed(recent, 6, 10) is None
    assert missed(recent, 7, 10) == [8, 9, 10]
    recent.add(event(11, id=11, size=85))
    assert missed(recent, 8, 11) is None
    assert missed(recent, 9, 11) == [10, 11]
    recent.add(event(12, id=12, size=500))
    assert missed(recent, 11, 12) is None
    assert missed(recent, 12, 12) == []


def test_what_came_around_the_log_is_kept_until_the_log_has_it() -> None:
    recent = ReplayBuffer(max_bytes=25)
    recent.add(event(5, 1))
    for id in (1, 2, 2, 3):
        recent.add_unlogged(event(5, id))
    assert list(recent.unlogged) == [2, 3]  # the bytes of two
    recent.add(event(6, 2))
    recent.add_unlogged(event(6, 4))
    assert list(recent.unlogged) == [3, 4]
    assert missed(recent, 4, 6) == [5, 6]
